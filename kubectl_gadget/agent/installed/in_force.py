"""One set of installed policies in force on this node: loaded here, or taken over from an agent that has ended.

Its programs and maps are pinned (pins.py), so they outlive this process. While one set replaces another, both are in
force, and only one of them reports a call that both see: the old one before the time `until`, the new one from then on.
"""

import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from kubectl_gadget.agent.bpf import maps
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import REMOVED, needs_ftrace, program_of, why_no_ftrace, why_stopped
from kubectl_gadget.agent.bpf.maps import BpfMap, OpenMap
from kubectl_gadget.agent.bpf.ring import records, whole_records
from kubectl_gadget.agent.bpf.syscall_programs import TABLES, SyscallDispatcher, tables_match
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.installed.pins import Pins, owner_of
from kubectl_gadget.agent.policies.files import RealFiles
from kubectl_gadget.agent.policies.hook import SHARED, PolicyHook
from kubectl_gadget.agent.policies.hook_set import FileSearch, HookSet, load_hooks
from kubectl_gadget.agent.policies.log import LoggedEvent, events
from kubectl_gadget.agent.policies.scopes import Profiles
from kubectl_gadget.agent.sources.output import EventsOutput
from kubectl_gadget.agent.sources.source import NodeContext, Warnings
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import PolicyHookState, PolicyState
from kubectl_gadget.wire.message import Hex, Message, parse
from kubectl_gadget.wire.policy_messages import InstalledFile, InstalledPolicy, PolicyHookSpec, PolicySpec, Way
from kubectl_gadget.wire.policy_record import FORMAT
from kubectl_gadget.wire.record_reader import HookReader

# The description that is pinned beside the programs and maps of installed policies, for the next agent.
#
# The trap: an agent of another version may have written it, so an incompatible change needs a new FORMAT.


class AttachedHook(Message):
    """A hook whose program is attached."""

    number: int
    """its place in `spec`"""
    way: Way
    """the way that was used, without variables"""
    entry: tuple[int, int, int] | None = None
    """of a hook without a link: the program array that it is called from, counted from the last of the dispatcher's
    pins; the key there; and the program's id"""


class PinnedCalls(Message):
    """The content of the system call dispatcher's tables (bpf/syscall_programs.py)."""

    followers: Mapping[str, tuple[int, ...]]
    interests: Hex


class PinnedPolicies(Message):
    """A set of installed policies."""

    format: int
    """of records"""
    digest: str
    """of the set"""
    policies: tuple[InstalledPolicy, ...]
    """in the order in which hooks number them"""
    spec: PolicySpec
    """without the members that only loading needs"""
    node: Mapping[str, int]
    """the node's variables that the hooks were loaded with"""
    attached: tuple[AttachedHook, ...]
    """in the order of the pinned links and maps"""
    without: tuple[int, ...]
    """policies that are not in force"""
    failed: Mapping[str, tuple[str, str | None]]
    """hooks that this node does not have, by their place in `spec`, with reason and remedy"""
    calls: PinnedCalls | None = None
    """null if the set uses no dispatcher"""


# Hooks, profiles and ring of one set of installed policies: loaded here, or taken over from an agent that has ended.
#
# A hook that was taken over has no object, only the pinned maps and its link or entry in a program array.


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


def _load(spec: PolicySpec, elf: bytes, containers: Containers, hooks: HookSet) -> LoadedPolicies:
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


def _take_over(spec: PolicySpec, hooks: HookSet, links: Iterable[int], containers: Containers) -> LoadedPolicies:
    """Continues with `hooks`, which were pinned. `links`: all other pins, of programs that remember processes and of
    the dispatcher, which are held."""
    context = NodeContext(containers, wants_cgroup=lambda path: True)
    hooks.processes.adopt(links)
    output = hooks.open_output(containers.numbers)
    profiles = Profiles(spec, hooks.hooks, hooks.without, context.warnings.add)
    profiles.adopt()
    files = FileSearch(hooks.hooks, context.wants_cgroup)
    return LoadedPolicies(hooks, output, profiles, files, context.warnings, context.calls)


