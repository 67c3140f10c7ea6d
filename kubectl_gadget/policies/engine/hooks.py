"""From policies to what the agents load: one entry for each hook, with the selectors of all policies there.

A hook's selectors are bits in the order of policies; behind each policy's own there is one that stays free, by which
the kernel finds the first of each policy without looking at them one by one (bpf/include/policy/decide.h). What cannot
be done is refused here, by the place where it was written. The trap: with `returns` a hook is two, one where calls can
still be held up and one at their return.
"""

import base64
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.engine import following, tracking
from kubectl_gadget.policies.engine.filters import Asked, Followed, ask
from kubectl_gadget.policies.engine.mirrors import with_mirrors
from kubectl_gadget.policies.engine.registers import new_functions, register_tables
from kubectl_gadget.policies.engine.remedies import of_a_list, remedies
from kubectl_gadget.policies.engine.scopes import by_labels, by_node, scope_spec
from kubectl_gadget.policies.engine.slots import (
    MOST_SLOTS,
    REMEMBERED,
    START,
    Flag,
    Slot,
    Source,
    argument_slot,
    task_slot,
)
from kubectl_gadget.policies.engine.tables import Encoded, Look, Tables, TestClass, prefix_key
from kubectl_gadget.policies.engine.ways import COMPAT_PREFIXES, OF_SYSCALLS, Way, field_offset, record_offset, ways
from kubectl_gadget.policies.model import (
    Action,
    Argument,
    Filter,
    Generated,
    Hook,
    NewFunction,
    Policy,
    Scope,
    Selector,
)
from kubectl_gadget.policies.read.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.read.enforcers import without_notices
from kubectl_gadget.policy_events.record import OVERRIDDEN, REPLACED, Form, Type

EPERM = 1
_IN_PROGRAMS = ("uprobe", "usdt")
_WHILE_IT_RUNS = "kubectl gadget observe -f or enforce -f, which have it for as long as they run"
_PROGRAMS_TYPES = ("string", "char_buf", "sockaddr", "sockaddr_un", "nop", "auto")
"""Types that are no numbers and yet something in a program's own memory."""
_SIGKILL = 9
_LIMITED_ENTRIES = 32768
_ACTION = struct.Struct("<iIQIIIIQ")
_RESOLVED_FROM = {
    Source.ARGUMENT: "parameter",
    Source.RETURN: "return",
    Source.TASK: "task",
    Source.REGISTERS: "registers",
    Source.CALL_REGISTERS: "registers",
}
_METHODS = {"fmod-ret": "on_fmod_ret", "override-return": "on_kprobe_override"}
"""The program of each override-method."""
_LAST_HASHED = 2
_SCOPES = {"global": 0, "process": 1, "thread": 2}
_MASKS = (
    *("guard", "start", "post", "override", "signal", "limit", "none"),
    *("follow", "unfollow", "kernel_stack", "user_stack", "hash", "track", "untrack", "set"),
)
"""enum policy_mask."""
_DEEDS = ("Sigkill", "Signal", "Override")
_REQUESTS = ("GetUrl", "DnsLookup")
_KINDS = ("Post", "NoPost", "Sigkill", "Signal", "Override", "Set", *_REQUESTS, *following.KINDS, *tracking.KINDS)


@dataclass(frozen=True)
class Options:
    """`enforce`: actions are carried out, else they only post. `allow_weaker`: a node that cannot hold a call up may do
    with a signal, or with nothing."""

    enforce: bool = False
    allow_weaker: bool = False
    reaction: Literal["", "kill", "tell"] = ""
    """instead, what user space does about actions: agents kill, or the client does something by itself"""
    tells_process: bool = False
    """each record says which program it was, for readers who do not follow processes"""
    follows: bool = False
    """some policy follows files, which the engine finds out"""
    calls_out: bool = True
    """agents make the requests of GetUrl and DnsLookup"""


@dataclass(frozen=True)
class Place:
    """One bit: a selector of a hook of a policy. `number` is None for a hook without selectors."""

    policy: Policy
    hook: Hook
    number: int | None
    selector: Selector
    scope: int
    enforced: bool
    """actions are carried out, not only told"""
    workloads: tuple[int, ...] = ()
    """scopes that have to hold as well"""
    followed_only: tuple[int, ...] = ()
    """arguments that have to be files that are followed"""
    reacts: bool = False
    """user space does something about them"""
    error: int = 0
    """at a return: what the call was made to return where nothing but a denial is in force; 0: nothing"""
    signal: int = 0
    """at a return: what was sent when it was called; 0: none"""


