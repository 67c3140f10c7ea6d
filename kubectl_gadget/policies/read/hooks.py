"""Reads hooks into `model.Hook`: kprobes, fentries, tracepoints, uprobes, usdts, lsmhooks, the loader, and enforcers.

`syscall` defaults to true, so a kernel function without `syscall: false` would be looked up among the system
calls. This is an error here, since its arguments would be read from the wrong place.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.language import ARGUMENT_TYPES, BUFFERS, is_known, system_call
from kubectl_gadget.policies.model import (
    Action,
    Argument,
    Hook,
    HookFilter,
    HookKind,
    Note,
    Policy,
    ReturnAction,
    Selector,
    Source,
    Subject,
    SystemCall,
    UserProbe,
)
from kubectl_gadget.policies.read.selectors import SelectorContext, read_selector
from kubectl_gadget.policies.read.values import Lists, need_number, need_system_call, no_system_call, register_member
from kubectl_gadget.yaml_files import Place
from kubectl_gadget.yaml_reader import Part, Problems, Scalar, WrongYaml, one_of

_PARAMETERS: Mapping[str, int] = {"kprobe": 6, "uprobe": 6, "fentry": 12, "lsm": 12, "usdt": 12, "raw_tracepoint": 12}
"""The number of parameters that can be read: those in registers, those that a trampoline passes, those that a probe
describes. A tracepoint has fields instead."""
_MANY_FIELDS = 1 << 16
_STEP = re.compile(r"([A-Za-z_]\w*)?((?:\[\d+\])*)")
_NAME = re.compile(r"[A-Za-z_][\w.]*(?:\$\w+)?")
_TRACEPOINT = re.compile(r"[A-Za-z_]\w*")
_RETURN_ACTIONS: tuple[ReturnAction, ...] = ("", "Post", "TrackSock", "UntrackSock")
_SOURCES: Mapping[str, Source] = {"": "parameter", "current_task": "current_task", "pt_regs": "registers"}
_DIGEST = re.compile(
    r"(sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}|build-id:[0-9a-f]+)"
)
_GREATEST_OFFSET = (1 << 63) - 1
_MOST_TAGS = 16
ELSEWHERE = "the CustomResourceDefinition of TracingPolicy allows"


class YamlHookReader:
    """Reads the hooks of one policy, which refer to its lists and macros."""

    def __init__(self, spec: Part, lists: Lists, problems: Problems, notes: list[Note]) -> None:
        self._spec, self._lists, self._problems, self._notes = spec, lists, problems, notes
        self._macros = spec.named_parts("selectorsMacros")
        for name, macro in self._macros.items():
            for key in ("matchActions", "matchReturnActions", "macros"):
                if key in macro:
                    problems.add(macro.at(key), f"is not for the macro {name!r}, which has filters only")

    def read(self) -> tuple[Hook, ...]:
        """All hooks, in the order of the API's fields. Errors are added to `problems`."""
        readers: Mapping[str, Callable[[Part], Iterator[Hook]]] = {
            "kprobes": lambda part: self._functions(part, "kprobe"),
            "fentries": lambda part: self._functions(part, "fentry"),
            "tracepoints": self._tracepoint,
            "uprobes": self._uprobe,
            "usdts": self._usdt,
            "lsmhooks": self._lsm,
        }
        hooks: list[Hook] = []
        for key, reader in readers.items():
            for part in self._spec.parts(key):
                with self._problems.collecting():
                    hooks += reader(part)
        return tuple(hooks)

    def _functions(self, part: Part, kind: HookKind) -> Iterator[Hook]:
        call = part.scalar("call")
        group = self._lists.get(call)
        whole = self._hook(part, kind, "")
        action = part.text("returnArgAction")
        if action and whole.return_argument is None and action != "Post":
            part.fail("returnArgAction", "needs `return: true` and `returnArg`")
        ignore = part.part("ignore")
        whole = replace(
            whole,
            return_argument_action=one_of(action, _RETURN_ACTIONS, ""),
            ignore_missing=ignore is not None and ignore.flag("callNotFound"),
        )
        if group is None:
            yield _function(whole, call, part.flag("syscall", True), "syscall" in part)
        elif group.generated:
            yield replace(whole, syscall=group.system_calls, generated=group.generated)
        else:
            for value in group.values:
                yield _function(whole, Scalar(value.text, call.place), group.system_calls, True)

    def _tracepoint(self, part: Part) -> Iterator[Hook]:
        for key in ("subsystem", "event"):
            if not _TRACEPOINT.fullmatch(part.text(key)):
                part.fail(key, f"{part.text(key)!r} is not a name of a tracepoint's {key}")
        kind: HookKind = "raw_tracepoint" if part.flag("raw") else "tracepoint"
        yield self._hook(part, kind, f"{part.text('subsystem')}/{part.text('event')}")

    def _lsm(self, part: Part) -> Iterator[Hook]:
        name = part.text("hook")
        for prefix in ("security_", "bpf_lsm_"):
            if name.startswith(prefix):
                part.fail("hook", f"{name!r} is written without {prefix} here: {name.removeprefix(prefix)}")
        if not _NAME.fullmatch(name):
            part.fail("hook", f"{name!r} is not a name of an LSM hook")
        yield self._hook(part, "lsm", name)

    def _uprobe(self, part: Part) -> Iterator[Hook]:
        hook = self._hook(part, "uprobe", "")
        ways = [key for key in ("symbols", "offsets", "addrs") if part.scalars(key)]
        if len(ways) != 1:
            part.fail(ways[1] if ways else "symbols", "exactly one of symbols, offsets and addrs must be given")
        places = part.scalars(ways[0])
        counters = [need_number(scalar, 0, _GREATEST_OFFSET) for scalar in part.scalars("refCtrOffsets")]
        if counters and len(counters) != len(places):
            part.fail("refCtrOffsets", f"has {len(counters)} entries for {len(places)} {ways[0]}")
        ignore = part.part("ignore")
        file = replace(
            _file(part),
            digests=tuple(_digest(scalar) for scalar in part.scalars("binaryDigests")),
            ignore_digest_failure=ignore is not None and ignore.flag("digestVerificationFailure"),
            in_container=part.flag("resolvePathInContainer"),
        )
        if file.in_container and "podSelector" not in self._spec:
            part.fail("resolvePathInContainer", "needs a podSelector in spec")
        for position, scalar in enumerate(places):
            probe = replace(file, reference_counter=counters[position] if counters else None)
            if ways[0] == "symbols":
                probe = replace(probe, symbol=scalar.text)
            elif ways[0] == "offsets":
                probe = replace(probe, offset=need_number(scalar, 0, _GREATEST_OFFSET))
            else:
                probe = replace(probe, address=need_number(scalar, 0, _GREATEST_OFFSET))
            yield replace(hook, target=f"{file.path}:{scalar.text}", probe=probe)

    def _usdt(self, part: Part) -> Iterator[Hook]:
        probe = replace(_file(part), provider=part.text("provider"), name=part.text("name"))
        target = f"{probe.path}:{probe.provider}:{probe.name}"
        yield replace(self._hook(part, "usdt", target), probe=probe)

    def _hook(self, part: Part, kind: HookKind, target: str) -> Hook:
        """The part that hooks of all kinds have in common."""
        arguments = tuple(_argument(item, kind, "args") for item in part.parts("args"))
        data = tuple(_argument(item, kind, "data") for item in part.parts("data"))
        returned = part.part("returnArg")
        return_argument = None if returned is None else _argument(returned, kind, "returnArg")
        wants_return = part.flag("return")
        if wants_return and return_argument is None:
            part.fail("return", "needs `returnArg`, which says what is returned")
        if return_argument is not None and not wants_return:
            self._notes.append(Note(part.at("returnArg"), "does nothing without `return: true`"))
            return_argument = None
        returns = wants_return or any(argument.return_copy for argument in arguments)
        self._note_limits(part)
        context = SelectorContext(
            *(kind, arguments, data, return_argument, returns),
            *(self._lists, self._macros, self._problems, self._notes),
        )
        return Hook(
            kind=kind,
            target=target,
            arguments=arguments,
            data=data,
            returns=returns,
            return_argument=return_argument,
            selectors=tuple(read_selector(selector, context) for selector in part.parts("selectors")),
            message=part.text("message"),
            tags=part.texts("tags"),
            place=part.place,
        )

    def _note_limits(self, part: Part) -> None:
        """Notes what works here but would be rejected by the API server of a cluster that has the CRD of this kind."""
        if len(tags := part.texts("tags")) > _MOST_TAGS:
            self._notes.append(Note(part.at("tags"), f"has {len(tags)} tags; {ELSEWHERE} {_MOST_TAGS}"))
        for selector in part.parts("selectors"):
            for key in ("matchBinaries", "matchParentBinaries"):
                if len(filters := selector.parts(key)) > 1:
                    self._notes.append(Note(selector.at(key), f"has {len(filters)} entries; {ELSEWHERE} 1"))