# The set.

_OWN = ("policy_profiles", "policy_counts")
"""Maps of each hook that are needed after loading."""
_CALLS = "calls_"
"""Prefix of the pins of the system call dispatcher's links and program arrays."""
_TABLE = "table_"
"""Prefix of the pins of its tables."""
_MOST_BYTES = 1 << 17
"""Bytes read at a time: a flood of events must not delay a change of policies."""
Key = tuple[str, str]
"""Namespace and name of a policy."""


class PoliciesInForce:
    """A set of policies. `loaded` is None, and `error` says why, when nothing of it is in force."""

    def __init__(self, chosen: InstalledFile, loaded: LoadedPolicies | None, error: str = "") -> None:
        self.digest = chosen.digest
        self.owner = chosen.owner
        self.confirmed = True
        """False for a set that was taken over, until the file turns out to have the same set"""
        self.policies = chosen.policies
        self.error = error
        self.pinned = ""
        """the name of its folder of pins"""
        self.not_pinned = ""
        """why it is not pinned"""
        self.until: int | None = None
        self.since = 0
        self.counts = [0] * len(chosen.policies)
        """number of events returned by take(), by policy"""
        self.has_more = False
        """True if take() has left events before the settled position"""
        self._loaded = loaded
        self._spec = chosen.spec
        self._before: set[Key] = set()
        self._after: set[Key] = set()
        names = {hook.name for hook in loaded.hooks.hooks} if loaded else set()
        self._readers = [HookReader(dict(hook.metadata)) if hook.name in names else None for hook in chosen.spec.hooks]

    def keys(self) -> set[Key]:
        """Returns the keys of the policies that are in force."""
        without = self._loaded.hooks.without if self._loaded else range(len(self.policies))
        return {key(policy) for number, policy in enumerate(self.policies) if number not in without}

    def succeed(self, before: "list[PoliciesInForce]") -> None:
        """Takes over the events of policies that the sets before it have reported."""
        self.since = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for one in before:
            self._before |= one.keys()
            one.until, one._after = self.since, self.keys()

    def settle(self) -> bool:
        """Like Ring.settle(); does nothing while take() has more events to return."""
        return self.has_more or self._loaded is None or self._loaded.output.ring.settle()

    def take(self) -> Iterator[LoggedEvent]:
        """Yields the next events up to the settled position, from at most 128 KiB of the ring."""
        if self._loaded is None:
            return
        ring = self._loaded.output.ring
        batch = ring.batch()
        data = bytes(batch[: whole_records(batch, _MOST_BYTES)])
        self.has_more = len(data) < len(batch)
        batch.release()
        ring.advance(len(data))
        readers = {number: one for number, one in enumerate(self._readers) if one is not None}
        for record in records(data):
            for logged in events(record, readers):
                if self._reports(logged):
                    self.counts[logged.policy] += 1
                    yield logged

    def _reports(self, logged: LoggedEvent) -> bool:
        this, time = key(self.policies[logged.policy]), logged.head.timestamp
        if time < self.since and this in self._before:
            return False
        return self.until is None or time < self.until or this not in self._after

    @property
    def complete_until(self) -> int:
        """Boot time in ns: after settle() and take(), all events before it have been returned."""
        if self._loaded is None:
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return self._loaded.output.ring.complete_until

    def lost(self) -> int:
        """Number of events that did not fit into the ring, since it was created."""
        return 0 if self._loaded is None else self._loaded.output.counters.total(maps.LOST_RING_FULL)

    def stopped(self) -> dict[str, str]:
        """Returns, by hook, why it no longer runs: another process has stopped its program."""
        return {} if self._loaded is None else self._loaded.hooks.stopped()

    def warnings(self) -> list[str]:
        """Attaches probes to new files that need them. Returns new warnings."""
        if self._loaded is None:
            return []
        self._loaded.files.turn(time.monotonic())
        return self._loaded.warnings.take_all()

    def state(self) -> tuple[PolicyState, ...]:
        """Returns the state of each policy, for messages and `policy installed`."""
        return tuple(self._state_of(number, policy) for number, policy in enumerate(self.policies))

    def _state_of(self, number: int, policy: InstalledPolicy) -> PolicyState:
        found = PolicyState(name=policy.name, namespace=policy.namespace, enforces=policy.enforces)
        if self._loaded is None:
            return found.replace(state="load_error", error=self.error, hooks=(), events=0)
        loaded = self._loaded.hooks
        failed = [
            _with_remedy(loaded.failed[place])
            for place, hook in enumerate(self._spec.hooks)
            if place in loaded.failed and number in hook.policies
        ]
        hooks = tuple(
            PolicyHookState(hook=hook.name, by=hook.hook, method=hook.way.method)
            for hook in loaded.hooks
            if number in hook.policies
        )
        state = "load_error" if number in loaded.without else "enabled"
        return found.replace(state=state, error="\n".join(failed), hooks=hooks, events=self.counts[number])

    def pin(self, pins: Pins, node: dict[str, int]) -> None:
        """Keeps the set in force after this process ends. On failure, `not_pinned` says why. `node`: the node's
        variables that the set was loaded with."""
        if self._loaded is None:
            return
        loaded = self._loaded.hooks
        pieces = {name: loaded.hooks[0].map(name).fd for name in SHARED}
        pieces |= {f"remember_{number}": fd for number, fd in enumerate(loaded.processes.links)}
        pieces |= {f"{_CALLS}{number}": fd for number, fd in enumerate(self._loaded.calls.fds_to_pin())}
        pieces |= {f"{_TABLE}{name}": fd for name, fd in self._loaded.calls.tables().items()}
        hooks = []
        for number, hook in enumerate(loaded.hooks):
            pieces |= {f"{number}_link": fd for fd in hook.link_fds()}
            pieces |= {f"{number}_{name}": hook.map(name).fd for name in _OWN}
            place = next(place for place, spec in enumerate(self._spec.hooks) if spec is hook.spec)
            way = hook.way.replace(variables={})
            hooks.append(AttachedHook(number=place, way=way, entry=hook.entry()))
        state = PinnedPolicies(
            format=FORMAT,
            digest=self.digest,
            policies=self.policies,
            spec=self._spec.replace(hooks=tuple(hook.replace(ways=(), tables={}) for hook in self._spec.hooks)),
            node=node,
            attached=tuple(hooks),
            without=tuple(sorted(loaded.without)),
            failed={str(place): (str(error), error.remedy) for place, error in loaded.failed.items()},
            calls=_pinned_calls(self._loaded.calls),
        )
        try:
            self.pinned = pins.pin(pieces, state.to_bytes(), self.owner)
        except AgentError as error:
            self.not_pinned = str(error)

    def follow(self, containers: Containers) -> None:
        """Applies the set to all present and future containers."""
        if self._loaded is not None:
            containers.follow(self._loaded.profiles)

    def end(self, containers: Containers, pins: Pins | None) -> None:
        """Takes the set out of force."""
        if pins is not None and self.pinned:
            pins.remove(self.pinned)
        if self._loaded is not None:
            containers.unfollow(self._loaded.profiles)
            self._loaded.hooks.detach()

    @property
    def closed(self) -> bool:
        return self._loaded is None

    def take_remaining(self) -> Iterator[LoggedEvent]:
        """Like take(), after end(). Closes the set when there are no more events."""
        is_last = not self.has_more and self.settle()
        yield from self.take()
        if self._loaded is not None and is_last and not self.has_more:
            self._loaded.close()
            self._loaded = None