@dataclass
class Member:
    """A policy's entry for this hook."""

    policy: Policy
    hook: Hook
    scope: int
    at_call: bool
    """of a hook with `returns`: the part at the call, which posts nothing"""
    scopes: Sequence[Scope]
    """of all policies, by number"""


class CompiledHook:
    """One hook for all policies. Raises UsageError when it asks for what the engine cannot do."""

    def __init__(self, number: int, name: str, members: Sequence[Member], options: Options, followed: Followed) -> None:
        self.number = number
        self.name = name
        self._options = options
        self._members = members
        self._followed = followed
        self._at_return = members[0].hook.returns and not members[0].at_call
        self._follows = options.follows
        self._tracks = tracking.tracks(members[0].policy)
        self.bits: list[Place | None] = []
        self._starts = 0
        for member in members:
            self._starts |= 1 << len(self.bits)
            self.bits += [*_places(member, options), None]
        self.ways = self._ways()
        self.slots: list[Slot] = []
        self.arguments: dict[int, list[int | None]] = {}
        """for each member's hook, by id(): the slot of each of its arguments"""
        self.data: dict[int, list[int | None]] = {}
        self.results: dict[int, int | None] = {}
        self.called: int | None = None
        """the slot that says which of many functions it was"""
        try:
            self._compile()
        except ValueError as error:
            raise UsageError(f"{members[0].hook.place}: {name}: {error}") from None

    @property
    def mirrors(self) -> bool:
        """Whether no policy names it: it is there beside a hook at a system call, for calls of 32-bit programs."""
        return bool(self._members[0].hook.mirrors)

    @property
    def enforces(self) -> bool:
        return any(place is not None and place.enforced and (_deeds(place) or _written(place)) for place in self.bits)

    @property
    def _overriding(self) -> dict[int, Action]:
        """The overrides of a program's function, by their selector's bit."""
        return {
            bit: action
            for bit, place in enumerate(self.bits)
            if place is not None and place.hook.probe and place.enforced
            for action in place.selector.actions
            if action.kind == "Override"
        }

    @property
    def takes_stacks(self) -> bool:
        return any(self._mask_sets[name] for name in ("kernel_stack", "user_stack"))

    @property
    def reacting(self) -> int:
        """The selectors whose events user space does something about."""
        return sum(1 << bit for bit, place in enumerate(self.bits) if place and place.reacts and _deeds(place))

    @property
    def requests(self) -> dict[str, list[tuple[str, str]]]:
        """By the selector's bit, what agents are to ask for outside when it has matched."""
        found = {
            str(bit): [_request(action) for action in _all_actions(place) if action.kind in _REQUESTS]
            for bit, place in enumerate(self.bits)
            if place is not None and self._posts(place) and place.policy.options.mode != "monitor"
        }
        return {bit: requests for bit, requests in found.items() if requests}

    @property
    def denies(self) -> bool:
        """Whether some selector wants calls held up, and not only a signal sent. At a return nothing can be."""
        return not self._at_return and any(
            place is not None and place.enforced and _error(place) for place in self.bits
        )

    def _ways(self) -> list[Way]:
        found = self._by_method(ways(self._members[0].hook, self._at_return, self.denies))
        if any(action.file_hash for place in self.bits if place is not None for action in _all_actions(place)):
            # What takes the hash may have to wait for the disk, which only this one may.
            found = [replace(way, program="on_lsm_sleepable") for way in found if way.kind == "lsm"]
        able = [way for way in found if way.denies]
        if not self.denies or self._options.allow_weaker:
            return found
        if able:
            return able
        for place in self.bits:
            if place is not None and any(action.kind == "Override" for action in _all_actions(place)):
                raise UsageError(
                    f"{place.selector.place}: {self.name} cannot be overridden",
                    "a hook of a security module (lsmhooks)",
                )
        return found

    def _remedies(self) -> list[dict[str, Any]]:
        """For nodes without a way."""
        hook = self._members[0].hook
        if hook.generated and not hook.syscall:
            return [of_a_list()]
        if not self.denies or self._options.allow_weaker:
            return []
        weaker = [way for way in ways(hook, self._at_return, True) if not way.denies]
        return remedies(hook, weaker, bool(self._mask_sets["signal"]))

    def _by_method(self, found: list[Way]) -> list[Way]:
        """Those that the policies' override-method leaves."""
        hook = self._members[0].hook
        methods = {member.policy.options.override_method for member in self._members} - {None}
        if not self.denies or not methods or hook.kind == "lsm":
            return found
        if len(methods) > 1:
            what = (
                f"{self.name}: policies want {' and '.join(sorted(map(str, methods)))} as override-method of one hook"
            )
            raise UsageError(f"{hook.place}: {what}")
        program = _METHODS[str(methods.pop())]
        return [way for way in found if way.program == program or not way.denies]

    def _compile(self) -> None:
        asked: list[tuple[int, Asked]] = []
        read: dict[int, tuple[list[Slot | None], list[Slot | None], Slot | None]] = {}
        for member in self._members:
            hook = member.hook
            # What a system call is given lies in the caller's memory.
            user = hook.syscall or hook.kind in _IN_PROGRAMS or _is_of_system_call(hook)
            if hook.kind in _IN_PROGRAMS:
                _check_program(hook)
            arguments = [
                argument_slot(argument, self._source, user, hook.place, self._at_return)
                for argument in following.with_files(hook)
            ]
            result = None
            if self._at_return and hook.return_argument is not None:
                returned = replace(hook.return_argument, index=0)
                result = argument_slot(returned, Source.RETURN, user, hook.place)
            data = [argument_slot(one, self._source, user, hook.place, self._at_return) for one in hook.data]
            if hook.syscall or _is_of_system_call(hook):
                # The caller's registers, and not those that the kernel's own function was called with.
                data = [
                    replace(slot, source=Source.CALL_REGISTERS) if slot and slot.source is Source.REGISTERS else slot
                    for slot in data
                ]
            made = tracking.made_by(hook, self._at_return)
            arguments = [
                replace(slot, flags=slot.flags | Flag.NEW_SOCKET) if slot and place in made else slot
                for place, slot in enumerate(arguments)
            ]
            if result is not None and tracking.RETURNED in made:
                result = replace(result, flags=result.flags | Flag.NEW_SOCKET)
            read[id(hook)] = (arguments, data, result)
        for bit, place in enumerate(self.bits):
            if place is not None:
                arguments, data, result = read[id(place.hook)]
                asked += [
                    (bit, ask(filter, arguments, result, self._followed, data)) for filter in self._filters(place)
                ]
                asked += [(bit, _is_followed(arguments[one])) for one in place.followed_only]
        sent = {slot for values in read.values() for slot in (*values[0], *values[1], values[2]) if slot is not None}
        if self._generated:
            sent.add(task_slot(Type.FUNCTION))
        if self._options.tells_process:
            sent |= {task_slot(type) for type in (Type.BINARY, Type.PARENT_BINARY)}
        self.slots = sorted(sent | {item.slot for _, item in asked})
        if len(self.slots) > MOST_SLOTS:
            raise ValueError(f"{len(self.slots)} different values to read, of {MOST_SLOTS} that are possible")
        tables = Tables()
        self._spans: list[tuple[int, int]] = []
        for slot in self.slots:
            first = len(tables.tests)
            for bit, item in asked:
                if item.slot == slot:
                    tables.add(first, bit, item.look, item.placed(self.slots), item.negated)
            self._spans.append((first, len(tables.tests) - first))
        self._tests = tables.tests
        self._unsent = [slot not in sent for slot in self.slots]
        self.encoded: Encoded = tables.encode(len(self.bits))
        for hook_id, (arguments, data, result) in read.items():
            self.arguments[hook_id] = [None if slot is None else self.slots.index(slot) for slot in arguments]
            self.data[hook_id] = [None if slot is None else self.slots.index(slot) for slot in data]
            self.results[hook_id] = None if result is None else self.slots.index(result)
        if self._generated:
            self.called = self.slots.index(task_slot(Type.FUNCTION))
        self._resolved = self._resolve()

    @cached_property
    def forms(self) -> list[Form]:
        """How its slots' values lie in records."""
        return [slot.form for slot in self.slots]

    @property
    def _generated(self) -> Generated | None:
        """The list that each node makes of its own functions, where the hook stands at one."""
        return self._members[0].hook.generated

    @property
    def _by_format(self) -> bool:
        """Whether a node's tracefs lists what its arguments are."""
        return self._members[0].hook.kind == "tracepoint"

    @property
    def _source(self) -> Source:
        return Source.ARGUMENT

    def _filters(self, place: Place) -> Iterable[Filter]:
        yield from (filter for filter in place.selector.filters if filter.subject.kind != "workload")
        if self._at_return:
            yield from place.selector.return_filters

    @cached_property
    def _mask_sets(self) -> dict[str, int]:
        sets = dict.fromkeys(_MASKS, 0)
        sets["guard"] = -1
        sets["start"] = self._starts
        for bit, place in enumerate(self.bits):
            if place is None:
                continue
            one = 1 << bit
            sets["guard"] &= ~one
            if self._posts(place):
                sets["post"] |= one
            if self.denies and place.enforced and _error(place):
                sets["override"] |= one
            if place.enforced and _signal(place, self._at_return):
                sets["signal"] |= one
            if _limit(place) is not None:
                sets["limit"] |= one
            for action in _all_actions(place):
                for name, wanted in _masks_of(action):
                    if wanted:
                        sets[name] |= one
            if place.enforced and _written(place):
                sets["set"] |= one
            if self._at_return and place.hook.return_argument_action in tracking.KINDS:
                sets[tracking.MASKS[place.hook.return_argument_action]] |= one
        return sets

    def _posts(self, place: Place) -> bool:
        if any(member.hook is place.hook and member.at_call for member in self._members):
            return False
        if not place.enforced and (_deeds(place) or _written(place)):
            return True  # what would have been done is told
        return all(action.kind != "NoPost" for action in _all_actions(place))

    def spec(self) -> dict[str, Any]:
        """As in RUN's `hooks` (docs/protocol.md, "Policies")."""
        encoded, sets = self.encoded, self._mask_sets
        tables = dict(encoded.tables)
        masks = (encoded.set(sets[name]) for name in _MASKS)
        tables["policy_masks"] = b"".join(struct.pack("<I", key) + mask for key, mask in enumerate(masks))
        tables |= register_tables(self._overriding)
        tables["policy_actions"] = b"".join(
            struct.pack("<I", bit) + self._action(place) for bit, place in enumerate(self.bits)
        )
        variables: dict[str, Any] = {
            "policy_hook": self.number,
            "policy_words": encoded.words,
            "policy_slot_count": len(self.slots),
            "policy_tests": {"hex": encoded.tests.hex()},
            "policy_signals": bool(sets["signal"]),
            "policy_limits": bool(sets["limit"]),
            "policy_follows_files": self._follows,
            "policy_stacks": bool(sets["kernel_stack"] | sets["user_stack"]),
            "policy_sets": bool(sets["set"]),
            "policy_tracks_sockets": self._tracks,
            **self._hash(),
        }
        return {
            "name": self.name,
            "words": encoded.words,
            "variables": variables,
            "ways": [self._way(way) for way in self.ways],
            "selectors": [-1 if place is None else place.scope for place in self.bits],
            **self._workloads(),
            **self._files(),
            **({"whole": True} if any(slot.flags & Flag.WHOLE for slot in self.slots) else {}),
            **({"mappings": True} if self._members[0].hook.kind == "loader" else {}),
            **({"functions": self._generated.pattern} if self._generated else {}),
            "tables": {name: base64.b64encode(entries).decode() for name, entries in tables.items()},
            "limited": _LIMITED_ENTRIES if sets["limit"] else 1,
            "remedies": self._remedies(),
            "optional": all(member.hook.ignore_missing for member in self._members),
            **self._resolved,
        }

    def _files(self) -> dict[str, Any]:
        """Files that are found by path, and compared by what they are."""
        files = [
            {"test": test, "path": os.fsdecode(path), "selectors": base64.b64encode(selectors).decode()}
            for test, path, selectors in self.encoded.files
        ]
        return {"files": files} if files else {}

    def _workloads(self) -> dict[str, Any]:
        """Selectors that are for some workloads only. While labels are not known, those that deny or kill hold, and
        those that would let pass do not."""
        numbers = {str(bit): list(place.workloads) for bit, place in enumerate(self.bits) if place and place.workloads}
        if not numbers:
            return {}
        strict = {place.policy.name for place in self.bits if place and place.enforced and _deeds(place)}
        places = [(bit, place) for bit, place in enumerate(self.bits) if place and place.workloads]
        held = [bit for bit, place in places if _deeds(place) or place.policy.name not in strict]
        return {"workloads": numbers, "unsure": held}

    def _action(self, place: Place | None) -> bytes:
        """`struct policy_action`."""
        if place is None:
            return bytes(_ACTION.size)
        limit = _limit(place)
        rate = limit.rate_limit if limit else None
        interval, scope = (rate.milliseconds * 1_000_000, _SCOPES[rate.scope]) if rate else (0, 0)
        file = 0
        for action in _all_actions(place):
            if action.kind in ("FollowFD", "UnfollowFD"):
                file = self.arguments[id(place.hook)][following.file_position(place.hook, action)] or 0
        written = _written(place)
        argument, value = (written.argument, written.value) if written else (0, 0)
        return _ACTION.pack(_error(place), _signal(place), interval, scope, file, self._socket(place), argument, value)

    def _socket(self, place: Place) -> int:
        """The slot of what is tracked or not any more; 0 also when there is nothing."""
        if self._at_return and place.hook.return_argument_action in tracking.KINDS:
            return self.results[id(place.hook)] or 0
        for action in _all_actions(place):
            if action.kind in tracking.KINDS:
                return self.arguments[id(place.hook)][tracking.socket_position(place.hook, action)] or 0
        return 0

    def _way(self, way: Way) -> dict[str, Any]:
        slots = b"".join(
            _placed(slot, way).encode(first, tests, unsent)
            for slot, (first, tests), unsent in zip(self.slots, self._spans, self._unsent, strict=True)
        )
        overrides = way.denies and bool(self._mask_sets["override"])
        variables = {"policy_slots": {"hex": slots.hex()}, "policy_overrides": overrides}
        spec = way.spec(variables, self._method(way))
        functions = new_functions(self._overriding) if overrides else []
        if functions:
            spec["place"]["instead"] = [_said(function) for function in functions]
        return spec

    def _method(self, way: Way) -> str:
        """What is in force that way, for people."""
        if self._options.reaction == "kill" and self.reacting:
            return "kills from user space, after the deed,"
        if not self.enforces:
            return "observes"
        if self._mask_sets["set"]:
            return "overwrites arguments"
        if not self.denies:
            return "sends signals"
        return "denies" if way.denies else "only sends signals" if self._mask_sets["signal"] else "only observes"

    def _hash(self) -> dict[str, Any]:
        """Which argument's file is hashed."""
        for place in self.bits:
            if place is not None and any(action.file_hash for action in _all_actions(place)):
                argument = _hashed(place.hook)
                assert argument is not None
                return {"policy_hash_index": argument.index, "policy_hash_program": argument.type == "linux_binprm"}
        return {}

    def _resolve(self) -> dict[str, Any]:
        """What each node's BTF has to say of the slots."""
        entries: list[dict[str, Any]] = []
        entry: dict[str, Any]
        place = self._members[0].hook.place
        if self._by_format and any(slot.type is Type.AUTO and not slot.resolve for slot in self.slots):
            # What the fields are is what the node's `format` lists, also of those whose places are known.
            self.ways = [replace(way, arguments="record") for way in self.ways]
        for number, slot in enumerate(self.slots):
            if slot.source is Source.REGISTERS:
                self.ways = [way for way in self.ways if way.kind in ("kprobe", "uprobe", "usdt")]
                if not self.ways:
                    raise UsageError(f"{place}: pt_regs are there at kprobes and uprobes only")
            if not slot.resolve and slot.type is not Type.AUTO:
                continue
            if self._by_format and slot.type is Type.AUTO and not slot.resolve and slot.source is Source.ARGUMENT:
                entry = {"slot": number, "index": slot.index, "source": _RESOLVED_FROM[slot.source], "path": []}
                entries.append(entry | {"auto": True, "compared": self._compared(slot)})
                continue
            of_hook = slot.source in (Source.ARGUMENT, Source.RETURN) and slot.resolve[:1] != START
            if of_hook and any(way.arguments != "function" or way.probe or self._generated for way in self.ways):
                what = "the type auto" if slot.type is Type.AUTO else "`resolve`"
                why = "goes by the kernel's BTF, which says nothing of system calls, lists, tracepoints, programs"
                raise UsageError(f"{place}: {what} {why}")
            path = list(slot.resolve)
            entry = {"slot": number, "index": slot.index, "source": _RESOLVED_FROM[slot.source]}
            if slot.resolve[:1] == START:
                entry["struct"], path = path[1], path[3:]
                module = slot.resolve[2]
                probe = self._members[0].hook.probe
                entry |= {"module": module} if module else {"btf": probe.btf_path} if probe else {}
            if slot.type is Type.AUTO:
                entry |= {"auto": True, "compared": self._compared(slot)}
            entries.append(entry | {"path": path})
        return {"resolve": entries} if entries else {}

    def _compared(self, slot: Slot) -> str | None:
        """What an argument of the type `auto` has to be for the filters on it."""
        first, count = self._spans[self.slots.index(slot)]
        kinds = {test.look.kind for test in self._tests[first : first + count]}
        if not kinds:
            return None
        return (
            "text" if kinds & {TestClass.PREFIX, TestClass.POSTFIX, TestClass.SUBSTRING, TestClass.GLOB} else "number"
        )


