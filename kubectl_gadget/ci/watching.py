"""The sink of a CI run: nothing is printed while COMMAND runs; rows go to the checks, and into what was seen.

The trap: it runs in the pipeline's thread for every row of a busy build, so rows are read by columns, and only what is
new is kept.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kubectl_gadget.ci.activity import Activity, FileUse, RemoteEnd, SeenProcess
from kubectl_gadget.ci.policy_matches import POLICIES, PolicyChecks
from kubectl_gadget.ci.row_checks import RowCheck
from kubectl_gadget.output.sink import WholeSink
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.members import member_values
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wire.policy_events.body import rfc3339

_MOST_FORKS = 100_000
_WRITES = ("O_WRONLY", "O_RDWR")


class Watching(WholeSink):
    """Takes all rows of a run. `behavior` also gets them, if a baseline or an assertion asks for facts."""

    def __init__(
        self, checks: Sequence[RowCheck], policies: PolicyChecks | None, behavior: Callable[[Rows], object] | None
    ) -> None:
        self.activity = Activity()
        self.rows = 0
        self._forked: dict[str, str] = {}
        """by process: the program that it runs a copy of, such as the shell of a subshell"""
        self._checks = checks
        self._policies = policies
        self._behavior = behavior
        self._of_gadget = {
            "trace_process": self._processes,
            "trace_open": self._opens,
            "trace_tcp": self._connections,
            "trace_udp": self._connections,
            "trace_dns": self._names,
            "trace_bind": self._listening,
        }

    def write(self, rows: Rows) -> None:
        """Takes rows, in the order of time."""
        self.rows += len(rows)
        if self._behavior is not None:
            self._behavior(rows)
        if self._policies is not None:
            self._policies.see(rows)
        for part in rows.parts:
            if part.gadget.name == POLICIES:
                continue
            for check in self._checks:
                check.take(part)
            if (see := self._of_gadget.get(part.gadget.name)) is not None:
                see(part)

    def _processes(self, batch: Batch) -> None:
        names = ("operation", "exec_id", "parent_exec_id", "exe", "args", "pid", "code", "signal")
        owners, times = batch.row_containers(), batch.wall_ns().tolist()
        for number, (what, id, above, exe, arguments, pid, code, ended_by) in enumerate(_columns(batch, *names)):
            parent = self._forked.get(above, above)
            if what == "fork" and len(self._forked) < _MOST_FORKS:
                self._forked[id] = parent
            elif what == "exec":
                began = rfc3339(times[number])
                words, owner = tuple(map(str, arguments or ())), owners[number]
                place = "/".join(filter(None, (owner.namespace, owner.pod, owner.container)))
                self.activity.add_process(SeenProcess(id, parent, exe or "?", words, pid, place, began))
            elif what == "exit" and (process := self.activity.processes.get(id)) is not None:
                process.ended = str(ended_by or "") or (f"exit code {code}" if code and code > 0 else "")

    def _opens(self, batch: Batch) -> None:
        uses = (
            FileUse(path or "", "write" if any(flag in (flags or "") for flag in _WRITES) else "read", error or "")
            for path, flags, error in _columns(batch, "path", "flags", "error")
        )
        self.activity.add_files(uses)

    def _connections(self, batch: Batch) -> None:
        protocol = batch.gadget.event
        for what, address, port, comm in _columns(batch, "operation", "remote", "remote_port", "comm"):
            if what == "connect":
                self.activity.add_peer(RemoteEnd("connect", protocol, address or "", port or 0, comm or ""))
            elif what == "accept":
                self.activity.add_peer(RemoteEnd("accept", protocol, address or "", 0, comm or ""))

    def _names(self, batch: Batch) -> None:
        for name, role in _columns(batch, "name", "role"):
            if name and role != "server":
                self.activity.add_name(name)

    def _listening(self, batch: Batch) -> None:
        names = ("protocol", "address", "port", "comm", "errno")
        for protocol, address, port, comm, errno in _columns(batch, *names):
            if not errno and port:
                self.activity.add_peer(RemoteEnd("listen", str(protocol).lower(), address or "", port, comm or ""))


def _columns(batch: Batch, *names: str) -> Iterator[tuple[Any, ...]]:
    """The values of these members, row by row."""
    return zip(*(member_values(batch, name) for name in names), strict=True)
