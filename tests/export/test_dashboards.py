"""Grafana's dashboards of docs/export/grafana: each question is about metrics and labels that are served."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.export.receivers import unused_port
from tests.export.test_prometheus import CLIENT, answered, got, opens, samples, served
from tests.gadget_run import PROJECT
from tests.page.made import batch, recording
from tests.waiting import wait_until

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("catalogue_built")]

DASHBOARDS = sorted((PROJECT / "docs" / "export" / "grafana").glob("*.json"))
_SELECTED = re.compile(r"\b(kubectl_gadget_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")


@pytest.fixture(scope="module", name="known")
def what_is_served(tmp_path_factory: pytest.TempPathFactory, catalogue_built: Path) -> dict[str, set[str]]:
    """The labels of each metric of events, of flows and of other targets."""
    assert catalogue_built
    found: dict[str, set[str]] = {}

    def add(text: str) -> None:
        for name, series in samples(text).items():
            found.setdefault(name, set()).update(*(labels for labels, _ in series))

    with served("trace_open", "trace_http") as (export, port):
        export.write(opens(2))
        export.write(type(opens(1))([batch("trace_http", [answered(3)])]))
        add(got(port)[1])
    folder = tmp_path_factory.mktemp("flows")
    path, port, nobody = recording(folder / "shop.kgr"), unused_port(), unused_port()
    words = ["replay", str(path), "flows", "--export", f"prometheus={port}"]
    words += ["--export", f"syslog=udp://127.0.0.1:{nobody}"]
    with subprocess.Popen([*CLIENT, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        wait_until(lambda: "replay finished" in process.stderr.readline(), over=lambda: process.poll() is not None)
        add(got(port)[1])
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    found.setdefault("kubectl_gadget_export_lost_total", set()).update(("target", "what", "cause"))
    return found


def questions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield title and expression of all panels."""
    for panel in json.loads(path.read_text())["panels"]:
        for one in panel["targets"]:
            yield panel["title"], one["expr"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_each_question_is_about_what_is_served(path: Path, known: dict[str, set[str]]) -> None:
    asked = list(questions(path))
    assert asked
    for title, expression in asked:
        named = _SELECTED.findall(expression)
        assert named, f"{title}: {expression}"
        labels = set[str]()
        for name, selected in named:
            assert name in known, f"{title}: nothing serves {name}"
            assert set(_LABEL.findall(selected)) <= known[name], f"{title}: {name} has the labels {known[name]}"
            labels |= known[name]
        for grouped in _GROUPED.findall(expression):
            assert {name.strip() for name in grouped.split(",")} <= labels, f"{title}: {expression}"


def test_dashboards_are_told_apart_and_use_any_data_source() -> None:
    found: list[dict[str, Any]] = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert [path.stem for path in DASHBOARDS] == ["events", "flows", "latency", "security"]
    assert len({one["uid"] for one in found}) == len(found)
    for one in found:
        assert {panel["datasource"]["uid"] for panel in one["panels"]} == {"${datasource}"}
        assert len({panel["id"] for panel in one["panels"]}) == len(one["panels"])
        for variable in one["templating"]["list"]:
            if variable["type"] == "query":
                assert re.match(r"label_values\(kubectl_gadget_\w+, \w+\)", variable["definition"])