def load(chosen: InstalledFile, elf: bytes, containers: Containers) -> PoliciesInForce:
    """Loads and attaches a set, without the hooks that this node lacks. It is in force when it follows containers."""
    hooks = HookSet()
    try:
        loaded = _load(chosen.spec, elf, containers, hooks)
    except AgentError as error:
        return PoliciesInForce(chosen, None, "\n".join(map(_with_remedy, hooks.failed.values() or [error])))
    except FrameError as error:
        return PoliciesInForce(chosen, None, str(error))
    try:
        return PoliciesInForce(chosen, loaded)
    except (KeyError, TypeError, ValueError) as error:
        hooks.detach()
        loaded.close()
        what = f"this agent cannot read the records of the policies: {error!r}"
        return PoliciesInForce(chosen, None, f"{what}\ntry: kubectl gadget deploy, with the client that installed them")


def _with_remedy(error: AgentError) -> str:
    return f"{error}\ntry: {error.remedy}" if error.remedy else str(error)


def take_over(pins: Pins, name: str, containers: Containers) -> tuple[PoliciesInForce, Mapping[str, int]]:
    """Takes over a pinned set. Returns it, and the node's variables that it was loaded with. Raises AgentError and
    FrameError; the set then stays in force until its pins are removed."""
    pieces, data = pins.open(name)
    try:
        return _taken_over(name, dict(pieces), data, containers)
    except BaseException as error:
        for fd in pieces.values():
            os.close(fd)
        if isinstance(error, (LookupError, TypeError, ValueError, Failure)):
            raise AgentError(f"parts of it are missing, or of another version: {error!r}") from None
        raise


