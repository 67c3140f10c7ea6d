"""The table of packages for docs/design/packages.md: the floors of pyproject.toml, each package's head and imports."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
_FLOORS = {
    "cli": "The command line, and the report of a run",
    "analysis": "Features: the run, the rows and the words of one capability",
    "recording": "The engine: it knows no feature",
    "agent": "Vocabulary and API: no knowledge of runs",
}
"""The floors, each by its first package in the layers of pyproject.toml."""


def floors() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield each floor's title, from top to bottom, and for each of its packages: name, contents, imports."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [name for layer in contracts[0]["layers"] for name in re.findall(r"\w+", layer)]
    packages = [name for name in layers if (ROOT / "kubectl_gadget" / name).is_dir()]
    graph = grimp.build_graph("kubectl_gadget", exclude_type_checking_imports=True, cache_dir=None)
    for module in graph.find_children("kubectl_gadget"):
        graph.squash_module(module)
    starts = [packages.index(name) for name in _FLOORS]
    for title, start, end in zip(_FLOORS.values(), starts, [*starts[1:], len(packages)], strict=True):
        rows = []
        for name in packages[start:end]:
            imported = graph.find_modules_directly_imported_by(f"kubectl_gadget.{name}")
            others = [other for other in packages if other != name and f"kubectl_gadget.{other}" in imported]
            rows.append((f"`{name}/`", _contents(name), ", ".join(others) or "none"))
        yield title, rows


def _contents(package: str) -> str:
    """Return the first sentence of the package's docstring."""
    text = ast.get_docstring(ast.parse((ROOT / "kubectl_gadget" / package / "__init__.py").read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())
