"""A user's own gadget: a folder with NAME.yaml and NAME.bpf.c, which is built into its subfolder `built`.

With clang it is compiled when something changed; without clang, the content of `built` is used as it is, so that a
gadget can be passed on to people who have no compiler. The C is the user's, so every error here refers to the
user's file and is never reported as an internal error.
"""

import json
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets.btf_layout import BtfLayout, SentStruct
from kubectl_gadget.gadgets.build import build_gadget, join, object_path, schema_path
from kubectl_gadget.gadgets.compiler import (
    INSTALL,
    Inputs,
    bpftool,
    compile_object,
    find_clang,
    include_directory,
    read_types,
    write_json,
)
from kubectl_gadget.gadgets.gadget_yaml import describe
from kubectl_gadget.gadgets.load import ARCHITECTURES, BUILT, read_gadget
from kubectl_gadget.gadgets.schema import Gadget

# A gadget of one C file without YAML: `kubectl gadget run hello.bpf.c`.


LINKED = "single_file"
"""The object that is linked with every such program."""
_WHO = ["timestamp", "node", "namespace", "pod", "container", "pid", "comm"]
_NOT_TRACING = (
    *("xdp", "tc", "tcx", "classifier", "action", "socket", "sk_", "sockops", "netfilter", "struct_ops", "lwt"),
)
"""Prefixes of sections whose programs have to be attached to an interface or a socket."""
_VMLINUX = "vmlinux.h"
_KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")


def is_single_file(path: Path) -> bool:
    """True if the path is such a gadget: a C file without a YAML of the same name."""
    return path.suffix == ".c" and path.is_file() and not (path.parent / f"{_name_of(path)}.yaml").is_file()


def _name_of(source: Path) -> str:
    return source.name.removesuffix(".c").removesuffix(".bpf")


def load_single_file(source: Path) -> tuple[Gadget, Path]:
    """The gadget, and the directory for object_bytes. When something changed, it is compiled for each architecture for
    which it compiles. Without clang, an earlier result is used.

    Raises UsageError with clang's messages or with what the program lacks, and GadgetError for missing tools.
    """
    built, name = source.parent / "built", _name_of(source)
    schema = schema_path(built, name)
    if find_clang() is not None:
        try:
            built.mkdir(exist_ok=True)
            _build_single(source, built, schema)
        except OSError as error:
            raise UsageError(f"{source} cannot be built into {built}: {error.strerror}") from None
    elif not schema.is_file():
        raise GadgetError(f"clang, which compiles {source}, is not installed", INSTALL)
    return read_gadget(schema), built


def _build_single(source: Path, built: Path, schema: Path) -> None:
    inputs = Inputs(built)
    if not inputs.changed(schema, [source]):
        return
    _write_kernel_types(source, built)
    objects = list(_compiled(source, built))
    for path in objects:
        _check_sections(path, source)
    gadget = _describe(source, schema.stem, [BtfLayout(read_types(path), str(source)) for path in objects])
    write_json(schema, gadget.to_json())
    inputs.made(schema, [source])


def _compiled(source: Path, built: Path) -> Iterator[Path]:
    """The objects, this machine's architecture first. Architectures for which the source does not compile are
    skipped."""
    refused: UsageError | None = None
    found = 0
    for architecture in sorted(ARCHITECTURES, key=lambda name: name != _machine()):
        target = object_path(built, _name_of(source), architecture)
        folders = [include_directory() / "single_file", built]
        linked = object_path(BUILT, LINKED, architecture)
        try:
            compile_object(source, architecture, target, folders, [linked], _missing_headers(source))
        except UsageError as error:
            target.unlink(missing_ok=True)
            refused = refused or error
        else:
            found += 1
            yield target
    if not found and refused is not None:
        raise refused


def _machine() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _missing_headers(source: Path) -> list[str]:
    """Headers for a program of a line or two that includes none itself."""
    return [] if "#include" in source.read_text(errors="replace") else ["linux/bpf.h", "bpf/bpf_helpers.h"]