class Engine:
    """All hooks of all policies. `scopes` are those that selectors name by number, `policies` those of the hooks."""

    def __init__(self, policies: Sequence[Policy], options: Options) -> None:
        self.scopes: list[Scope] = []
        self.policies = [without_notices(policy) for policy in policies]
        options = replace(options, follows=any(map(following.follows, policies)))
        self._options = options
        groups: dict[tuple[Any, ...], list[Member]] = {}
        for policy in self.policies:
            for hook in with_mirrors(policy):
                for member in self._members(policy, hook, options):
                    groups.setdefault(_group(member), []).append(member)
        _check_returns(groups.values())
        self._followed = Followed()
        self.hooks = [
            CompiledHook(number, key[1], members, options, self._followed)
            for number, (key, members) in enumerate(groups.items())
        ]

    def spec(self) -> dict[str, Any]:
        """The entry of RUN's gadgets, but for what is the session's."""
        return {
            "name": "policy",
            "kind": "policy",
            "scopes": [scope_spec(scope) for scope in self.scopes],
            "follows": self._options.follows,
            "stacks": any(hook.takes_stacks for hook in self.hooks),
            "tracks": any(map(tracking.tracks, self.policies)),
            "hooks": [hook.spec() for hook in self.hooks],
            **self._processes(),
            **self._kill(),
            **self._requests(),
        }

    def _requests(self) -> dict[str, Any]:
        """What agents are to ask for outside."""
        found = {str(hook.number): hook.requests for hook in self.hooks if hook.requests}
        return {"requests": found} if found and self._options.calls_out else {}

    def _kill(self) -> dict[str, Any]:
        """The selectors whose events are to end a process."""
        if self._options.reaction != "kill":
            return {}
        return {"kill": {str(hook.number): f"{hook.reacting:x}" for hook in self.hooks if hook.reacting}}

    def _processes(self) -> dict[str, Any]:
        """What has to be remembered of processes, when some hook asks for it."""
        if not self.remembers:
            return {}
        programs = self._followed.numbers.items()
        table = b"".join(prefix_key(0, path + b"\0") + struct.pack("<Q", number + 1) for path, number in programs)
        return {"processes": {"followed": base64.b64encode(table).decode()}}

    def _members(self, policy: Policy, hook: Hook, options: Options) -> Iterable[Member]:
        scope = self._scope(policy, hook)
        if hook.returns and _enforced(policy, options) and any(map(_has_deeds, hook.selectors)):
            yield Member(policy, hook, scope, at_call=True, scopes=self.scopes)
        yield Member(policy, hook, scope, at_call=False, scopes=self.scopes)

    def _scope(self, policy: Policy, hook: Hook) -> int:
        for selector in hook.selectors:
            for each in workloads_of(selector):
                self._number(each)
        return self._number(policy.scope)

    def _number(self, scope: Scope) -> int:
        if scope not in self.scopes:
            self.scopes.append(scope)
        return self.scopes.index(scope)

    @property
    def remembers(self) -> bool:
        """Whether something has to be remembered of each process."""
        return any(slot.type in REMEMBERED for hook in self.hooks for slot in hook.slots)

    @property
    def by_files(self) -> bool:
        """Whether files have to be looked for."""
        return any(hook.encoded.files for hook in self.hooks)

    @property
    def by_labels(self) -> bool:
        """Whether whom policies are for is said by labels of pods or nodes, which only the client knows."""
        return any(by_labels(scope) or by_node(scope) for scope in self.scopes)


