"""The hooks of a set of policies, attached by this process or by an earlier one, and what they need: followed files,
remembered processes.

Programs of hooks in files (uprobes, USDT) are attached whenever such files are found in containers' file systems. Maps
belong to the hook that was loaded first, so hooks are closed together, the first one last.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import wait_for_programs
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.syscall_programs import ALL, SyscallDispatcher, SyscallObject
from kubectl_gadget.agent.containers.ring_fairness import ContainerNumbers
from kubectl_gadget.agent.host.foreign_files import FileSystems
from kubectl_gadget.agent.kernel import refusal
from kubectl_gadget.agent.policies.files import RealFiles, SameFiles, UprobeTargets
from kubectl_gadget.agent.policies.hook import PolicyHook, put_all, share
from kubectl_gadget.agent.sources.output import EventsOutput, ring_bytes
from kubectl_gadget.agent.sources.source import NodeContext
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import StartedPrograms
from kubectl_gadget.wire.policy_messages import PolicySpec

# Forgets followed files at their last close, by any process (bpf/include/gadget/files/followed_file.h).
#
# The trap: a policy may have its own hook where files are closed, which has to run first. The kernel runs trampolines
# in reverse order of attaching, but tracepoints in that order, as the agent's system call dispatcher does.

_FIRST = (("released",),)
_LAST = (
    ("close_begins", "close_range_begins", "dup3_begins", "thread_ends", "dup2_begins"),
    # arm64 has no dup2; close_range exists since Linux 5.9.
    ("close_begins", "close_range_begins", "dup3_begins", "thread_ends"),
)


class FollowedFiles:
    """`prepare` sets up an object that was opened. Raises AgentError when the kernel accepts none of the programs."""

    def __init__(self, elf: bytes, prepare: Callable[[BpfObject], None]) -> None:
        self._elf = elf
        self._prepare = prepare
        self._object: BpfObject | None = None
        self._why = ""

    def before(self) -> BpfObject | None:
        """Call it before the first hook is loaded. Returns an object whose maps the hooks must share, or None."""
        self._try(_FIRST, None)
        return self._object

    def after(self, calls: SyscallDispatcher | None) -> None:
        """Call it after the last hook was attached. `calls` is the hooks' dispatcher; None: makes one, which runs
        after it."""
        if self._object is None:
            self._try(_LAST, calls)
        if self._object is None:
            raise AgentError(f"the last close of files cannot be seen on this node: {self._why}")
        self._elf = b""

    def stopped(self) -> dict[str, str]:
        """Like BpfObject.stopped()."""
        return self._object.stopped() if self._object else {}

    def detach(self) -> None:
        if self._object:
            self._object.detach()

    def close(self) -> None:
        if self._object:
            self._object.close()
            self._object = None

    def _try(self, sets: tuple[tuple[str, ...], ...], calls: SyscallDispatcher | None) -> None:
        for programs in sets:
            try:
                with ExitStack() as undo:
                    object = SyscallObject(self._elf, "policy", programs, calls, ALL)
                    undo.callback(object.close)
                    self._prepare(object)
                    object.load()
                    for program in programs:
                        object.attach(program)
                    undo.pop_all()
            except Failure as failure:
                self._why = str(failure)
            else:
                self._object = object
                return


# What policies record about processes at exec, kept by BPF programs and inherited by forked children.
#
# Iterators find the processes that already run, after the programs for new ones are attached, so that none is missed.

_REMEMBERING = ("on_exec", "on_fork")
_AT_START = ("on_running", "on_descendant")
"""Iterators, in this order."""


class RememberedProcesses:
    """Belongs to one session, or was taken over from another process. Without load() or adopt() it does nothing."""

    def __init__(self) -> None:
        self._object: BpfObject | None = None
        self._adopted: list[int] = []

    @property
    def links(self) -> list[int]:
        """File descriptors of the links that keep its programs attached."""
        if self._object is None:
            return self._adopted
        return [fd for program in _REMEMBERING for fd in self._object.link_fds(program)]

    def load(self, followed: bytes, elf: bytes, prepare: Callable[[BpfObject], None], first: BpfObject) -> None:
        """Attaches the programs, and finds existing processes. `followed` is from RUN's `processes`, `first` the object
        that owns the maps. Raises AgentError."""
        self._object = object = BpfObject(elf, "policy", [*_REMEMBERING, *_AT_START])
        try:
            prepare(object)
            share(object, first)
            table = object.required_map("policy_prefixes")
            table.resize(max(1, len(followed) // (table.key_size + table.value_size)))
            object.set_constant("policy_follows", bool(followed))
            object.load()
            put_all(table, followed)
            table.freeze()
            for program in (*_REMEMBERING, *_AT_START):
                object.attach(program)
            for program in _AT_START:
                object.iterate(program)
        except Failure as failure:
            raise AgentError(
                f"the state of processes at their exec cannot be kept: {refusal.reason(failure)[0]}"
            ) from None

    def adopt(self, links: Iterable[int]) -> None:
        """Continues with programs that another process attached."""
        self._adopted = list(links)

    def detach(self) -> None:
        """Stops its programs, unless their links are pinned."""
        if self._object is not None:
            self._object.detach()
        while self._adopted:
            os.close(self._adopted.pop())

    def close(self) -> None:
        if self._object is not None:
            self._object.close()
            self._object = None


# The set.

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


# Loads and attaches them. A hook is attached immediately, since only that shows whether the kernel allows it. It
# applies no policy until profiles are set (scopes.py), so no policy is partly in force.

_SOCKETS = 16384
"""Sockets whose owner is remembered."""


def load_hooks(spec: PolicySpec, elf: bytes, context: NodeContext, found: HookSet, tolerant: bool = False) -> None:
    """Loads the hooks of `spec`, RUN's gadget, into `found`. `tolerant`: a hook that this node does not have disables
    only its own policies. Raises AgentError; `found.failed` then says which hooks failed, and why."""
    try:
        _load_all(spec, elf, context, found, tolerant)
    except BaseException:
        found.close()
        raise


def _load_all(spec: PolicySpec, elf: bytes, context: NodeContext, found: HookSet, tolerant: bool) -> None:
    hooks, prepare, first = found.hooks, partial(_prepare, spec, context), None
    if spec.follows:
        found.followed = FollowedFiles(elf, partial(_prepare_followed, spec, context, found))
        first = found.followed.before()
    for place, of_hook in enumerate(spec.hooks):
        if of_hook.mirrors and any(hook.way.call and hook.mirrors == of_hook.mirrors for hook in hooks):
            continue  # the dispatcher's program sees each variant of the call
        hook = PolicyHook(of_hook, prepare, found.real_files, context.calls, context.warnings.add)
        try:
            twin = next((one for one in hooks if of_hook.mirrors and one.has_tables_of(of_hook)), None)
            if hook.load(elf, hooks[0].object if hooks else first, twin):
                hooks.append(hook)
            elif hook.is_needed:
                context.warnings.add(f"{hook.name} is left out: {hook.skipped[-1].why}")
        except AgentError as error:
            if not tolerant:
                raise
            found.failed[place] = error
            found.without.update(policy for policy in hook.policies if policy >= 0)
    if not hooks:
        raise AgentError("none of the policies' hooks exists on this node")
    if found.followed:
        # Programs at tracepoints of single calls run after the hooks' dispatcher, so another one has to follow.
        is_after = not any(hook.way.target.startswith("syscalls/sys_enter_") for hook in hooks)
        found.followed.after(context.calls if is_after else None)
    if spec.processes is not None:
        found.processes.load(spec.processes.followed, elf, prepare, hooks[0].object)


def _prepare_followed(spec: PolicySpec, context: NodeContext, found: HookSet, object: BpfObject) -> None:
    _prepare(spec, context, object)
    if found.hooks:
        share(object, found.hooks[0].object)


def _prepare(spec: PolicySpec, context: NodeContext, object: BpfObject) -> None:
    size = ring_bytes(spec.ring_bytes)
    # A killer is woken by each event, other readers when there is enough to send.
    node = {"gadget_ring_wake_bytes": size // 4, "gadget_wake_each": bool(spec.kill)}
    for name, value in {**context.variables, **context.own_processes, **node}.items():
        object.set_constant(name, value)
    object.required_map("gadget_events").resize(size)
    object.required_map("gadget_cpus").resize(libbpf.load().call("libbpf_num_possible_cpus"))
    object.reuse(context.maps.of_containers)
    if not spec.stacks:
        object.required_map("gadget_stacks").resize(1)
    if not spec.follows:
        object.required_map("gadget_followed").resize(1)
    if spec.tracks:
        object.required_map("policy_sockets").resize(_SOCKETS)
