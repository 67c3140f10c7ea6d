"""The reference in docs/ that is made from the gadgets and the command line."""

from pathlib import Path

import pytest

from docs import reference, rules
from kubectl_gadget.gadgets import GadgetSummary
from tests.cli.sample_gadgets import TRACE_OPEN


def test_the_pages_in_docs_are_fresh(built_in: list[GadgetSummary]) -> None:
    assert built_in
    assert reference.stale() == [], "try: python -m docs.reference"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rules, "pages", dict)  # the rules of diagnose need gadgets that are no samples
    reference.write(tmp_path)
    return tmp_path


def test_what_was_written_is_fresh(folder: Path) -> None:
    assert reference.stale(folder) == []


def test_a_page_that_was_changed_is_stale_and_written_again(folder: Path) -> None:
    page = folder / "flags.md"
    page.write_text(page.read_text() + "x")
    assert reference.stale(folder) == ["flags.md"]
    reference.write(folder)
    assert reference.stale(folder) == []


def test_a_page_of_a_gadget_that_is_gone_is_removed(folder: Path) -> None:
    (folder / "gadgets" / "gone.md").write_text("")
    assert reference.stale(folder) == ["gadgets/gone.md"]
    reference.write(folder)
    assert not (folder / "gadgets" / "gone.md").exists()


def test_a_rules_page_has_what_it_says_and_what_explains_it(built_in: list[GadgetSummary]) -> None:
    assert built_in
    pages = rules.pages()
    assert "[connection-refused](connection-refused.md) | warning | proven |" in pages["diagnose/README.md"]
    page = pages["diagnose/connection-refused.md"]
    for text in ("- [listens-on-loopback](listens-on-loopback.md)", "## It is not a finding", "{self"):
        assert (text in page) != text.startswith("{")


def test_a_gadgets_page_has_every_flag_column_member_and_example(folder: Path) -> None:
    text = (folder / "gadgets" / "trace_open.md").read_text()
    shared = (folder / "columns.md").read_text()
    for item in TRACE_OPEN.parameters:
        assert f"`--{item.name}" in text
    for column in TRACE_OPEN.columns:
        row = f"| `{column.name}` | {column.title} |"
        assert (row in text) != (row in shared)
        assert f"`{column.name}`" in text
    for example in TRACE_OPEN.about.examples:
        assert example.command in text


def test_a_page_of_tables_has_their_flags(folder: Path) -> None:
    text = (folder / "gadgets" / "top_file.md").read_text()
    for flag in ("--sort NAMES", "--interval TIME", "--once"):
        assert text.count(f"| `{flag}` | ") == 1


def test_the_page_of_flags_explains_each_once(folder: Path) -> None:
    text = (folder / "flags.md").read_text()
    for flag in ("-n, --namespace NAME", "--fail-on EXPR", "--ring-size SIZE", "--as-group GROUP", "-q, --quiet"):
        assert text.count(f"| `{flag}` | ") == 1


def test_a_page_has_the_units_of_members_and_the_values_of_flags(built_in: list[GadgetSummary]) -> None:
    assert built_in
    pages = reference.pages()
    mounts = pages["gadgets/trace_mount.md"]
    assert " | `latency` number (nanoseconds) |" in mounts
    assert " | `timestamp` string (RFC 3339, UTC) |" in pages["columns.md"]
    assert "such as umount or move_mount (one of `mount`, `umount`," in mounts
    assert "(one of " not in pages["gadgets/profile_fs.md"]
