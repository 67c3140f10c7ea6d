"""Helps to write policies: the schema as text, like `kubectl explain`, and policies to start from."""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.policies.language import (
    API_VERSION,
    ARGUMENT_OPERATORS,
    ARGUMENT_TYPES,
    POLICY,
    TESTS_OF_GROUP,
    check_pattern,
    system_calls,
    test_of,
)
from kubectl_gadget.wording import did_you_mean
from kubectl_gadget.yaml_files import SchemaField

# The schema as text for people, like `kubectl explain`: a field, its description, and the fields in it.


_TYPES = {
    "text": "string",
    "word": "string",
    "text or number": "string",
    "flag": "boolean",
    "number": "integer",
    "values": "[]string or integer",
    "list of text": "[]string",
    "object": "Object",
    "list of object": "[]Object",
    "map of text": "map[string]string",
    "map of object": "map[string]Object",
    "anything": "any",
    "unsupported": "not supported",
}
_INDENT = "    "


def find_field(path: str) -> tuple[SchemaField, str]:
    """The field at a path such as `spec.kprobes.call`, and its whole path. `spec.` may be omitted. Raises
    UsageError."""
    steps = [step for step in path.split(".") if step]
    if steps and steps[0].lower() in ("tracingpolicy", "tracingpolicynamespaced", "policy"):
        steps = steps[1:]
    top = {field.name for field in POLICY.fields}
    if steps and steps[0] not in top:
        steps = ["spec", *steps]
    field, found = POLICY, list[str]()
    for step in steps:
        by_name = {inner.name.lower(): inner for inner in field.fields}
        name = step.split("[")[0].lower()
        if name not in by_name:
            where = ".".join(found) or "a policy"
            path = where if found else ""
            below = list(_below(field, path))
            deeper = next((where for where, inner in below if inner.name.lower() == name), "")
            of_value = next((where for where, inner in below if step in inner.choices), "")
            known = [inner.name for inner in field.fields]
            instead = did_you_mean(step, known) if known else ""
            if deeper or of_value:
                instead = f"; there is {deeper}" if deeper else f"; it is a value of {of_value}"
                deeper = deeper or of_value
            remedy = f"kubectl gadget policy explain {deeper}" if deeper else None
            raise UsageError(f"{where} has no field {step!r}{instead}", remedy)
        field = by_name[name]
        found.append(field.name)
    return field, ".".join(found)


def _below(field: SchemaField, path: str) -> Iterator[tuple[str, SchemaField]]:
    """All nested fields, each with its path."""
    for inner in field.fields:
        where = f"{path}.{inner.name}".lstrip(".")
        yield where, inner
        yield from _below(inner, where)


def explain_field(path: str, width: int = 100, deep: bool = False) -> str:
    """The text on a field; `deep` also lists the fields of its fields."""
    field, whole = find_field(path)
    lines = ["KIND:       TracingPolicy, TracingPolicyNamespaced", "VERSION:    cilium.io/v1alpha1", ""]
    lines += [f"FIELD: {whole or 'the policy'} <{_TYPES[field.kind]}>", "", "DESCRIPTION:"]
    lines += _wrapped(field.description, width, _INDENT)
    lines += [f"{_INDENT}Required."] if field.required else []
    lines += [f"{_INDENT}Default: {field.default}"] if field.default else []
    if field.name == "type" and "auto" in field.choices:
        lines += ["", "TYPES:", *_types(width)]
    elif field.choices:
        lines += ["", "VALUES:", *_wrapped(", ".join(field.choices), width, _INDENT)]
    if field.fields:
        lines += ["", "FIELDS:", *(_tree(field.fields, _INDENT) if deep else _fields(field.fields, width))]
    return "\n".join(lines) + "\n"


def _fields(fields: Sequence[SchemaField], width: int) -> list[str]:
    lines: list[str] = []
    for field in fields:
        required = " -required-" if field.required else ""
        lines += [f"{_INDENT}{field.name} <{_TYPES[field.kind]}>{required}"]
        lines += [*_wrapped(field.description, width, _INDENT * 2), ""]
    return lines[:-1]


def _tree(fields: Sequence[SchemaField], indent: str) -> list[str]:
    lines = []
    for field in fields:
        lines.append(f"{indent}{field.name} <{_TYPES[field.kind]}>")
        lines += _tree(field.fields, indent + "  ")
    return lines


def _types(width: int) -> list[str]:
    lines = []
    for name, type in ARGUMENT_TYPES.items():
        lines += [f"{_INDENT}{name}", *_wrapped(type.description, width, _INDENT * 2)]
        operators = [one for one in ARGUMENT_OPERATORS if test_of(one)[0] in TESTS_OF_GROUP[type.group]]
        if operators and type.group != "auto":
            lines += _wrapped(f"Operators: {', '.join(operators)}", width, _INDENT * 2)
    return lines


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


# Policies to start from: an empty one, all system calls, functions that match a pattern, the probes of a binary. A list
# that the node generates tells a reader less than names do; so names are written where this machine knows them, and
# `generated_…` only where the node alone does.


_ARGUMENT = re.compile(r"(-?\d+)f?@")
_MOST_ARGUMENTS = 12