def _check_stays(place: Place) -> None:
    """Refuses what ends with the agent that began it."""
    for action in _all_actions(place):
        named = action.kind in (*following.KINDS, *tracking.KINDS, *_REQUESTS)
        if named or action.kernel_stack or action.user_stack or action.file_hash:
            what = str(action.kind) if named else "a stack or hash"
            raise UsageError(
                f"{action.place}: {what} cannot be installed, since an agent has to be there", _WHILE_IT_RUNS
            )
    if any(argument.max_data for argument in place.hook.arguments):
        what = "maxData cannot be installed: no log has lines of that length"
        raise UsageError(f"{place.hook.place}: {what}", _WHILE_IT_RUNS)
    if place.hook.kind == "loader":
        raise UsageError(
            f"{place.hook.place}: loader cannot be installed, since an agent has to be there", _WHILE_IT_RUNS
        )
    if place.hook.kind in _IN_PROGRAMS:
        what = f"a {place.hook.kind} cannot be installed, since an agent has to look for its file"
        raise UsageError(f"{place.hook.place}: {what}", _WHILE_IT_RUNS)


def _check_returns(groups: Iterable[Sequence[Member]]) -> None:
    """Refuses to override a program's function whose return another policy looks at."""
    watched = {member.hook.probe for members in groups for member in members if member.hook.returns}
    for member in (member for members in groups for member in members):
        for selector in member.hook.selectors if member.hook.probe in watched - {None} else ():
            if any(action.kind == "Override" for action in selector.actions):
                what = f"Override at {member.hook.target}, whose return a policy looks at, would corrupt its stack"
                raise UsageError(f"{selector.place}: {what}")


