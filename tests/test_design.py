"""Statements about files in docs/design.md and its pages are true."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAP = ROOT / "docs" / "design.md"
PAGES = (MAP, *sorted((ROOT / "docs" / "design").glob("*.md")))
FOLDERS = ("", "kubectl_gadget", "kubectl_gadget/agent", "bpf", "bpf/include", "docs", "docs/design")
"""Folders that paths in the pages may be relative to."""
_FILE = re.compile(r"(?<![\w/])[\w./-]+\.(?:py|c|h|md)\b")
_MOST_STEPS = 20


def exists(name: str) -> bool:
    return any((ROOT / folder / name).is_file() for folder in FOLDERS)


def test_every_file_that_a_page_names_exists() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in _FILE.findall(page.read_text())
        if "NAME" not in name and not exists(name)
    ]
    assert not missing


def test_the_two_walks_name_one_file_for_each_step_and_none_twice() -> None:
    walks = re.findall(r"^## Walk .*?(?=^## )", MAP.read_text(), re.MULTILINE | re.DOTALL)
    assert len(walks) == 2
    for walk in walks:
        steps = re.findall(r"^\| (\d+) \| [^|]+ \| `([^`]+)`", walk, re.MULTILINE)
        assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
        assert 10 < len(steps) <= _MOST_STEPS
        assert len({file for _, file in steps}) == len(steps)


def test_the_map_leads_to_every_page() -> None:
    text = MAP.read_text()
    assert [page.name for page in PAGES[1:] if f"(design/{page.name})" not in text] == []
    assert len(text) < 16000, "three pages: the rest belongs in docs/design/"


def test_the_table_of_packages_has_their_layers_and_imports() -> None:
    rows = re.findall(r"^\| `(\w+)/` \| [^|]+ \| ([^|]+) \|$", MAP.read_text(), re.MULTILINE)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [name for layer in contracts[0]["layers"] for name in re.findall(r"\w+", layer)]
    packages = [name for name in layers if (ROOT / "kubectl_gadget" / name).is_dir()]
    imported = {name: set(imports(ROOT / "kubectl_gadget" / name)) - {name} for name in packages}
    assert rows == [
        (name, ", ".join(other for other in packages if other in imported[name]) or "none") for name in packages
    ]


def imports(folder: Path) -> Iterator[str]:
    """Returns the packages of kubectl_gadget that modules in `folder` import when they run."""
    for file in folder.rglob("*.py"):
        waiting: list[ast.AST] = [ast.parse(file.read_text())]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                continue
            if isinstance(node, ast.ImportFrom) and node.module == "kubectl_gadget":
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from re.findall(r"^kubectl_gadget\.(\w+)", node.module or "")
            elif isinstance(node, ast.Import):
                yield from (name for alias in node.names for name in re.findall(r"^kubectl_gadget\.(\w+)", alias.name))
            waiting += (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))


def test_imports_for_types_alone_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        "from kubectl_gadget import a, b\nimport kubectl_gadget.c.d\n\nif TYPE_CHECKING:\n"
        "    from kubectl_gadget.e import f\n\n    import kubectl_gadget.g\n\n\ndef h():\n"
        "    from kubectl_gadget.i import (\n        j,\n    )\n    from kubectl_gadget import (\n        k,\n    )\n"
    )
    assert sorted(imports(tmp_path)) == ["a", "b", "c", "i", "k"]
