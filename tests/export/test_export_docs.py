"""The pages of docs/export: their index, and what can be tried here."""

import re
import shlex
from pathlib import Path

import duckdb
import pytest

from kubectl_gadget.cli.values import exports
from tests.export.test_run import run
from tests.gadget_run import PROJECT
from tests.page.made import recording

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("catalogue_built")]

FOLDER = PROJECT / "docs" / "export"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


def test_each_page_is_in_the_index_and_says_what_was_run() -> None:
    index = (FOLDER / "README.md").read_text()
    assert sorted(set(re.findall(r"\]\(([a-z-]+\.md)\)", index))) == [path.name for path in PAGES]
    for path in PAGES:
        assert "\n## What was run\n" in path.read_text(), path.name
    linked = "".join(path.read_text() for path in PAGES)
    for path in (*FOLDER.glob("*.sql"), *FOLDER.glob("*/*.json")):
        assert f"({path.relative_to(FOLDER)})" in linked


def test_the_targets_of_all_commands_are_accepted() -> None:
    found = [
        word
        for path in PAGES
        for line in re.findall(r"^    \$ .*kubectl gadget (.*)$", path.read_text(), re.MULTILINE)
        for before, word in zip(["", *shlex.split(line)], shlex.split(line), strict=False)
        if before in ("--export", "--to")
    ]
    assert len(found) > 5
    assert exports([one for one in found if not one.startswith("jsonl=-")])


def test_duckdb_reads_what_a_run_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recording(tmp_path / "shop.kgr")
    code, _, said = run(capsys, "replay", str(path), "trace", "open+process", "--export", "jsonl=rows.jsonl")
    assert code in (0, 1), said  # the recording has a gap
    with duckdb.connect() as database:
        *_, answer = database.execute((FOLDER / "duckdb.sql").read_text()).fetchall()
        counts = database.sql("SELECT event, count(*) FROM events GROUP BY event ORDER BY event").fetchall()
        first = database.sql("SELECT min(timestamp)::VARCHAR FROM events").fetchall()
    assert answer
    assert counts == [("open", 42), ("process", 6)]
    assert first[0][0].startswith("2026-09-21 14:13:2")