def _check_override(place: Place) -> None:
    """Refuses what cannot be done: with a program's function, and to a call of the kernel's, whose 0 means to go on."""
    for action in place.selector.actions:
        if action.kind != "Override":
            continue
        if not place.hook.probe and not action.error:
            what = "Override with an argError of 0 is not supported, since hooks let a call through with 0"
            raise UsageError(f"{action.place}: {what}", "an error, argError: -1")
        if place.hook.probe and place.hook.returns:
            what = "Override at a function whose return is looked at would corrupt the program's stack"
            raise UsageError(f"{action.place}: {what}", "a hook of its own, without `return`")


def _check_program(hook: Hook) -> None:
    """Refuses what a program does not have."""
    for argument in (*hook.arguments, *([hook.return_argument] if hook.return_argument else [])):
        if argument.type not in _PROGRAMS_TYPES and ARGUMENT_TYPES[argument.type].group != "number":
            raise UsageError(f"{hook.place}: a {argument.type} is the kernel's, and programs have none")
        if argument.resolve and not (argument.btf_type and hook.probe and hook.probe.btf_path):
            what = "`resolve` goes by the kernel's BTF, which says nothing of programs"
            raise UsageError(f"{hook.place}: {what}", "btfPath, a file with theirs, and btfType, where it begins")
        if argument.btf_module:
            raise UsageError(f"{hook.place}: btfTypeModule is the kernel's, and this is a program")