def _function(hook: Hook, call: Scalar, syscall: bool, said: bool) -> Hook:
    found = system_call(call.text)
    if syscall:
        if found is None or not is_known(found):
            if not said and found:
                hint = ", and a function of this name takes `syscall: false`"
                raise WrongYaml(call.place, no_system_call(call, found, hint))
            if not said:
                text = f"{call.text} is not a system call, which is what `call` is by default: add `syscall: false`"
                raise WrongYaml(call.place, text)
            found = need_system_call(call)
        return replace(hook, target=f"sys_{found.name}", syscall=True, abi=found.abi)
    if not _NAME.fullmatch(call.text):
        raise WrongYaml(call.place, f"{call.text!r} is not a name of a function")
    if call.text.startswith("sys_") and found and is_known(found):
        raise WrongYaml(call.place, f"{call.text} is a system call: `syscall` must be true")
    return replace(hook, target=call.text)


def _argument(part: Part, kind: HookKind, key: str) -> Argument:
    name = part.text("type", "auto")
    type = ARGUMENT_TYPES[name]
    index = need_number(part.scalar("index"), 0, _MANY_FIELDS) if "index" in part else 0
    many = _PARAMETERS.get(kind, _MANY_FIELDS)
    if key == "args" and index >= many:
        part.fail(
            "index", f"{index} cannot be read: of a {kind.replace('_', ' ')} only the first {many} parameters can"
        )
    if (key == "data") != ("source" in part):
        part.fail("source", "is missing: current_task or pt_regs" if key == "data" else "is only for `data`")
    if key == "data" and "resolve" not in part:
        part.fail("resolve", "is missing: it says what to read")
    for option, types in (("sizeArgIndex", BUFFERS), ("returnCopy", BUFFERS), ("maxData", (*BUFFERS, "iov_iter"))):
        if option in part and name not in types and part.text(option) not in ("0", "false"):
            part.fail(option, f"is only for {', '.join(types)}, not for {name}")
    if part.flag("maxData") and part.flag("returnCopy"):
        part.fail("maxData", "cannot be used with returnCopy")
    if "btfTypeModule" in part and "btfType" not in part:
        part.fail("btfTypeModule", "needs btfType")
    size = need_number(part.scalar("sizeArgIndex"), 0, _PARAMETERS["fentry"]) if "sizeArgIndex" in part else 0
    if name in ("char_buf", "char_iovec") and key == "args" and not size and not part.flag("returnCopy"):
        part.fail("type", f"{name} needs sizeArgIndex or returnCopy for its size")
    if type.group == "opaque" and "resolve" in part and name == "nop":
        part.fail("resolve", "is not for nop, which is not read")
    return Argument(
        index=index,
        type=name,
        label=part.text("label"),
        size_index=size - 1 if size else None,
        return_copy=part.flag("returnCopy"),
        max_data=part.flag("maxData"),
        # Registers may also be given by the name that the machine's assembler uses.
        resolve=(part.text("source") == "pt_regs" and register_member(part.text("resolve"))) or _resolve(part),
        source=_SOURCES[part.text("source")],
        btf_type=part.text("btfType"),
        btf_module=part.text("btfTypeModule"),
    )


