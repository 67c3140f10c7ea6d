"""The set of a process and its descendants in the kernel: who joins, who leaves, and who only has the same number."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.shared_maps import Descendants
from kubectl_gadget.errors import AgentError
from tests.bpf.tracer import pid_level
from tests.waiting import wait_until

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
TRIES = 200


class Child:
    """A process that lives until it is ended. `before` is run in it first."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        lives, self._end = os.pipe()
        says, began = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._end)
            answer = before()
            os.write(began, str(answer or "").encode() + b"\n")
            os.read(lives, 1)
            os._exit(0)
        os.close(lives)
        os.close(began)
        self.answer = os.read(says, 64).decode().strip()
        os.close(says)

    def end(self) -> None:
        os.close(self._end)
        os.waitpid(self.pid, 0)


@pytest.fixture
def parent() -> Iterator[Child]:
    """With a child of its own, whose number is `answer`."""
    child = Child(lambda: Child().pid)
    yield child
    child.end()


def members(family: Descendants) -> set[int]:
    if pid_level():
        pytest.skip("the kernel's numbers are not this PID namespace's")
    map = family._object.required_map("gadget_descendants")
    return {int.from_bytes(key, "little") for key in map.keys()}  # noqa: SIM118


def test_existing_descendants_are_found_in_any_order_of_pids(parent: Child) -> None:
    family = Descendants(parent.pid, pid_level())
    try:
        assert members(family) == {parent.pid, int(parent.answer)}
    finally:
        family.close()


def test_later_children_are_added_and_reaped_ones_removed() -> None:
    family = Descendants(os.getpid(), pid_level())
    try:
        child = Child(lambda: Child().pid)
        assert {os.getpid(), child.pid, int(child.answer)} <= members(family)
        child.end()
        # The kernel frees the process after a grace period; nothing else is waited for.
        wait_until(lambda: child.pid not in members(family), state=lambda: (child.pid, members(family)))
    finally:
        family.close()


def test_another_process_with_the_pid_of_a_descendant_is_not_a_descendant(parent: Child) -> None:
    """Its number is free before the kernel says that the process is gone."""
    if not os.access(LAST_PID, os.W_OK):
        pytest.skip("the next number of a process cannot be chosen")
    family = Descendants(parent.pid, pid_level())
    try:
        for _ in range(TRIES):
            # Of the parent's own: this process is no descendant, and what it forks is none.
            numbered = members(family) - {parent.pid}
            assert numbered
            wanted = max(numbered)
            map = family._object.required_map("gadget_descendants")
            map.put((wanted + 1).to_bytes(4, "little"), bytes(8))  # as one that was just reaped
            LAST_PID.write_text(str(wanted))
            stranger = Child()
            stranger.end()
            if stranger.pid == wanted + 1:
                assert stranger.pid not in members(family)
                return
            map.remove((wanted + 1).to_bytes(4, "little"))
        pytest.skip("other processes took the number each time")
    finally:
        family.close()


def test_without_room_it_is_reported(monkeypatch: pytest.MonkeyPatch, parent: Child) -> None:
    monkeypatch.setattr("kubectl_gadget.agent.sources.shared_maps.PROCESSES", 1)
    family = Descendants(parent.pid, pid_level())
    try:
        assert "further ones are not followed" in str(family.warning())
    finally:
        family.close()


def test_a_set_that_cannot_be_filled_leaves_no_program_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[BpfObject] = []
    close = BpfObject.close

    def fails(object: BpfObject, program: str) -> int:
        raise Failure("iterate", errno.EIO, [])

    def noted(object: BpfObject) -> None:
        closed.append(object)
        close(object)

    monkeypatch.setattr(BpfObject, "iterate", fails)
    monkeypatch.setattr(BpfObject, "close", noted)
    with pytest.raises(AgentError, match="follows descendants"):
        Descendants(os.getpid(), pid_level())
    assert len(closed) == 1
