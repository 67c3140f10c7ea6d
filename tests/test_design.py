"""Statements about files in docs/design.md and its pages are true."""

import re

from tests.gadget_run import PROJECT

MAP = PROJECT / "docs" / "design.md"
PAGES = (MAP, *sorted((PROJECT / "docs" / "design").glob("*.md")))
FOLDERS = ("", "kubectl_gadget", "kubectl_gadget/agent", "bpf", "bpf/include", "docs", "docs/design")
"""Folders that paths in the pages may be relative to."""
_FILE = re.compile(r"(?<![\w/])[\w./-]+\.(?:py|c|h|md)\b")
_MOST_STEPS = 20


def exists(name: str) -> bool:
    return any((PROJECT / folder / name).is_file() for folder in FOLDERS)


def test_every_file_that_a_page_names_exists() -> None:
    missing = [
        f"{page.relative_to(PROJECT)}: {name}"
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
