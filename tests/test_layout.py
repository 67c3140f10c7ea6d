"""A name has one meaning in kubectl_gadget/, and folders and modules are small enough to look over."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1] / "kubectl_gadget"
MODULES = [path for path in ROOT.rglob("*.py") if ROOT / "built" not in path.parents]
SAME_CONCEPT = {"Library", "ProgramChoice"}
"""Classes that exist twice: as a gadget describes it, and as the client sends it to the agent."""
MOST_MODULES = 16
MOST_LINES = 400


def test_a_module_name_stands_for_one_module() -> None:
    named = defaultdict(list)
    for path in MODULES:
        named[path.name].append(path.relative_to(ROOT).as_posix())
    assert [
        paths for name, paths in named.items() if len(paths) > 1 and name not in ("__init__.py", "__main__.py")
    ] == []


def test_a_public_class_name_stands_for_one_class() -> None:
    named = defaultdict(list)
    for path in MODULES:
        for name in re.findall(r"^class ([^_]\w*)", path.read_text(), re.MULTILINE):
            named[name].append(path.relative_to(ROOT).as_posix())
    assert [(name, paths) for name, paths in named.items() if len(paths) > 1 and name not in SAME_CONCEPT] == []


def test_a_folder_has_few_modules() -> None:
    counts: defaultdict[Path, int] = defaultdict(int)
    for path in MODULES:
        counts[path.parent] += 1
    assert {path.relative_to(ROOT).as_posix(): count for path, count in counts.items() if count > MOST_MODULES} == {}


def test_a_long_module_says_at_its_head_why_it_is_long() -> None:
    long = [path for path in MODULES if len(path.read_text().splitlines()) > MOST_LINES]
    heads = {path.relative_to(ROOT).as_posix(): ast.get_docstring(ast.parse(path.read_text())) or "" for path in long}
    assert [name for name, head in heads.items() if "module is long" not in " ".join(head.split())] == []
