"""Hooks, profiles and ring of one set of installed policies: loaded here, or taken over from an agent that has ended.

The trap: a hook that was taken over has no object, only the pinned maps and its link or entry in a program array.
"""

import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from kubectl_gadget.agent.bpf.links import REMOVED, needs_ftrace, program_of, why_no_ftrace, why_stopped
from kubectl_gadget.agent.bpf.maps import BpfMap, OpenMap
from kubectl_gadget.agent.bpf.syscall_programs import SyscallDispatcher, tables_match
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.installed.pinned_policies import PinnedCalls
from kubectl_gadget.agent.policies.files import RealFiles
from kubectl_gadget.agent.policies.hook import PolicyHook
from kubectl_gadget.agent.policies.hook_set import FileSearch, HookSet, load_hooks
from kubectl_gadget.agent.policies.selector_profiles import Profiles
from kubectl_gadget.agent.sources.output import EventsOutput
from kubectl_gadget.agent.sources.source import NodeContext, Warnings
from kubectl_gadget.wire.policy_messages import PolicyHookSpec, PolicySpec, Way


class TakenOverHook(PolicyHook):
    """A hook that another process has attached."""

    def __init__(self, spec: PolicyHookSpec, way: Way, maps: dict[str, OpenMap], link: int | None) -> None:
        super().__init__(spec, lambda _: None, RealFiles, SyscallDispatcher(), lambda _: None)
        self.way = way
        self._maps = maps
        self._links = [] if link is None else [link]
        self._programs = [program_of(link) for link in self._links]
        self._called: tuple[OpenMap, bytes, bytes, Mapping[str, OpenMap], PinnedCalls] | None = None

    def map(self, name: str) -> BpfMap:
        return self._maps[name]

    def link_fds(self) -> list[int]:
        return self._links

    def set_entry(
        self, array: OpenMap, place: int, program: int, tables: Mapping[str, OpenMap], content: PinnedCalls
    ) -> None:
        """Call it for a hook without a link: the dispatcher calls its program from this entry of a program array, if
        the dispatcher's tables say so. Does not close the maps."""
        self._called = array, struct.pack("<I", place), struct.pack("<I", program), tables, content

    def stopped(self) -> str | None:
        if self._called:
            array, place, program, tables, content = self._called
            followers = {int(row): mask for row, mask in content.followers.items()}
            is_called = array.get(place) == program and tables_match(tables, followers, content.interests)
            return None if is_called else REMOVED
        for link, id in zip(self._links, self._programs, strict=True):
            if why := why_stopped(link, id):
                return why
        return why_no_ftrace() if needs_ftrace(self.way.kind) else None

    def release(self) -> bool:
        while self._links:
            os.close(self._links.pop())
        self._programs.clear()
        return False

    def close(self) -> None:
        for map in self._maps.values():
            map.close()


@dataclass(frozen=True)
class LoadedPolicies:
    """The parts of a set that are in the kernel."""

    hooks: HookSet
    output: EventsOutput
    profiles: Profiles
    files: FileSearch
    warnings: Warnings
    calls: SyscallDispatcher
    """calls the hooks that have no link"""

    def close(self) -> None:
        """Call it after the hooks were detached."""
        self.output.close()
        self.hooks.close()
        self.calls.close()


def load(spec: PolicySpec, elf: bytes, containers: Containers, hooks: HookSet) -> LoadedPolicies:
    """Loads and attaches the hooks of `spec` that this node has. Raises AgentError; `hooks.failed` then says which
    hooks failed, and why."""
    context = NodeContext(containers, wants_cgroup=lambda path: True)
    with ExitStack() as undo:
        undo.callback(context.calls.close)
        undo.callback(hooks.close)
        load_hooks(spec, elf, context, hooks, tolerant=True)
        output = hooks.open_output(containers.numbers)
        undo.callback(output.close)
        profiles = Profiles(spec, hooks.hooks, hooks.without, context.warnings.add)
        profiles.begin(is_open=True)
        files = FileSearch(hooks.hooks, context.wants_cgroup)
        undo.pop_all()
    return LoadedPolicies(hooks, output, profiles, files, context.warnings, context.calls)


def take_over(spec: PolicySpec, hooks: HookSet, links: Iterable[int], containers: Containers) -> LoadedPolicies:
    """Continues with `hooks`, which were pinned. `links`: all other pins, of programs that remember processes and of
    the dispatcher, which are held."""
    context = NodeContext(containers, wants_cgroup=lambda path: True)
    hooks.processes.adopt(links)
    output = hooks.open_output(containers.numbers)
    profiles = Profiles(spec, hooks.hooks, hooks.without, context.warnings.add)
    profiles.adopt()
    files = FileSearch(hooks.hooks, context.wants_cgroup)
    return LoadedPolicies(hooks, output, profiles, files, context.warnings, context.calls)
