"""The modules of kubectl_gadget/ import each other in one direction only."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from tests.gadget_run import PROJECT

BUILT = PROJECT / "kubectl_gadget/built"


def _imported_at_the_top(path: Path) -> set[str]:
    """Return the dotted names that a module imports when it is loaded."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    paths = [path for path in (PROJECT / "kubectl_gadget").rglob("*.py") if BUILT not in path.parents]
    modules = {".".join(path.relative_to(PROJECT).with_suffix("").parts): path for path in paths}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    assert len(modules) > 100
    graph = {name: _imported_at_the_top(path) & (modules.keys() - {name}) for name, path in modules.items()}
    TopologicalSorter(graph).prepare()
