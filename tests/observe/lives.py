"""Happenings as trace process reports them, for tests: one call each, with the fields that matter."""

from dataclasses import replace
from typing import Any

from kubectl_gadget.linux.names import NAMESPACE_KINDS
from kubectl_gadget.observe.happening import Happening, ProcessEvent
from kubectl_gadget.observe.processes import Process, ProcessTable
from kubectl_gadget.observe.story import StoryEvent
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.wire.policy_events import Credentials, ExecId

ROOT = Credentials(0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1FFFFFFFFFF, 0x1FFFFFFFFFF, 0)
XWING = Container("container", "default", "xwing", "spaceship", "busybox", "c" * 64, "u1", "containerd")
SECOND = 1_000_000_000
NOON = 1_700_000_000 * SECOND
SHELL = ExecId(1000, 10)


def event(operation: Any, process: ExecId, parent: ExecId | None = None, **values: Any) -> ProcessEvent:
    """A record; `values` are fields of ProcessEvent."""
    plain = ProcessEvent(
        operation=operation,
        process=process,
        parent=parent,
        tid=process.pid,
        container_pid=process.pid,
        started=NOON,
        credentials=ROOT,
        auid=None,
        namespaces=dict.fromkeys(NAMESPACE_KINDS, 4026531840),
        host_namespaces=0,
        comm="",
        cwd="/",
    )
    return replace(plain, **values)


def executed(process: ExecId, *args: str, parent: ExecId | None = None, **values: Any) -> ProcessEvent:
    """The program of `args`, called by its whole path."""
    plain: dict[str, Any] = {"exe": args[0], "path": args[0], "args": args}
    return event("exec", process, parent, **(plain | values))


class Life:
    """A table, and its happenings, a second apart."""

    def __init__(self, **values: Any) -> None:
        self.table = ProcessTable("node-1", **values)
        self.time = NOON

    def apply(self, happened: ProcessEvent, container: Container = XWING, seconds: float = 1) -> Process:
        self.time += int(seconds * SECOND)
        return self.table.apply(happened, container, self.time)

    def told(self, happened: Happening, process: Process | None = None, container: Container = XWING) -> StoryEvent:
        if isinstance(happened, ProcessEvent):
            process = self.apply(happened, container)
        found = process or self.table.find(happened.process)
        assert found is not None
        described = happened if isinstance(happened, ProcessEvent) else found.event
        above = found.parent.references if found.parent else 0
        return StoryEvent("node-1", self.time, container, happened, found, described, found.references, above)


def vi(life: Life) -> ExecId:
    """A shell that forks, whose child executes vi; vi's identity."""
    life.apply(event("running", SHELL, exe="/bin/sh", args=("sh",), container_pid=1))
    forked = ExecId(2000, 11)
    life.apply(event("fork", forked, SHELL, exe="/bin/sh"))
    program = ExecId(2001, 11)
    life.apply(executed(program, "/usr/bin/vi", "/etc/passwd", parent=SHELL))
    return program