def _group(member: Member) -> tuple[Any, ...]:
    hook = member.hook
    kind = "function" if hook.kind in ("kprobe", "fentry") else hook.kind
    tracks = tracking.tracks(member.policy)
    list = (hook.generated.kind, hook.generated.pattern) if hook.generated else None
    returns = hook.returns and not member.at_call
    return kind, target_name(hook), returns, hook.probe, list, tracks, bool(hook.mirrors)


def target_name(hook: Hook) -> str:
    """For people: what of the kernel a hook stands at. 32-bit programs' system calls have the kernel's own name."""
    if hook.generated:
        return f"list:{hook.generated.name}"
    return f"{COMPAT_PREFIXES[hook.abi]}{hook.target}" if hook.abi else hook.target


def _reacts(policy: Policy, options: Options) -> bool:
    return bool(options.reaction) and policy.options.mode != "monitor"


def _enforced(policy: Policy, options: Options) -> bool:
    return options.enforce and policy.options.mode != "monitor"


def _places(member: Member, options: Options) -> list[Place]:
    hook, policy = member.hook, member.policy
    enforced = _enforced(policy, options)
    numbered: list[tuple[int | None, Selector]] = [*enumerate(hook.selectors)] or [(None, Selector(place=hook.place))]
    places = []
    tracking.check(hook)
    for number, selector in numbered:
        workloads = tuple(member.scopes.index(scope) for scope in workloads_of(selector))
        followed = tuple(following.followed_only(policy, hook))
        reacts = _reacts(policy, options)
        place = Place(policy, hook, number, selector, member.scope, enforced, workloads, followed, reacts)
        if hook.returns and not member.at_call and enforced and not hook.probe:
            error = 0 if options.allow_weaker else _error(place)
            place = replace(place, error=error, signal=_signal(place) if _has_deeds(selector) else 0)
        if options.tells_process:
            _check_stays(place)
        _check_override(place)
        for action in _all_actions(place):
            if action.kind in _REQUESTS and any(other.kind == "NoPost" for other in _all_actions(place)):
                what = f"{action.kind} beside NoPost: agents learn by the event that there is something to ask for"
                raise UsageError(f"{action.place}: {what}", "leave NoPost out")
            if action.kind not in _KINDS:
                raise UsageError(f"{action.place}: the action {action.kind} is not supported yet")
            if action.file_hash and _hashed(hook) is None:
                what = "imaHash is for lsmhooks with a file or a linux_binprm among the first three arguments"
                raise UsageError(f"{action.place}: {what}")
        places.append(place)
    return places


