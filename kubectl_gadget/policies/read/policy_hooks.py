"""Reads kprobes, fentries, tracepoints, uprobes, usdts and lsmhooks into `model.Hook`, one for each target.

The trap: `syscall` defaults to true, so a kernel function without `syscall: false` would be looked up among the system
calls. This is an error here, since its arguments would be read from the wrong place.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES, BUFFERS
from kubectl_gadget.policies.language.linux_names import is_known, system_call
from kubectl_gadget.policies.model import Argument, Hook, HookKind, Note, ReturnAction, Source, UserProbe
from kubectl_gadget.policies.read.filter_values import need_number
from kubectl_gadget.policies.read.lists import Lists, need_system_call, no_system_call
from kubectl_gadget.policies.read.registers import register_member
from kubectl_gadget.policies.read.selectors import SelectorContext, read_selector
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