def _resolve(part: Part) -> tuple[str | int, ...]:
    written = part.text("resolve")
    steps: list[str | int] = []
    for step in written.split(".") if written else ():
        match = _STEP.fullmatch(step)
        if match is None or not step or (steps and not match[1]):
            part.fail("resolve", f"{written!r} is not a way through a structure: mm.owner.comm, files[3].name, [0]")
        steps += [match[1]] if match[1] else []
        steps += map(int, re.findall(r"\d+", match[2]))
    return tuple(steps)


def _file(part: Part) -> UserProbe:
    if not part.text("path").startswith("/"):
        part.fail("path", f"{part.text('path')!r} is not an absolute path")
    return UserProbe(path=part.text("path"), btf_path=part.text("btfPath"))


def _digest(scalar: Scalar) -> str:
    if not _DIGEST.fullmatch(scalar.text.lower()):
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not a digest: sha256: and 64 hex digits, build-id: and hex")
    return scalar.text.lower()


# `spec.loader`: an event for every executable file that a program maps, with the file's build ID. The kernel reads
# build IDs for users of perf, so this is a hook at the kernel function that reports a mapping, and the agent makes the
# kernel report them. The function is also called for mappings that are not executable, and for memory without a file;
# the filters exclude both.


_FUNCTION = "perf_event_mmap_output"
_STRUCT = "perf_mmap_event"
_EXECUTABLE = 4
"""VM_EXEC of include/linux/mm.h."""
_BUILD_ID = (("uint64", 0), ("uint64", 8), ("uint32", 16))
"""The twenty bytes of a build ID as numbers, each with its offset."""