def _taken_over(
    name: str, pieces: dict[str, int], data: bytes, containers: Containers
) -> tuple[PoliciesInForce, Mapping[str, int]]:
    value = parse(data)
    if value.get("format") != FORMAT:
        raise AgentError(f"its records have the format {value.get('format')!r}, but this agent reads {FORMAT}")
    state = PinnedPolicies.from_json(value, name)
    shared = {name: pieces.pop(name) for name in SHARED}
    hooks: list[PolicyHook] = []
    numbers = sorted(int(name.removeprefix(_CALLS)) for name in pieces if name.startswith(_CALLS))
    calls = [pieces[f"{_CALLS}{number}"] for number in numbers]
    tables = {name: OpenMap(pieces[f"{_TABLE}{name}"]) for name in TABLES if state.calls}
    for number, attached in enumerate(state.attached):
        maps = {name: OpenMap(pieces.pop(f"{number}_{name}")) for name in _OWN}
        if not number:
            maps |= {name: OpenMap(fd) for name, fd in shared.items()}
        hook = TakenOverHook(state.spec.hooks[attached.number], attached.way, maps, pieces.pop(f"{number}_link", None))
        if attached.entry is not None:
            if state.calls is None:
                raise AgentError("its description lacks the tables of the system call dispatcher")
            array, place, program = attached.entry
            hook.set_entry(OpenMap(calls[-array]), place, program, tables, state.calls)
        hooks.append(hook)
    chosen = InstalledFile(
        format=FORMAT, digest=state.digest, policies=state.policies, spec=state.spec, owner=owner_of(name)
    )
    failed = {int(place): AgentError(text, remedy) for place, (text, remedy) in state.failed.items()}
    adopted = HookSet(hooks, set(state.without), failed)
    found = PoliciesInForce(chosen, _take_over(chosen.spec, adopted, pieces.values(), containers))
    found.pinned, found.confirmed = name, False
    return found, state.node


def _pinned_calls(calls: SyscallDispatcher) -> PinnedCalls | None:
    if not calls.tables():
        return None
    masks, interests = calls.content()
    return PinnedCalls(followers={str(row): tuple(mask) for row, mask in masks.items()}, interests=interests)


def key(policy: InstalledPolicy) -> Key:
    """Returns the key of an entry in the set's policies."""
    return policy.namespace or "", policy.name
