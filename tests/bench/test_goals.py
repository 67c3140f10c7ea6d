"""The table of goals: made from what a run recorded, put between the markers of docs/performance.md."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import start
from bench.goal_list import GOALS, LONG, REFERENCE, Goal
from bench.goal_runs import GROUPS, Setting
from bench.goals import BEGINS, ENDS, in_order, measure_group, measured_before, put, section, table
from bench.versions import NOW, Version
from tests.gadget_run import PROJECT

PAGE = PROJECT / "docs" / "performance.md"
RECORDED: dict[str, Any] = {
    "machine": {
        "date": "2026-11-28T05:00+00:00",
        "kernel": "Linux 6.18",
        "cpus": 2,
        "memory": "24 GiB",
        "python": "3.13",
    },
    "results": {
        "flags": "--rounds 3",
        "commit": "12345678",
        "reference": "abcdef0",
        "groups": {
            "connections": {
                "values": {
                    "`flows`, added per TCP connection": {
                        "abcdef0": [23.0, 20.0, 30.0],
                        NOW: [5.75, 5.0, 6.5],
                        "libbpf-tools' tcplife": [6.5],
                    }
                },
                "failed": {},
                "load": 0.5,
                "other BPF": "0",
            },
            "stream": {
                "values": {"`flows`, added per 64 KiB of a stream": {NOW: [2.5]}},
                "failed": {"abcdef0": "it ended"},
                "load": 7.0,
                "other BPF": "12",
            },
            "real-cluster": {"values": {}, "failed": {"all": "$KUBECONFIG is not set"}, "load": 1.0, "other BPF": "0"},
        },
    },
}


def test_a_run_becomes_a_table() -> None:
    about, _, rows = section(RECORDED).partition("\n\n")
    assert about.startswith(
        "`python -m bench.goals --rounds 3`, 2026-11-28T05:00+00:00, commit 12345678, beside abcdef0:"
    )
    assert rows.splitlines() == [
        "| | abcdef0 | now | ratio | beside | goal | | load; other BPF |",
        "|---|---|---|---|---|---|---|---|",
        "| `flows`, added per TCP connection, µs | 23.00 (20.00 to 30.00) | 5.75 (5.00 to 6.50) | 0.25 | tcplife 6.50 "
        "| ≤ 6 (ratio 0.92 to tcplife) | met | 0.5; 0 |",
        "| `flows`, added per 64 KiB of a stream, µs | | 2.50 | | | ≤ 0.3 | **not met** | 7.0; 12 |",
        "| cluster of $KUBECONFIG: Enter to attached, s | | | | | ≤ 0.6 | not measured | 1.0; 0 |",
        "| cluster of $KUBECONFIG: Ctrl-C to the end, s | | | | | ≤ 0.2 | not measured | 1.0; 0 |",
        "",
        "- stream, abcdef0: not measured: it ended",
        "- real-cluster, all: not measured: $KUBECONFIG is not set",
    ]


def test_groups_of_another_run_of_the_same_commit_are_added_with_their_date(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    file.write_text(json.dumps(RECORDED))
    added = measured_before(file, "12345678", "abcdef0")
    groups = in_order({"help": RECORDED["results"]["groups"]["stream"]} | added)
    assert list(groups) == ["connections", "stream", "help", "real-cluster"]
    shown = section({**RECORDED, "results": {**RECORDED["results"], "groups": {"stream": added["stream"]}}})
    assert "Measured apart: stream, 2026-11-28T05:00+00:00." in shown
    with pytest.raises(SystemExit, match="was measured at commit 12345678 beside abcdef0, and not at 99 "):
        measured_before(file, "99", "abcdef0")


def test_a_busy_machine_is_said_and_less_than_nothing_is_noise() -> None:
    what = "`flows`, added per TCP connection"
    group = {"values": {what: {"abcdef0": [-2.0], NOW: [-1.0]}}, "failed": {}, "load": 9.0, "other BPF": "0"}
    shown = section({**RECORDED, "results": {**RECORDED["results"], "groups": {"connections": group}}})
    assert "**The machine was busy**, at a load of 9," in shown
    assert "| -2.00 | -1.00 | | | ≤ 6 (ratio 0.92 to tcplife) | within the noise |" in shown


@pytest.mark.parametrize(
    ("now", "before", "reference", "verdict"),
    [
        (0.2, 0.31, REFERENCE, "met"),
        (0.26, 0.62, REFERENCE, "met as a ratio"),
        (0.42, 0.62, REFERENCE, "**not met**"),
        (0.26, 0.62, "abcdef0", "**not met**"),
        (0.26, None, REFERENCE, "**not met**"),
    ],
)
def test_a_goal_is_a_ratio_on_a_slower_machine(now: float, before: float | None, reference: str, verdict: str) -> None:
    goal = Goal("attached", "s", most=0.2, then=0.31)
    assert goal.text() == "≤ 0.2 (ratio 0.65)"
    assert goal.verdict(now, before, reference) == verdict


@pytest.mark.parametrize(
    ("now", "tcplife", "verdict"), [(7.0, 8.0, "met as a ratio"), (7.0, 7.5, "**not met**"), (7.0, -1.0, "**not met**")]
)
def test_a_goal_that_was_set_beside_a_tool_is_a_ratio_to_that_tool(now: float, tcplife: float, verdict: str) -> None:
    what = "`flows`, added per TCP connection"
    values = {REFERENCE: [61.0], NOW: [now], "libbpf-tools' tcplife": [tcplife]}
    measured = {"values": {what: values}, "failed": {}, "load": 1.0, "other BPF": "0"}
    row = table({"connections": measured}, REFERENCE).splitlines()[2]
    assert f"| tcplife {tcplife:.2f} | ≤ 6 (ratio 0.92 to tcplife) | {verdict} |" in row


def test_a_rate_is_a_ratio_on_a_slower_machine() -> None:
    goal = Goal("rows/s", least=250_000, then=50_000)
    assert goal.text() == "≥ 250,000 (ratio 5.00)"
    assert goal.verdict(130_000, 25_000, REFERENCE) == "met as a ratio"
    assert goal.verdict(120_000, 25_000, REFERENCE) == "**not met**"


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGINS}\nold\n{ENDS}\nafter\n")
    for text in ("new", "newer"):
        put(page, text)
        assert page.read_text() == f"before\n{BEGINS}\n{text}\n{ENDS}\nafter\n"
    page.write_text("a page without markers\n")
    with pytest.raises(SystemExit, match="has no lines"):
        put(page, "new")


def test_the_page_has_the_markers_once() -> None:
    page = PAGE.read_text()
    assert page.count(BEGINS) == page.count(ENDS) == 1
    assert page.index(BEGINS) < page.index(ENDS)


def test_each_group_of_goals_is_measured() -> None:
    assert list(GOALS) == list(GROUPS)
    assert set(LONG) < set(GROUPS)
    every = [goal.what for goals in GOALS.values() for goal in goals]
    assert len(set(every)) == len(every)


def test_what_a_group_measures_is_what_it_has_goals_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the group that takes no time: help and completion, of the version that is installed here."""
    (tmp_path / "venv").symlink_to(sys.prefix)
    monkeypatch.setattr(start, "TIMES", 1)
    setting = Setting([Version(NOW, PROJECT, tmp_path)], rounds=2)
    measured = measure_group("help", setting)
    assert measured["failed"] == {}
    assert list(measured["values"]) == [goal.what for goal in GOALS["help"]]
    assert all(len(found[NOW]) == 2 and min(found[NOW]) > 0 for found in measured["values"].values())


def test_a_version_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    measured = measure_group("help", Setting([Version(NOW, PROJECT, tmp_path / "none")], rounds=2))
    assert measured["values"] == {}
    assert "No such file" in measured["failed"][NOW]