def workloads_of(selector: Selector) -> list[Scope]:
    """What `matchWorkloads` says: all have to hold."""
    filters = (filter for filter in selector.filters if filter.subject.kind == "workload")
    return [value for filter in filters for value in filter.values if isinstance(value, Scope)]


def _all_actions(place: Place) -> tuple[Action, ...]:
    return place.selector.actions + place.selector.return_actions


def _has_deeds(selector: Selector) -> bool:
    return any(action.kind in _DEEDS for action in selector.actions)


def _deeds(place: Place) -> bool:
    return any(action.kind in _DEEDS for action in _all_actions(place))


def _written(place: Place) -> Action | None:
    """What writes to an argument of a static probe."""
    return next((action for action in place.selector.actions if action.kind == "Set"), None)


def _said(function: NewFunction) -> dict[str, Any]:
    """As in RUN, without what was not said."""
    return {name: value for name, value in asdict(function).items() if value}


def _error(place: Place) -> int:
    """What calls return: what Override says, and -EPERM where a process is to be killed: verdict first, kill second."""
    overriding = [action for action in place.selector.actions if action.kind == "Override"]
    override = overriding[0].error if overriding else 0
    if place.hook.probe:
        # There a signal comes alone, and a function may return 0 by its registers as well.
        if overriding and overriding[0].instead:
            return REPLACED
        return (override or OVERRIDDEN) if overriding else 0
    return override or (-EPERM if _signal(place) == _SIGKILL else 0)


