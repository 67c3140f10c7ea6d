"""The hooks of a set of policies, attached by this process (hook_loader.py) or by an earlier one.

Programs of hooks in files (uprobes, USDT) are attached whenever such files are found in containers' file systems. The
trap: maps belong to the hook that was loaded first, so hooks are closed together, the first one last.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kubectl_gadget.agent.bpf.links import wait_for_programs
from kubectl_gadget.agent.containers.ring_fairness import ContainerNumbers
from kubectl_gadget.agent.host.foreign_files import FileSystems
from kubectl_gadget.agent.policies.hooks.followed_files import FollowedFiles
from kubectl_gadget.agent.policies.hooks.hook import PolicyHook
from kubectl_gadget.agent.policies.hooks.remembered_processes import RememberedProcesses
from kubectl_gadget.agent.policies.hooks.same_files import SameFiles
from kubectl_gadget.agent.policies.hooks.uprobe_targets import UprobeTargets
from kubectl_gadget.agent.sources.events_output import EventsOutput
from kubectl_gadget.agent.symbols.real_files import RealFiles
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import StartedPrograms

_SEARCH_SECONDS = 0.1
"""Between two searches for files that need probes."""


@dataclass
class HookSet:
    """`without` are policies that are not in force because a hook failed on this node; `failed` says why, by the hook's
    index in the request, since several hooks may have one name."""

    hooks: list[PolicyHook] = field(default_factory=list)
    without: set[int] = field(default_factory=set)
    failed: dict[int, AgentError] = field(default_factory=dict)
    processes: RememberedProcesses = field(default_factory=RememberedProcesses)
    followed: FollowedFiles | None = None
    _real_files: RealFiles | None = None

    def real_files(self) -> RealFiles:
        """Returns the finder of real files, which is created at first use."""
        self._real_files = self._real_files or RealFiles()
        return self._real_files

    def open_output(self, numbers: ContainerNumbers) -> EventsOutput:
        """Opens the ring to which all hooks write, and its counters."""
        first = self.hooks[0]
        return EventsOutput(first.map("gadget_events"), first.map("gadget_cpus"), first.map("gadget_shares"), numbers)

    def programs(self) -> tuple[StartedPrograms, ...]:
        """The member `programs` of the STARTED frame."""
        return tuple(
            StartedPrograms(
                chosen=(hook.way.program,), hooks=(hook.hook,), skipped=tuple(hook.skipped), method=hook.way.method
            )
            for hook in self.hooks
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """The member `hooks` of the STATS frame."""
        return {f"{hook.name} by {hook.hook}": hook.counts() for hook in self.hooks}

    def stopped(self) -> dict[str, str]:
        """Returns why hooks no longer run, and programs that they need, by name."""
        found = {f"{hook.name} by {hook.hook}": why for hook in self.hooks if (why := hook.stopped())}
        return found | (self.followed.stopped() if self.followed else {})

    def detach(self) -> None:
        """Stops all programs, except those whose links are pinned."""
        if any([hook.release() for hook in self.hooks]):
            wait_for_programs()
        self.processes.detach()
        if self.followed:
            self.followed.detach()

    def close(self) -> None:
        """Detaches, and frees everything."""
        self.processes.close()
        for hook in self.hooks:
            hook.detach()
        if self._real_files:
            self._real_files.close()
        if self.followed:
            self.followed.close()
        for hook in reversed(self.hooks):
            hook.close()
        self.hooks.clear()


class FileSearch:
    """Searches for the files in which `hooks` have probes, and for those that they compare with."""

    def __init__(self, hooks: Sequence[PolicyHook], wants_cgroup: Callable[[str], bool]) -> None:
        self._searching: list[UprobeTargets | SameFiles] = [hook.probes for hook in hooks if hook.probes]
        self._searching += [hook.files for hook in hooks if hook.files]
        self._file_systems = FileSystems(wants_cgroup)
        self._next_search = 0.0
        self.turn(time.monotonic())

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic()."""
        if not self._searching or now < self._next_search:
            return
        self._next_search = now + _SEARCH_SECONDS
        found = self._file_systems.look()
        for each in self._searching:
            each.turn(found)
