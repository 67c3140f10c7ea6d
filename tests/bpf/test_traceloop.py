"""traceloop: what processes did last, kept in this kernel's memory and shown when something asks, by the agent."""

import errno
import faulthandler
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.host.cgroups import find_root
from kubectl_gadget.gadgets.load import load_gadget, object_bytes
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.request import build
from kubectl_gadget.run.run_options import GadgetRun
from kubectl_gadget.wire.frames import FrameType, split_events
from tests.agent.client import Client
from tests.bpf.deeds import syscall
from tests.bpf.tracer import MACHINE

pytestmark = pytest.mark.bpf
TIMES = 13
UNKNOWN_NUMBER = 500
"""No call has it, so nothing else makes it."""


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as client:
        client.wait_for(FrameType.HELLO)
        yield client


@pytest.fixture
def cgroup() -> Iterator[Path]:
    path = Path(find_root()) / f"traceloop-{os.getpid()}"
    path.mkdir()
    yield path
    for found in sorted(path.glob("*/"), reverse=True):
        found.rmdir()
    if path.exists():
        path.rmdir()


def record(client: Client, **parameters: Any) -> None:
    request = build((GadgetRun(load_gadget("traceloop"), parameters),), ({},), 1 << 20)
    (gadget,) = request.gadgets
    gadget = gadget.replace(parameters={**gadget.parameters, "filter_errno": errno.ENOSYS})
    client.run(object_bytes("traceloop", MACHINE), gadget.to_json())


def recordings(client: Client) -> list[list[dict[str, Any]]]:
    """Those with our call that have come so far."""
    found = []
    for frame in client.frames:
        if frame.type == FrameType.EVENTS:
            batch = decode(load_gadget("traceloop"), "node", split_events(frame.payload)[1], architecture=MACHINE)
            rows = MemberRows().records(Rows([batch]))
            if any(row["syscall"] == str(UNKNOWN_NUMBER) for row in rows):
                found.append(rows)
    return found


def in_cgroup(cgroup: Path, times: int, last: Callable[[], object] = lambda: None) -> int:
    """A child that moves there, makes so many calls, and then does `last`. Its status as wait() gives it."""
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()
        (cgroup / "cgroup.procs").write_text("0")
        for turn in range(times):
            syscall(UNKNOWN_NUMBER, turn)
        last()
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def test_a_crash_shows_what_its_cgroup_did_before(client: Client, cgroup: Path) -> None:
    record(client, on="crash")
    status = in_cgroup(cgroup, TIMES, lambda: os.kill(os.getpid(), signal.SIGSEGV))
    assert os.WTERMSIG(status) == signal.SIGSEGV
    client.wait_until(lambda: bool(recordings(client)))
    (rows,) = recordings(client)
    calls = [row["arguments"][0] for row in rows if row["syscall"] == str(UNKNOWN_NUMBER)]
    assert calls == [hex(turn) for turn in range(TIMES)]
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["syscall"] == "+++"
    assert rows[-1]["arguments"][0].startswith("killed by SIGSEGV")
    assert {row["because"] for row in rows} == {"crash"}
    assert {(row["trigger_pid"], row["trigger_signal"]) for row in rows} == {(rows[-1]["pid"], "SIGSEGV")}
    assert {row["trigger_comm"] for row in rows} == {rows[-1]["comm"]}


def test_only_the_last_calls_are_kept_and_how_many_were_before_is_known(client: Client, cgroup: Path) -> None:
    record(client, on="kill", last=7)
    in_cgroup(cgroup, 23, lambda: os.kill(os.getpid(), signal.SIGKILL))
    client.wait_until(lambda: bool(recordings(client)))
    (rows,) = recordings(client)
    assert [row["number"] for row in rows] == list(range(18, 25))
    assert [row["arguments"][0] for row in rows] == [*(hex(turn) for turn in range(17, 23)), "killed by SIGKILL"]
    assert {row["because"] for row in rows} == {"kill"}


def test_the_end_of_a_container_shows_what_it_did(client: Client, cgroup: Path) -> None:
    record(client, on="exit")
    in_cgroup(cgroup, TIMES)
    cgroup.rmdir()
    client.wait_until(lambda: bool(recordings(client)))
    (rows,) = recordings(client)
    assert len(rows) == TIMES
    assert {row["because"] for row in rows} == {"exit"}
    assert {row["trigger_pid"] for row in rows} == {None}


def test_a_recording_is_shown_on_request_and_not_twice(client: Client, cgroup: Path) -> None:
    record(client, on="end")
    in_cgroup(cgroup, TIMES)
    client.send(FrameType.SHOW)
    client.wait_until(lambda: bool(recordings(client)))
    in_cgroup(cgroup, 5)
    end = client.stop()
    asked, ended = recordings(client)
    assert [row["number"] for row in asked] == list(range(1, TIMES + 1))
    assert [row["number"] for row in ended] == list(range(TIMES + 1, TIMES + 6))
    assert ({row["because"] for row in asked}, {row["because"] for row in ended}) == ({"asked"}, {"end"})
    assert end["stats"]["gadgets"][0]["lost"] == {}


def test_nothing_is_shown_that_was_not_asked_for(client: Client, cgroup: Path) -> None:
    record(client, on="exit")
    in_cgroup(cgroup, TIMES, lambda: os.kill(os.getpid(), signal.SIGSEGV))
    client.stop()
    assert recordings(client) == []


def test_crashes_in_many_cgroups_are_all_shown(client: Client, cgroup: Path) -> None:
    record(client, on="crash", last=3)
    inner = [cgroup / str(number) for number in range(37)]
    for path in inner:
        path.mkdir()
        in_cgroup(path, TIMES, lambda: os.kill(os.getpid(), signal.SIGABRT))
    client.wait_until(lambda: len(recordings(client)) == len(inner))
    assert [row["number"] for row in recordings(client)[0]] == [12, 13, 14]
    for path in inner:
        path.rmdir()
    assert client.stop()["stats"]["gadgets"][0]["lost"] == {}


def test_calls_without_a_recorder_are_counted_as_lost(client: Client, cgroup: Path) -> None:
    record(client, on="end", last=512, memory=1)
    for name in ("a", "b"):
        (cgroup / name).mkdir()
        in_cgroup(cgroup / name, TIMES)
    end = client.stop()
    for name in ("a", "b"):
        (cgroup / name).rmdir()
    (rows,) = recordings(client)
    assert len(rows) == TIMES
    assert sum(end["stats"]["gadgets"][0]["lost"]["map_full"].values()) == TIMES