def _signal(place: Place, at_return: bool = False) -> int:
    """At a return of what was to be killed when it was called, that is done already."""
    for action in place.selector.return_actions if at_return else _all_actions(place):
        if action.kind in ("Sigkill", "Signal"):
            return _SIGKILL if action.kind == "Sigkill" else action.signal
    return 0


def _request(action: Action) -> tuple[str, str]:
    return ("url", action.url) if action.kind == "GetUrl" else ("name", action.domain_name)


def _limit(place: Place) -> Action | None:
    return next((action for action in _all_actions(place) if action.rate_limit is not None), None)


def _masks_of(action: Action) -> Iterable[tuple[str, bool]]:
    yield "follow", action.kind == "FollowFD"
    yield "unfollow", action.kind == "UnfollowFD"
    yield "kernel_stack", action.kernel_stack
    yield "user_stack", action.user_stack
    yield "hash", action.file_hash
    yield "track", action.kind == "TrackSock"
    yield "untrack", action.kind == "UntrackSock"


def _hashed(hook: Hook) -> Argument | None:
    """The argument with the file whose hash imaHash means; None: there is none."""
    if hook.kind != "lsm":
        return None
    found = (one for one in hook.arguments if one.type in ("file", "linux_binprm") and not one.resolve)
    return next((one for one in found if one.index <= _LAST_HASHED), None)


def _is_followed(slot: Slot | None) -> Asked:
    assert slot is not None
    return Asked(slot, Look(TestClass.IN_SET, following.FILE_ID), (0,), negated=True)


def _is_of_system_call(hook: Hook) -> bool:
    return hook.kind == "tracepoint" and hook.target.startswith(OF_SYSCALLS)


_OF_TWO = (Type.BUFFER, Type.IOVEC, Type.CAPABILITIES_GAINED)
"""Types with a second argument, `size_index`."""


def _placed(slot: Slot, way: Way) -> Slot:
    """The slot as it is found that way."""
    if slot.source is not Source.ARGUMENT:
        return slot
    match way.arguments:
        case "syscall":
            return replace(slot, source=Source.SYSCALL_ARGUMENT)
        case "fields":
            size_index = field_offset(slot.size_index) if slot.type in _OF_TWO else 0
            return replace(slot, source=Source.CONTEXT, index=field_offset(slot.index), size_index=size_index)
        case "record":
            return replace(slot, source=Source.CONTEXT)
        case "context":
            size_index = record_offset(slot.size_index) if slot.type in _OF_TWO else 0
            return replace(slot, source=Source.CONTEXT, index=record_offset(slot.index), size_index=size_index)
    return slot
