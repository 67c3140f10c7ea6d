"""Finds the modules and objects that an agent consists of, by following its imports. Only the standard library is used.

All modules in kubectl_gadget/agent belong to it, since some are imported by name at run time. The trap: imports inside
functions count, since the agent imports late to stay small; imports for type checkers only do not.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kubectl_gadget.errors import GadgetError

_PACKAGE = "kubectl_gadget"
TEXTS = ("bootstrap.py", "unpacking.py")
"""Files of the agent that are run as text (pack_payload.py) and never imported."""
_OWN_OBJECTS = ("own_elf", "own_program")
"""The functions that load the agent's own objects by name (agent/bpf/own_objects.py)."""


class AgentParts(NamedTuple):
    """Sorted paths and names, relative to kubectl_gadget."""

    modules: tuple[str, ...]
    """paths such as agent/session/session.py"""
    objects: tuple[str, ...]
    """names of the agent's own BPF objects"""


def find(package: Path) -> AgentParts:
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
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        objects |= set(_objects(tree))
        for wanted in _imports(tree):
            first = wanted.partition(".")[0]
            if first != _PACKAGE and first not in sys.stdlib_module_names:
                raise GadgetError(f"{path} imports {wanted}, but the agent may import only the standard library")
            if first == _PACKAGE:
                queue += [wanted, *(wanted.rsplit(".", level)[0] for level in range(1, wanted.count(".") + 1))]
    modules = sorted(path.relative_to(package).as_posix() for path in found.values())
    return AgentParts(tuple(modules), tuple(sorted(objects)))


def _file(package: Path, name: str) -> Path | None:
    """The file of a module or a package; None when the name is that of a member of a module."""
    place = package.parent.joinpath(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names of imported modules, or of their members."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "relative imports are not used here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node)


def _objects(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _OWN_OBJECTS:
            continue
        if isinstance(name := node.args[0], ast.Constant):
            yield str(name.value)