def _write_kernel_types(source: Path, built: Path) -> None:
    """Generates the vmlinux.h that a program includes from this machine's kernel, unless the user has provided one."""
    text = source.read_text(errors="replace")
    target = built / _VMLINUX
    if _VMLINUX not in text or (source.parent / _VMLINUX).is_file() or target.is_file():
        return
    if not _KERNEL_TYPES.is_file():
        raise UsageError(
            f"{source} includes {_VMLINUX}, and this machine has no {_KERNEL_TYPES} to make it from",
            f"put a {_VMLINUX} beside it: bpftool btf dump file {_KERNEL_TYPES} format c, on a Linux machine",
        )
    command = [bpftool(), "btf", "dump", "file", str(_KERNEL_TYPES), "format", "c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GadgetError(f"{_VMLINUX} cannot be made: {done.stderr.strip()}")
    target.write_text(done.stdout)


def _check_sections(path: Path, source: Path) -> None:
    """Rejects programs that no node could load or attach. Raises UsageError."""
    try:
        with path.open("rb") as file:
            sections = [section.name for section in ELFFile(file).iter_sections()]
    except ELFError as error:
        raise GadgetError(f"{path} cannot be read: {error}", "build it again") from None
    if "license" not in sections:
        raise UsageError(
            f"{source} has no license, without which the kernel refuses helpers that it needs",
            'add the line: char LICENSE[] SEC("license") = "GPL";',
        )
    for section in sections:
        kind = section.removeprefix("?").partition("/")[0]
        if kind.startswith(_NOT_TRACING):
            raise UsageError(
                f'{source}: SEC("{section}") needs an interface or a socket to be attached to',
                "tracepoint/…, tp_btf/…, raw_tp/…, kprobe/…, fentry/…, uprobe/FILE:FUNCTION, usdt/…, lsm/…, perf_event",
            )
        if section in ("uprobe", "uretprobe", "usdt", "kprobe", "kretprobe", "tracepoint", "tp"):
            raise UsageError(f'{source}: SEC("{section}") does not say where to attach', f'SEC("{section}/…")')


def _describe(source: Path, name: str, layouts: list[BtfLayout]) -> Gadget:
    sent = layouts[0].sent_structs()
    if len(sent) > 1:
        names = ", ".join(sorted(found.name for found in sent))
        raise UsageError(
            f"{source} sends structs of several types: {names}; without YAML it can send only one",
            "docs/writing-gadgets.md explains how to write a gadget with YAML",
        )
    prints = layouts[0].prints()
    if not sent and not prints:
        raise UsageError(
            f"{source} prints nothing and sends nothing", 'bpf_printk("...", ...), or a struct through a ring buffer'
        )
    value = {
        "command": f"run {source.name}",
        "group": "own",
        "summary": f"What {source.name} {'sends' if sent else 'prints'}",
        "record": "printed_line",
        "whole_nodes": True,
        "columns": [*_WHO, *(_columns(sent[0]) if sent else [_MESSAGE])],
        "examples": [{"command": f"kubectl gadget run {source}", "description": "on all nodes"}],
    }
    if sent and prints:
        raise UsageError(
            f"{source} sends {sent[0].name} and prints with bpf_printk: without YAML it can do only one of them",
            "remove one of them, or write a YAML (docs/writing-gadgets.md)",
        )
    read = describe(source, name, json.dumps(value))
    records = [layout.sent_record(found) for layout in layouts for found in layout.sent_structs()]
    return join(read, str(source), layouts, records[:1] and records)


_MESSAGE: dict[str, object] = {
    "name": "message",
    "description": "the line that bpf_printk() printed",
    "width": 40,
    "stretch": True,
}


def _columns(sent: SentStruct) -> list[dict[str, object]]:
    """One column for each field of the struct, in the format that its type suggests."""
    columns = []
    for field in sent.fields:
        is_text = field.type.startswith("char[")
        columns.append(
            {
                "name": field.name,
                "description": f"{field.name} of struct {sent.name}, {field.type}",
                "width": min(30, field.size) if is_text else 10,
                "align": "left" if is_text or field.values else "right",
            }
        )
    return columns


# A user's own gadget: a folder with NAME.yaml and NAME.bpf.c, which is built into its subfolder `built`.


def load_own(path: Path) -> tuple[Gadget, Path]:
    """The gadget in the folder or file `path`, and the directory to pass to object_bytes.

    Compiles it for both architectures when clang is installed and something changed. Raises UsageError when `path` is
    not a gadget, does not compile, or would have to be compiled without clang.
    """
    if is_single_file(path):
        return load_single_file(path)
    description = _description(path)
    name = description.stem
    built = description.parent / "built"
    source = description.parent / f"{name}.bpf.c"
    if source.is_file() and find_clang() is not None:
        _build(description, source, built)
    elif not schema_path(built, name).is_file():
        if source.is_file():
            raise UsageError(f"{path} was not built, and there is no clang to build it", INSTALL)
        raise UsageError(f"{path}: its program {source.name} is missing")
    return read_gadget(schema_path(built, name)), built


def _build(description: Path, source: Path, built: Path) -> None:
    try:
        built.mkdir(exist_ok=True)
        build_gadget(description, source, built, ARCHITECTURES, Inputs(built))
    except OSError as error:
        raise UsageError(f"{description} cannot be built into {built}: {error.strerror}") from None


def _description(path: Path) -> Path:
    if path.is_file():
        if path.suffix == ".c":
            path = path.parent / f"{path.name.removesuffix('.c').removesuffix('.bpf')}.yaml"
        if path.suffix not in (".yaml", ".yml"):
            raise UsageError(f"{path} is not a gadget; expected a directory, a C file or a YAML file")
        return path
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or directory")
    found = sorted(path.glob("*.yaml"))
    if len(found) != 1:
        names = ", ".join(item.name for item in found) or "none"
        raise UsageError(f"{path}: expected one YAML file, found {names}", f"kubectl gadget run {path}/NAME.yaml")
    return found[0]
