"""The order of a session's turn, and what is left undone while the client takes nothing."""

import math
import os
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.agent.session.sending import Sender
from kubectl_gadget.agent.sources.output import Channel
from kubectl_gadget.agent.sources.source import Callbacks, Source


class Scripted:
    """A source that notes what is asked of it, in `log`."""

    name = "scripted"
    fd = -1
    due = 5.0
    empty = True

    def __init__(self, log: list[str], settled: bool = True) -> None:
        self._log = log
        self._settled = settled
        self.is_quiet = True
        self.bytes = 8

    def started(self) -> Any:
        return {}

    def stats(self) -> Any:
        return {}

    def update(self, value: Any) -> None:
        self._log.append("update")

    def settle(self, is_blocked: bool) -> bool:
        self._log.append("settle, blocked" if is_blocked else "settle")
        return self._settled

    def send(self, channel: Channel) -> int:
        self._log.append("send")
        return self.bytes

    def detach(self) -> None:
        self._log.append("detach")

    def close(self) -> None:
        self._log.append("close")


class Drained:
    """In the place of Containers."""

    def __init__(self, log: list[str], named: bool = True) -> None:
        self._log = log
        self._named = named
        self.is_quiet = True
        self.removed = [7]

    def drain(self) -> bool:
        self._log.append("drain")
        return self._named

    def take_changes(self) -> None:
        return None

    def take_removed(self) -> list[int]:
        removed, self.removed = self.removed, []
        return removed


@pytest.fixture
def pipe() -> Iterator[tuple[FramePipe, int]]:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    yield FramePipe(writer), reader
    os.close(reader)
    os.close(writer)


def sender(pipe: FramePipe, log: list[str], named: bool = True, settled: bool = True) -> Sender:
    callbacks = Callbacks()
    callbacks.removed.append(lambda cgroups: log.append(f"removed {cgroups}"))
    source: Source = Scripted(log, settled)
    containers: Any = Drained(log, named)
    return Sender([source], containers, callbacks, pipe)


def test_all_is_settled_before_cgroups_are_drained_and_sent_after(pipe: tuple[FramePipe, int]) -> None:
    log: list[str] = []
    assert sender(pipe[0], log).turn()
    assert log == ["settle", "drain", "send", "removed [7]"]


@pytest.mark.parametrize(("named", "settled"), [(False, True), (True, False)])
def test_nothing_is_sent_while_a_name_or_an_event_may_be_missing(
    pipe: tuple[FramePipe, int], named: bool, settled: bool
) -> None:
    log: list[str] = []
    assert not sender(pipe[0], log, named, settled).turn()
    assert log == ["settle", "drain"]


def test_while_the_client_reads_nothing_no_interval_is_due(pipe: tuple[FramePipe, int]) -> None:
    log: list[str] = []
    found, reader = sender(pipe[0], log), pipe[1]
    pipe[0].put(bytes(1 << 20))
    pipe[0].flush()
    assert not found.turn()
    assert log == ["settle, blocked", "drain"], "names are read meanwhile"
    assert found.due == math.inf, "or the loop would spin"
    while pipe[0].blocked:
        os.read(reader, 1 << 16)
        pipe[0].flush()
    assert found.due == 5.0


def test_a_session_is_at_rest_after_a_turn_without_anything_and_until_something_comes(
    pipe: tuple[FramePipe, int],
) -> None:
    source, containers = Scripted([]), Drained([])
    found = Sender([source], containers, Callbacks(), pipe[0])  # type: ignore[arg-type]
    assert not found.is_quiet, "it has not looked yet"
    found.turn()
    assert not found.is_quiet, "it has sent, so idle sources have to report the end"
    source.bytes = 0
    found.turn()
    assert not found.is_quiet, "the removal of a cgroup was sent"
    found.turn()
    assert found.is_quiet
    source.is_quiet = False
    assert not found.is_quiet
    source.is_quiet = True
    containers.is_quiet = False
    assert not found.is_quiet
    containers.is_quiet = True
    pipe[0].put(bytes(1 << 20))
    pipe[0].flush()
    assert not found.is_quiet, "the client has not taken all"


@pytest.mark.parametrize(("named", "settled"), [(False, True), (True, False)])
def test_a_session_with_something_left_to_send_is_not_at_rest(
    pipe: tuple[FramePipe, int], named: bool, settled: bool
) -> None:
    found = sender(pipe[0], [], named, settled)
    for _ in range(3):
        found.turn()
    assert not found.is_quiet
    assert found.report_due == math.inf, "or the loop would spin"