def policy_text(name: str, spec: Mapping[str, object]) -> str:
    """A whole policy as YAML."""
    whole = {"apiVersion": API_VERSION, "kind": "TracingPolicy", "metadata": {"name": name}, "spec": dict(spec)}
    return yaml.safe_dump(whole, sort_keys=False, width=120)


def empty() -> dict[str, object]:
    """A kprobe with an example of everything, to be edited."""
    argument = {"index": 0, "type": "file"}
    matched = {"index": 0, "operator": "Prefix", "values": ["/etc/"]}
    selector = {"matchArgs": [matched], "matchActions": [{"action": "Post"}]}
    return {"kprobes": [{"call": "security_file_open", "syscall": False, "args": [argument], "selectors": [selector]}]}


def all_system_calls(binaries: Sequence[str]) -> dict[str, object]:
    """Every system call of the 64-bit architectures, by name, for the processes of these binaries."""
    # Calls that have one name in the kernel (new…) and another in the manual would be listed twice.
    values = [f"sys_{name}" for name in sorted(system_calls()) if not name.startswith("new")]
    compared = {"index": 0, "operator": "InMap", "values": ["list:syscalls"]}
    selectors = [{"matchArgs": [compared], **_binaries(binaries)}]
    number = {"index": 4, "type": "syscall64"}
    hook = {"subsystem": "raw_syscalls", "event": "sys_enter", "args": [number], "selectors": selectors}
    return {"lists": [{"name": "syscalls", "type": "syscalls", "values": values}], "tracepoints": [hook]}


def ftrace_list(pattern: str, binaries: Sequence[str]) -> dict[str, object]:
    """The kernel's functions that match a pattern; each node looks them up itself."""
    try:
        check_pattern(pattern)
    except ValueError as error:
        raise UsageError(str(error)) from None
    hook: dict[str, object] = {"call": "list:functions"}
    if binaries:
        hook["selectors"] = [_binaries(binaries)]
    listed = {"name": "functions", "type": "generated_ftrace", "pattern": pattern}
    return {"lists": [listed], "kprobes": [hook]}


def uprobes(binary: str) -> dict[str, object]:
    """The functions that a program or library defines. Raises UsageError when it is not an ELF file or has no
    functions."""
    symbols = sorted(_with_elf(binary, _functions))
    if not symbols:
        raise UsageError(
            f"{binary} has no symbols: it was stripped", "its debug package, or offsets in place of symbols"
        )
    return {"uprobes": [{"path": binary, "symbols": symbols}]}


def usdts(binary: str) -> dict[str, object]:
    """The USDT probes of a program or library, with their arguments. Raises UsageError when there are none."""
    probes = _with_elf(binary, _probes)
    if not probes:
        raise UsageError(f"{binary} has no USDT probes")
    return {"usdts": [{"path": binary, **probe} for probe in probes]}


def _binaries(binaries: Sequence[str]) -> dict[str, object]:
    for binary in binaries:
        if not binary.startswith("/"):
            raise UsageError(f"{binary!r} is not an absolute path, and binaries are compared by path")
    return {"matchBinaries": [{"operator": "In", "values": list(binaries)}]} if binaries else {}


def _with_elf(binary: str, read: Callable[[Any], Iterator[Any]]) -> list[Any]:
    # This import takes time, and only this command needs it.
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    if not binary.startswith("/"):
        raise UsageError(f"{binary!r} is not an absolute path, which probes need")
    try:
        with Path(binary).open("rb") as file:
            return list(read(ELFFile(file)))
    except OSError as error:
        raise UsageError(f"{binary}: {error.strerror}") from None
    except (ELFError, ValueError, LookupError) as error:
        raise GadgetError(f"{binary} is not a readable ELF file: {error}") from None


def _functions(elf: Any) -> Iterator[str]:
    from elftools.elf.sections import SymbolTableSection

    found = set()
    for section in elf.iter_sections():
        if isinstance(section, SymbolTableSection):
            for symbol in section.iter_symbols():
                if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF" and symbol.name:
                    found.add(str(symbol.name))
    yield from found


def _probes(elf: Any) -> Iterator[dict[str, Any]]:
    section = elf.get_section_by_name(".note.stapsdt")
    seen = set()
    width = elf.elfclass // 8
    for note in section.iter_notes() if section else ():
        if note["n_name"] != "stapsdt":
            continue
        # Location, base and semaphore, then three texts:
        # https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation
        content = note["n_desc"]
        raw = content if isinstance(content, bytes) else content.encode("latin-1")
        provider, name, arguments = [*raw[3 * width :].split(b"\0"), b"", b""][:3]
        key = (provider, name)
        if key in seen:
            continue
        seen.add(key)
        probe: dict[str, object] = {"provider": provider.decode(), "name": name.decode()}
        sizes = [int(size) for size in _ARGUMENT.findall(arguments.decode())]
        if sizes:
            probe["args"] = [
                {"index": index, "type": f"{'' if size < 0 else 'u'}int{abs(size) * 8}"}
                for index, size in enumerate(sizes[:_MOST_ARGUMENTS])
            ]
        yield probe