def loader_hook(place: Place) -> Hook:
    """The hook. wire.record_reader reads its arguments: the file, the build ID's size and its bytes."""
    arguments = (
        _member("file", "vma", "vm_file"),
        _member("uint32", "build_id_size"),
        *(_member(type, "build_id", start) for type, start in _BUILD_ID),
        _member("uint64", "vma", "vm_flags"),
    )
    executable = HookFilter(Subject("argument", len(arguments) - 1), "mask", (_EXECUTABLE,), place=place)
    file = HookFilter(Subject("argument"), "prefix", ("/",), place=place)
    selector = Selector(filters=(executable, file), place=place)
    return Hook("loader", _FUNCTION, arguments=arguments, selectors=(selector,), place=place)


def _member(type: str, *path: str | int) -> Argument:
    return Argument(1, type, btf_type=_STRUCT, resolve=path)


# NotifyEnforcer without notifications: the calls that enforcers deny become hooks on the calls themselves.
#
# The other engine that implements this field decides at `raw_syscalls/sys_enter` and leaves a note for a second
# program, which denies. Ours has one program per hook that decides and denies. Each call therefore gets the selectors
# that concern it, with Override and the signal; nothing has to be cleaned up. The result is the same only where the
# selectors look at the process and at the call's number and first argument, as such policies do, or where the hook is
# at the call itself; other policies are rejected.


ENTRY, EXIT = "raw_syscalls/sys_enter", "raw_syscalls/sys_exit"
_KINDS = ("tracepoint", "raw_tracepoint")
_FUNCTIONS = ("kprobe", "fentry")
_FIRST_PARAMETER = 5
"""The field of ENTRY that holds a call's arguments."""
_NOTICES = ("NotifyEnforcer", "CleanupEnforcerNotification")
_SIGKILL = 9


def without_notices(policy: Policy) -> Policy:
    """The policy in the form that the engine can enforce. Raises UsageError where the result would not be the same."""
    hooks: list[Hook] = []
    for hook in policy.hooks:
        kinds = {action.kind for action in hook.all_actions}
        if not kinds & set(_NOTICES):
            hooks.append(hook)
        elif "NotifyEnforcer" in kinds and hook.kind in _FUNCTIONS:
            hooks.append(_at_function(hook, policy))
        elif "NotifyEnforcer" in kinds:
            hooks += _on_calls(hook, policy)
        elif hook.target != EXIT:
            raise UsageError(f"{hook.place}: CleanupEnforcerNotification is only for {EXIT}")
    return policy if hooks == list(policy.hooks) else replace(policy, hooks=tuple(hooks))


def _at_function(hook: Hook, policy: Policy) -> Hook:
    """The same hook, which denies by itself; an enforcer has to cover the hook's own call."""
    if hook.generated:
        is_enforced = hook.generated in policy.enforcer_generated
    elif hook.syscall:
        is_enforced = SystemCall(hook.target.removeprefix("sys_"), hook.abi) in policy.enforcer_calls
    else:
        is_enforced = hook.target in policy.enforcer_calls
    if not is_enforced:
        what = f"no enforcer covers {hook.target or 'this list'}, so a notification would deny a later call"
        raise UsageError(f"{hook.place}: {what}", f"{hook.target or 'the list'} among the calls of spec.enforcers")
    return replace(hook, selectors=tuple(_selector(selector, True) for selector in hook.selectors))


