"""Policies to start from: an empty one, all system calls, functions that match a pattern, the probes of a binary.

A list that the node generates tells a reader less than names do; so names are written where this machine knows them,
and `generated_…` only where the node alone does.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.policies.language import API_VERSION, check_pattern, system_calls

_ARGUMENT = re.compile(r"(-?\d+)f?@")
_MOST_ARGUMENTS = 12


def policy_text(name: str, spec: Mapping[str, object]) -> str:
    """A whole policy as YAML."""
    whole = {"apiVersion": API_VERSION, "kind": "TracingPolicy", "metadata": {"name": name}, "spec": dict(spec)}
    return yaml.safe_dump(whole, sort_keys=False, width=120)


def empty() -> dict[str, Any]:
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


def uprobes(binary: str) -> dict[str, Any]:
    """The functions that a program or library defines. Raises UsageError when it is not an ELF file or has no
    functions."""
    symbols = sorted(_with_elf(binary, _functions))
    if not symbols:
        raise UsageError(
            f"{binary} has no symbols: it was stripped", "its debug package, or offsets in place of symbols"
        )
    return {"uprobes": [{"path": binary, "symbols": symbols}]}


def usdts(binary: str) -> dict[str, Any]:
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
        probe: dict[str, Any] = {"provider": provider.decode(), "name": name.decode()}
        sizes = [int(size) for size in _ARGUMENT.findall(arguments.decode())]
        if sizes:
            probe["args"] = [
                {"index": index, "type": f"{'' if size < 0 else 'u'}int{abs(size) * 8}"}
                for index, size in enumerate(sizes[:_MOST_ARGUMENTS])
            ]
        yield probe
