"""Builds the agent that is sent to nodes: for each architecture a zip of its modules, some of them also compiled,
its objects and libbpf for both C libraries (pack_libbpf.py).

The zip is preceded by the text that makes it importable (agent/pod/unpacking.py); readers of zips start at the end.
Nothing in it is compressed, but the whole is, with xz: that takes a quarter less than compressing each file. What all
architectures have in common comes first, as an xz stream of its own, so that the wheel has it once.

    BUILT/payload/common.xz           what is sent first; equal sources and packages give equal bytes
    BUILT/payload/ARCHITECTURE.xz     what is sent after it
    BUILT/payload/index.json          the length of both, the hash of their content, and the texts that pods start with

A payload older than the agent's sources would run without any warning, so tests build it first, and one test
compares the two.
"""

import ast
import hashlib
import io
import json
import lzma
import marshal
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import MAGIC_NUMBER
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from kubectl_gadget import __version__
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets import pack_libbpf
from kubectl_gadget.gadgets.compiler import write, write_json
from kubectl_gadget.gadgets.load import ARCHITECTURES, BUILT

# The modules that each session of an agent imports are compiled here. On a node that would take 0.2 s of CPU time, and
# a pod on demand has only one session.

_IMPORTED = (
    "kubectl_gadget.agent.__main__",
    "kubectl_gadget.agent.bpf.kernel_types",
    "kubectl_gadget.agent.session.session",
    "kubectl_gadget.agent.sources.stream",
)
"""Modules that sessions import while they run, and all that these import."""
_PYC_HEAD = MAGIC_NUMBER + bytes([1, *bytes(11)])
"""Of a module that is used without being compared with its source: the payload's hash covers both."""
_PROGRAM = """
import importlib, marshal, os, sys
folder, *names = sys.argv[1:]
sys.path.insert(0, folder)
for name in names:
    importlib.import_module(name)
found = {}
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] == "kubectl_gadget":
        path = os.path.relpath(module.__file__, folder)
        with open(module.__file__, "rb") as file:
            found[path + "c"] = marshal.dumps(compile(file.read(), path, "exec", dont_inherit=True, optimize=2))
sys.stdout.buffer.write(marshal.dumps(found))
"""


def compiled_modules(package: Path) -> dict[str, bytes]:
    """Returns the files' contents by path, such as agent/session/session.pyc. `package` is the folder kubectl_gadget.
    Raises GadgetError when one cannot be imported."""
    words = [sys.executable, "-I", "-S", "-B", "-X", "no_debug_ranges", "-c", _PROGRAM, str(package.parent), *_IMPORTED]
    run = subprocess.run(words, capture_output=True, check=False)
    if run.returncode:
        raise GadgetError(f"the agent's modules cannot be compiled:\n{run.stderr.decode(errors='replace')}")
    found: dict[str, bytes] = marshal.loads(run.stdout)
    return {path.removeprefix(f"{package.name}/"): _PYC_HEAD + code for path, code in found.items()}


# The parts of an agent are found by following its imports. All modules in kubectl_gadget/agent belong to it, since
# some are imported by name at run time. Imports inside functions count, since the agent imports late to
# stay small; imports for type checkers only do not.
_PACKAGE = "kubectl_gadget"
TEXTS = ("bootstrap.py", "unpacking.py")
"""Files of the agent that are run as text and never imported."""
_OWN_OBJECTS = ("own_elf", "own_object", "own_program")
"""The functions that load the agent's own objects by name (agent/bpf/object.py)."""


class AgentParts(NamedTuple):
    """Sorted paths and names, relative to kubectl_gadget."""

    modules: tuple[str, ...]
    """paths such as agent/session/session.py; also the tables beside modules, wire/kernel_enums.txt"""
    objects: tuple[str, ...]
    """names of the agent's own BPF objects"""


def find_parts(package: Path) -> AgentParts:
    """The parts in `package`, which is the folder kubectl_gadget. Raises GadgetError when a module imports anything
    outside of kubectl_gadget and the standard library."""
    paths = [path for path in sorted((package / "agent").rglob("*.py")) if path.name not in TEXTS]
    queue = [f"{_PACKAGE}.agent", *(".".join(path.relative_to(package.parent).with_suffix("").parts) for path in paths)]
    found: dict[str, Path] = {}
    objects: set[str] = set()
    while queue:
        name = queue.pop()
        path = _file(package, name)
        if path is None or name in found or path.name in TEXTS:
            continue
        found[name] = path
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
        if any(f"{function}(" in text for function in _OWN_OBJECTS):  # few do, and calls are looked for everywhere
            objects |= set(_objects(tree))
        for wanted in _imports(tree):
            first = wanted.partition(".")[0]
            if first != _PACKAGE and first not in sys.stdlib_module_names:
                raise GadgetError(f"{path} imports {wanted}, but the agent may import only the standard library")
            if first == _PACKAGE:
                queue += [wanted, *(wanted.rsplit(".", level)[0] for level in range(1, wanted.count(".") + 1))]
    tables = [table for path in found.values() if (table := path.with_suffix(".txt")).is_file()]
    modules = sorted(path.relative_to(package).as_posix() for path in (*found.values(), *tables))
    return AgentParts(tuple(modules), tuple(sorted(objects)))