def _on_calls(hook: Hook, policy: Policy) -> list[Hook]:
    """One hook for each call that a selector concerns, in the order of the calls."""
    if hook.kind not in _KINDS or hook.target != ENTRY:
        what = f"NotifyEnforcer is for functions and for {ENTRY}, where a call begins, not for {hook.target}"
        raise UsageError(f"{hook.place}: {what}", "Override on a hook of the call itself: a kprobe, or lsmhooks")
    if policy.enforcer_generated:
        raise UsageError(f"{hook.place}: enforcers with lists that nodes generate are not supported", "name the calls")
    for call in policy.enforcer_calls:
        if not isinstance(call, SystemCall):
            what = f"the enforcer of {call} cannot be notified: {ENTRY} is about system calls"
            raise UsageError(f"{hook.place}: {what}", "Override on a hook of its own (lsmhooks)")
    enforced = [call for call in policy.enforcer_calls if isinstance(call, SystemCall)]
    split = [_split(selector, hook) for selector in hook.selectors]
    named = [call for _, calls in split for call in calls or ()]
    found = []
    for call in dict.fromkeys([*enforced, *named]):
        selectors = [
            _selector(selector, call in enforced) for selector, calls in split if calls is None or call in calls
        ]
        if selectors:
            on_call = replace(hook, kind="kprobe", target=f"sys_{call.name}", syscall=True, abi=call.abi)
            first = (replace(hook.arguments[position], index=0) for position in _first_parameters(hook))
            on_call = replace(on_call, arguments=tuple(first))
            found.append(replace(on_call, selectors=tuple(selectors)))
    return found


def _first_parameters(hook: Hook) -> list[int]:
    """The positions of the arguments that are the call's first parameter."""
    if hook.kind != "tracepoint":
        return []
    numbers = (position for position, one in enumerate(hook.arguments) if one.index == _FIRST_PARAMETER)
    return [one for one in numbers if ARGUMENT_TYPES[hook.arguments[one].type].group == "number"]


def _split(selector: Selector, hook: Hook) -> tuple[Selector, list[SystemCall] | None]:
    """The selector without its filters on the call's number, and the calls that they allow; None: all."""
    calls: list[SystemCall] | None = None
    others: list[HookFilter] = []
    for filter in selector.filters:
        if filter.subject.kind != "argument":
            others.append(filter)
            continue
        if filter.subject.position in (first := _first_parameters(hook)):
            others.append(
                replace(filter, subject=replace(filter.subject, position=first.index(filter.subject.position)))
            )
            continue
        if hook.arguments[filter.subject.position].type != "syscall64" or filter.test != "equal" or filter.negated:
            what = "with NotifyEnforcer, filters can test a call's number (by Equal, In, InMap) and first argument only"
            raise UsageError(f"{filter.place}: {what}", "a hook on the call itself, which has its arguments")
        values = [value for value in filter.values if isinstance(value, SystemCall)]
        if len(values) < len(filter.values):
            raise UsageError(f"{filter.place}: numbers of system calls differ between machines", "their names: a list")
        calls = values if calls is None else [call for call in calls if call in values]
    return replace(selector, filters=tuple(others)), calls


def _selector(selector: Selector, enforced: bool) -> Selector:
    """The selector with the actions that the notification would have caused; only an event for calls without
    enforcer."""
    actions: list[Action] = []
    for action in selector.actions:
        if action.kind != "NotifyEnforcer":
            actions += [] if action.kind == "CleanupEnforcerNotification" else [action]
            continue
        if enforced and action.error:
            actions.append(replace(action, kind="Override", signal=0))
        if enforced and action.signal:
            actions.append(replace(action, kind="Sigkill" if action.signal == _SIGKILL else "Signal", error=0))
        if not enforced:
            actions.append(Action("Post", place=action.place))
    return replace(selector, actions=tuple(actions))
