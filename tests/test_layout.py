"""The modules of kubectl_gadget/ import each other in one direction only."""

import ast
from collections.abc import Collection
from graphlib import TopologicalSorter
from pathlib import Path

from tests.gadget_run import PROJECT

BUILT = PROJECT / "kubectl_gadget/built"


NAMED = {("kubectl_gadget.cli.settings", "kubectl_gadget.cli.settings_file")}
"""Imports that close a circle: the configuration file names commands, and commands read their settings."""


def _imported(path: Path, modules: Collection[str]) -> set[str]:
    """Return the modules that one imports when it is loaded and in its functions, but not for types alone."""
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in inner}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        else:
            nodes += ast.iter_child_nodes(node)
    return names & set(modules)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    paths = [path for path in (PROJECT / "kubectl_gadget").rglob("*.py") if BUILT not in path.parents]
    modules = {".".join(path.relative_to(PROJECT).with_suffix("").parts): path for path in paths}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    assert len(modules) > 100
    graph = {name: _imported(path, modules) - {name} for name, path in modules.items()}
    for importer, imported in NAMED:
        graph[importer].remove(imported)
    TopologicalSorter(graph).prepare()