def _file(package: Path, name: str) -> Path | None:
    """The file of a module or a package; None when the name is a member of a module."""
    place = package.parent.joinpath(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of imported modules, or of their members."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "relative imports are not used here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not isinstance(node, ast.expr):  # which has no statements
            yield from _imports(node)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but expressions, which have no statements in them."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.expr):
            yield node
            yield from _statements(node)


def _objects(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _OWN_OBJECTS:
            continue
        if isinstance(name := node.args[0], ast.Constant):
            yield str(name.value)


_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip can hold."""
_HEAD = "agent/pod/unpacking.py"
COMMON = "common.xz"
_UNION = "__import__('typing').Union"
_ON_DEMAND = ("agent/pod/presence.py", "agent/pod/on_demand_main.py")
"""Modules of an on-demand pod's main process; the last one is run."""


def build(package: Path = BUILT.parent, built: Path = BUILT, architectures: Sequence[str] = ARCHITECTURES) -> Path:
    """Builds the payloads of the agent in `package`, and their index, whose path it returns. Raises GadgetError."""
    parts = find_parts(package)
    folder = built / "payload"
    payloads = {}
    common = b""
    modules = {path: for_nodes(package / path) for path in parts.modules} | compiled_modules(package)
    libraries = pack_libbpf.build(package, built)
    for machine in architectures:
        zipped, own = _zipped(*_files(package, parts.objects, modules, built, machine, libraries))
        first = _compact(package / _HEAD).encode() + zipped
        if first != (common := common or first):
            raise GadgetError(f"the agent for {machine} has other modules than the one for {architectures[0]}")
        length = len(_packed(common, folder / COMMON)) + len(_packed(own, folder / f"{machine}.xz"))
        payloads[machine] = {"bytes": length, "sha256": hashlib.sha256(common + own).hexdigest()}
    index = {
        "version": __version__,
        "payloads": payloads,
        "modules": parts.modules,
        "objects": parts.objects,
        **texts(package),
    }
    write_json(folder / "index.json", index)
    for path in folder.iterdir():  # what an earlier version has made would be packed into the wheel
        if path.name not in _names(architectures):
            path.unlink()
    return folder / "index.json"


def texts(package: Path = BUILT.parent) -> dict[str, str]:
    """The programs that pods start with: one for a session, one for the main process of an on-demand pod."""
    return {
        "bootstrap": _compact(package / "agent" / "pod" / "bootstrap.py"),
        "on_demand": _bundled(package),
    }


def is_built(built: Path) -> bool:
    """True if there is a payload for each architecture."""
    return all((built / "payload" / name).is_file() for name in _names(ARCHITECTURES))


def _names(architectures: Sequence[str]) -> list[str]:
    return ["index.json", COMMON, *(f"{machine}.xz" for machine in architectures)]


def _files(
    package: Path, objects: Sequence[str], modules: dict[str, bytes], built: Path, machine: str, libraries: Path
) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
    """The content of the zip, by path: what all architectures have in common, and what is of this one."""
    common = modules | {"built/contained.json": (built / "contained.json").read_bytes()}
    own_licences = (package.parent / path for path in ("LICENSE", "bpf/LICENSE"))
    common["licences/kubectl-gadget"] = b"\n".join(path.read_bytes() for path in own_licences)
    own = {}
    for name in objects:
        own[f"built/objects/{machine}/{name}.bpf.o"] = (built / "objects" / machine / f"{name}.bpf.o").read_bytes()
    for libc in pack_libbpf.LIBCS:
        path = pack_libbpf.libbpf_path(machine, libc)
        own[f"built/libraries/{path}"] = (libraries / path).read_bytes()
    sources = json.loads((libraries / "libraries.json").read_bytes())["sources"]
    for source in sources:
        common[f"licences/{source['name']}"] = (libraries / f"{source['name']}.licence").read_bytes()
    manifest: dict[str, object] = {"version": __version__, "architecture": machine, "libraries": sources}
    manifest["files"] = {path: hashlib.sha256(data).hexdigest() for path, data in sorted((common | own).items())}
    own["built/libraries/manifest.json"] = (json.dumps(manifest, indent=1) + "\n").encode()
    return common, own


def _packed(data: bytes, path: Path) -> bytes:
    """Compresses data to a file, unless it contains them already: that takes a second. Returns the file's content."""
    try:
        packed = path.read_bytes()
        if lzma.decompress(packed) == data:
            return packed
    except (OSError, lzma.LZMAError):
        pass
    packed = lzma.compress(data, preset=9)
    write(path, packed)
    return packed


def _zipped(first: Mapping[str, bytes], second: Mapping[str, bytes]) -> tuple[bytes, bytes]:
    """Returns a zip in two pieces; the first has only the first files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for files in (first, second):
            end = buffer.tell()
            for path, data in sorted(files.items()):
                info = zipfile.ZipInfo(f"kubectl_gadget/{path}", _DATE)
                info.create_system, info.external_attr = 3, 0o100644 << 16
                archive.writestr(info, data)
    return buffer.getvalue()[:end], buffer.getvalue()[end:]


class _Bare(ast.NodeTransformer):
    """Removes whatever a program does not need to run: annotations and docstrings."""

    def visit(self, node: ast.AST) -> Any:
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            node.body = [one for one in node.body if not _is_text(one)] or [ast.Pass()]
        return node


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _compact(path: Path) -> str:
    """A module's text without docstrings, comments and annotations, indented by one space per level."""
    lines = ast.unparse(_Bare().visit(ast.parse(path.read_text(encoding="utf-8")))).splitlines()
    shorter = (" " * ((len(line) - len(line.lstrip())) // 4) + line.lstrip() for line in lines if line.strip())
    return "\n".join(shorter) + "\n"


def for_nodes(path: Path) -> bytes:
    """A file's content. A module's docstrings are empty, its functions have no annotations, and the rest is valid in
    Python 3.9: types have `Union[X, Y]` for `X | Y`, and zip() has no `strict`. Every line keeps its number, for
    tracebacks."""
    content = path.read_bytes()
    if path.suffix != ".py":
        return content
    tree = ast.parse(content)
    lines = content.split(b"\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    edits: list[tuple[int, int, str]] = []

    def span(node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    for node in _statements(tree):
        if isinstance(node, ast.Expr) and _is_text(node):
            edits.append((*span(node.value), '""'))
        elif isinstance(node, ast.FunctionDef):
            for argument in _arguments(node.args):
                if argument.annotation:
                    start = starts[argument.lineno - 1] + argument.col_offset + len(argument.arg.encode())
                    edits.append((start, span(argument.annotation)[1], ""))
            if node.returns:
                start, end = span(node.returns)
                edits.append((content.rindex(b"->", 0, start), end, ""))
        elif isinstance(node, ast.AnnAssign) or _is_alias(node):
            old = node.annotation if isinstance(node, ast.AnnAssign) else node.value
            new = ast.unparse(_Unions().visit(old))
            if _UNION in new:
                edits.append((*span(old), new))
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "zip" and call.keywords:
            edits.append((span(call.args[-1])[1], span(call.keywords[-1].value)[1], ""))
    for start, end, text in sorted(edits, reverse=True):
        kept = b"\n" * content.count(b"\n", start, end)
        content = content[:start] + text.encode() + kept + content[end:]
    return content


def _arguments(arguments: ast.arguments) -> Iterator[ast.arg]:
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    yield from (one for one in (arguments.vararg, arguments.kwarg) if one)


def _is_alias(node: ast.AST) -> TypeGuard[ast.Assign]:
    """True for `Name = X | Y`; numbers have names in capitals."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return False
    return bool(re.match("_?[A-Z][a-z]", node.targets[0].id))


class _Unions(ast.NodeTransformer):
    """Replaces `X | Y` in types."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        parts: list[ast.expr] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp) and isinstance(left.op, ast.BitOr):
            parts.insert(0, left.right)
            left = left.left
        if not parts:
            return node
        values = ast.Tuple([self.visit(one) for one in (left, *parts)], ast.Load())
        return ast.Subscript(ast.parse(_UNION, mode="eval").body, values, ast.Load())


def _bundled(package: Path) -> str:
    """The modules of _ON_DEMAND as one text, each as a module of its own name."""
    *others, last = _ON_DEMAND
    lines = ["import sys", "from types import ModuleType"]
    texts = {"kubectl_gadget": "", "kubectl_gadget.agent": "", "kubectl_gadget.agent.pod": ""}
    for path in others:
        texts["kubectl_gadget." + path.removesuffix(".py").replace("/", ".")] = _compact(package / path)
    for name, text in texts.items():
        lines += [f"sys.modules[{name!r}] = module = ModuleType({name!r})"]
        if text:
            lines += ['exec(r"""', text.rstrip(), '""", module.__dict__)']
    return "\n".join(lines) + "\n" + _compact(package / last)
