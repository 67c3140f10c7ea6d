"""The view model: numbers of a recording that are known, its limits, and what it says about what it leaves out."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.cli.run import write_page
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.kube.resources import SERVICES
from kubectl_gadget.page import html, run
from kubectl_gadget.page.live import LiveRun
from kubectl_gadget.page.model import RunModel, pruned, safe
from kubectl_gadget.page.tables import Entry, Histogram, Table
from kubectl_gadget.recording.places import PathOrUrl, places_of
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, Moment, Replay, RunOptions
from tests.diagnose.test_report import ill, made
from tests.page.made import (
    CONNECT,
    HOSTILE,
    SECOND,
    SECONDS,
    THIS,
    WALL,
    batch,
    opened,
    process,
    recording,
    shop,
    tcp,
)
from tests.reports.sample import HOSTILE as HOSTILE_OF_JOBS
from tests.reports.sample import report

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("catalogue_built")]


def of(*files: PathOrUrl) -> Replay:
    return Replay(files)


@pytest.fixture(scope="module", name="model")
def a_model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run.make(of(recording(tmp_path_factory.mktemp("page") / "shop.kgr")))


def test_the_timeline_has_every_row_at_its_time_and_what_is_missing(model: dict[str, Any]) -> None:
    line = model["timeline"]
    rows = {(each["kind"], each["pod"]): each["rows"] for each in line["series"]}
    assert rows == {
        ("open", "shop/cart-7d4b9c6f5-x2x7k"): 42,
        ("process", "shop/cart-7d4b9c6f5-x2x7k"): 6,
        ("tcp", "shop/cart-7d4b9c6f5-x2x7k"): 3,
        ("tcp", "shop/db-0"): 1,
    }
    assert {kind: sum(counts) for kind, counts in line["failed"].items()} == {"open": 1, "tcp": 1}
    (opens,) = (each["counts"] for each in line["series"] if each["kind"] == "open")
    per_second = round(1000 / line["step_ms"])
    assert sum(opens[5 * per_second : 9 * per_second]) == 41
    assert line["gaps"] == [{"node": "node-1", "from": 14000, "to": 16000, "cause": "the connection was lost"}]
    assert [mark["text"] for mark in line["marks"]] == [
        "shop/cart-7d4b9c6f5-x2x7k/app: its first process ended (SIGKILL)"
    ]
    assert model["seconds"] == pytest.approx(SECONDS, abs=0.2)


def test_the_verdict_is_inconclusive_when_events_are_missing(model: dict[str, Any]) -> None:
    assert model["verdict"]["status"] in ("inconclusive", "bad")
    said = " ".join(model["verdict"]["not_seen"])
    assert "7 events were lost" in said
    assert "2.0 s are missing" in said
    assert model["coverage"]["nodes"][0]["lost"] == {"ring buffer full": 7}
    assert model["coverage"]["sentence"].endswith("lost: 7 (ring buffer full 7)")


def test_processes_stand_below_what_started_them_with_what_they_did(model: dict[str, Any]) -> None:
    found = {one["pid"]: one for one in model["processes"]["list"]}
    cart, shell = found[10], found[11]
    assert (cart["command"], cart["end"], cart["parent"]) == ("/bin/cart --listen", "SIGKILL", None)
    assert (shell["command"], shell["end"], shell["parent"]) == ('/bin/sh -c "exit 3"', "exit 3", cart["id"])
    assert (cart["ended"], shell["began"], shell["ended"]) == (19000, 2000, 3000)
    assert cart["did"]["opened"] == {"seen": 4, "times": 40, "most": [[f"/data/{n}", 10] for n in range(4)]}
    assert cart["did"]["connected"]["times"] == 2
    assert shell["failed"] == 1
    assert found[12]["did"]["wrote"]["times"] == 1
    assert model["processes"]["failed"] == 2


def test_files_are_counted_by_workload_with_errors(model: dict[str, Any]) -> None:
    rows = {row[3]: row for row in model["files"]["rows"]}
    assert rows["/data/0"] == ["shop/cart-*", "cart", "open", "/data/0", "", 10, 0, 5000, 8600, None, None]
    assert rows["/etc/nope"][2:7] == ["open", "/etc/nope", "ENOENT", 1, 1]
    assert model["files"]["seen"] == len(rows) == 6


def test_the_map_has_the_connections_of_the_recording(model: dict[str, Any]) -> None:
    edges = {(edge["from"].rpartition("/")[2], edge["to"].rpartition("/")[2]): edge for edge in model["flows"]["edges"]}
    assert sum(edge["flows"] for edge in edges.values()) == 2
    assert sum(edge["failed"] for edge in edges.values()) == 1
    assert all("cart" in client for client, _ in edges)


def test_every_row_is_in_the_sample_of_a_small_recording(model: dict[str, Any]) -> None:
    kinds = {kind["kind"]: kind for kind in model["rows"]["kinds"]}
    assert {name: (kind["seen"], len(kind["rows"])) for name, kind in kinds.items()} == {
        "tcp": (4, 4),
        "open": (42, 42),
        "process": (6, 6),
    }
    assert sum(row[1] for row in kinds["open"]["rows"]) == 1
    assert kinds["open"]["columns"][-1] == "PATH"


def test_texts_of_the_model_cannot_change_a_terminal_or_the_direction_of_writing(model: dict[str, Any]) -> None:
    text = json.dumps(model, ensure_ascii=False)
    assert "\\x1b[31m\\\\u202e" in text.replace("\\\\x", "\\x")
    assert text.isprintable()
    assert safe("\udcff") == "\\xff"


def test_the_page_is_one_file_that_asks_nobody_for_anything(model: dict[str, Any]) -> None:
    page = html.render(model)
    assert HOSTILE[:20] not in page
    assert "'unsafe-inline'" not in page
    assert "default-src 'none'" in page
    assert page.count("<script") == page.count("</script>") == 4
    assert len(page) < 300_000


def test_a_million_names_of_one_workload_are_folded_and_counted_and_others_keep_theirs() -> None:
    table = Table(10, lambda key: (key[0].rpartition("/")[0] + "/…",))
    table.add("quiet", ("/etc/passwd",), Entry(1, 0, 5, 5))
    for number in range(1000):
        table.add("loud", (f"/tmp/{number % 50}/{number}",), Entry(1, 1, number, number))
    top = table.top(20)
    assert ("quiet", ("/etc/passwd",)) in [(workload, key) for workload, key, _ in top]
    assert sum(entry.count for _, _, entry in table.top(100)) == 1001
    assert table.folded == 990
    assert table.seen <= 1 + 10 + 5 + 1


def test_rows_above_the_limit_are_thinned_evenly_and_failures_stay() -> None:
    model = RunModel([load_gadget("trace_open")], 0, 100 * SECOND)
    rows = [opened(1, 1 + number / 101, f"/{number}", errno=2 if number % 1000 == 7 else 0) for number in range(10_000)]
    for start in range(0, len(rows), 1000):
        model.write(Rows([batch("trace_open", rows[start : start + 1000])]))
    (kind,) = model.document()["rows"]["kinds"]
    assert (kind["seen"], kind["failed"]) == (10_000, 10)
    assert sum(row[1] for row in kind["rows"]) == 10
    assert 1000 < len(kind["rows"]) <= 3000
    times = [row[0] for row in kind["rows"] if not row[1]]
    halves = sum(time < 50_000 for time in times)
    assert abs(halves - len(times) / 2) < len(times) / 20


def test_processes_that_no_gadget_reports_are_those_that_did_something() -> None:
    model = RunModel([load_gadget("trace_open")], 0, 10 * SECOND)
    model.write(Rows([batch("trace_open", [opened(5, 1, "/a"), opened(6, 2, "/b"), opened(5, 3, "/a")])]))
    found = {one["pid"]: one for one in model.document()["processes"]["list"]}
    assert found[5]["command"] == "(cart)"
    assert found[5]["did"]["opened"] == {"seen": 1, "times": 2, "most": [["/a", 2]]}


def test_latencies_of_dns_and_http_are_in_histograms() -> None:
    names = [
        {"timestamp": 1, "pid": 1, "comm": b"cart", "name": "db.shop", "latency": 1_000_000, "rcode": 0},
        {"timestamp": 2, "pid": 1, "comm": b"cart", "name": "nope.shop", "latency": 64_000_000, "rcode": 3},
    ]
    asked = [
        {"timestamp": 3, "pid": 1, "comm": b"cart", "method": "GET", "target": "/pay?card=1", "status": status}
        | {"latency": 2_000_000, "host": "shop"}
        for status in (200, 200, 503)
    ]
    model = RunModel([load_gadget("trace_dns"), load_gadget("trace_http")], 0, 10 * SECOND)
    model.write(Rows([batch("trace_dns", names), batch("trace_http", asked)]))
    found = model.document()
    assert found["dns"]["latency"]["count"] == 2
    assert 1_000_000 <= found["dns"]["latency"]["p50"] < 1_200_000
    assert {row[3]: row[7] for row in found["dns"]["rows"]} == {"db.shop": 0, "nope.shop": 1}
    requests = {row[5]: row for row in found["http"]["rows"]}
    assert (requests["200"][4], requests["200"][6], requests["503"][7]) == ("/pay", 2, 1)
    assert "card=1" not in json.dumps(found["http"])


def test_a_process_without_an_identity_does_not_end_the_report(tmp_path: Path) -> None:
    records = {"trace_tcp": [], "trace_process": [process("exec", 5, 1, 1, "/bin/x", exec_id=b"")]}
    model = run.make(of(recording(tmp_path / "odd.kgr", records)))
    assert [one["command"] for one in model["processes"]["list"]] == ["/bin/x"]


def test_a_histogram_has_quantiles_no_lower_than_the_values() -> None:
    histogram = Histogram()
    histogram.add(np.array([-1, *range(1, 101)]))
    found = histogram.document()
    assert found is not None
    assert (found["count"], found["without"], sum(found["counts"])) == (100, 1, 100)
    assert 50 <= found["p50"] <= 60
    assert 99 <= found["p99"] <= 119


def test_narrow_calls_are_left_out_and_counted() -> None:
    root = ["all", "place", 100, [["wide", "user", 90, [], ""], *[["x", "user", 1, [], ""] for _ in range(10)]], ""]
    kept, left_out = pruned(root, 3)
    assert ([child[0] for child in kept[3]], left_out) == (["wide"], 10)


def test_the_command_writes_a_page_and_its_model(tmp_path: Path) -> None:
    files = places_of([str(recording(tmp_path / "shop.kgr"))])
    write_page(of(*files), str(tmp_path / "shop.json"))
    model = json.loads((tmp_path / "shop.json").read_text())
    assert model["schema"] == "kubectl-gadget-report/v1"
    assert model["run"]["rows"] == 52


def test_the_command_writes_a_page_with_the_recordings_name_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    file = recording(tmp_path / "kept" / "shop.kgr")
    monkeypatch.chdir(tmp_path)
    assert main.run(["report", str(file)]) == 0
    assert capsys.readouterr().err.startswith("shop.html: ")
    assert "<title>" in (tmp_path / "shop.html").read_text()
    assert main.run(["report", str(tmp_path / "none.kgr")]) == 2
    assert "none.kgr" in capsys.readouterr().err


def test_a_page_has_the_gadgets_of_all_files(tmp_path: Path) -> None:
    records = shop()
    one = recording(tmp_path / "one.kgr", {"trace_process": records["trace_process"]})
    other = recording(tmp_path / "other.kgr", {name: records[name] for name in ("trace_open", "trace_tcp")})
    model = run.make(of(one, other))
    assert {each["kind"]: each["rows"] for each in model["run"]["gadgets"]} == {"process": 6, "open": 42, "tcp": 4}
    assert model["flows"]["edges"]


def test_the_timeline_begins_when_something_was_attached(tmp_path: Path) -> None:
    model = run.make(of(recording(tmp_path / "late.kgr", attached=WALL + 4 * SECOND)))
    assert model["began"].startswith("2026-09-21T14:13:24")
    assert model["seconds"] == pytest.approx(SECONDS - 4, abs=0.2)
    part = run.make(Replay((tmp_path / "late.kgr",), until=Moment(ago_ns=10 * SECOND)))
    assert part["seconds"] == pytest.approx(SECONDS - 14, abs=0.2)


def test_a_run_with_a_page_shows_its_rows_and_makes_the_page_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = recording(tmp_path / "shop.kgr"), tmp_path / "page.json"
    words = ["replay", str(file), "trace", "open", "--filter", "errno > 0", "-o", "json", "--report", f"html={page}"]
    assert main.run(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert json.loads(page.read_text())["run"]["gadgets"][0]["rows"] == 1


def test_a_page_of_a_diagnosis_has_its_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = recording(tmp_path / "shop.kgr"), tmp_path / "page.html"
    assert main.run(["replay", str(file), "diagnose", "-o", "json", "--report", f"html={page}"]) == 0
    missing = json.loads(capsys.readouterr().out)["not_seen"]
    text = page.read_text()
    assert missing
    assert all(reason in text for reason in missing)
    assert main.run(["replay", str(file), "diagnose", "-o", "html"]) == 0
    assert capsys.readouterr().out == text


def test_what_a_live_diagnosis_found_is_not_looked_for_again(tmp_path: Path) -> None:
    said = made(*ill().findings)
    model = run.make(of(recording(tmp_path / "shop.kgr")), said=said)
    assert [each["message"] for each in model["findings"]["list"]] == [each.message for each in said.findings]
    assert model["verdict"]["status"] == "bad"
    assert model["run"]["rows"] == 52


def test_a_page_of_a_job_has_its_checks_findings_and_rows(tmp_path: Path) -> None:
    file = recording(tmp_path / "shop.kgr")
    words = ["ci", "judge", str(file), "--fail-on", "errno == 2", "--report", f"html={tmp_path / 'page.html'}"]
    assert main.run(words) == 4
    text = (tmp_path / "page.html").read_text()
    model = json.loads(text.partition('id="model">')[2].partition("</script>")[0])
    assert (model["verdict"]["status"], model["verdict"]["answer"]) == ("bad", "1 finding")
    assert [row[:2] for row in model["checks"]] == [["findings", "fail-on"]]
    assert [each["level"] for each in model["findings"]["list"]] == ["error"]
    assert model["timeline"]["series"]


def test_a_job_without_a_recording_has_a_page_of_its_report() -> None:
    text = html.render(run.bare(report()))
    assert "##[" not in text
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]
    model = json.loads(text.partition('id="model">')[2].partition("</script>")[0])
    assert len(model["findings"]["list"]) == 2 * len(HOSTILE_OF_JOBS)
    assert model["verdict"]["status"] == "bad"
    assert text.count("</script>") == 4


def test_the_live_page_finds_what_the_report_of_its_recording_finds(tmp_path: Path) -> None:
    metadata = {"namespace": "shop", "name": "web", "uid": "web"}
    service = {"metadata": metadata, "spec": {"clusterIP": "10.9.0.1", "ports": [{"port": 80}]}}
    ends = (("10.1.0.2", 40000), ("10.9.0.1", 81))
    row = tcp(CONNECT, 7, ends, initiator=THIS, errno=110, pid=10, comm=b"cart")
    change = {"kinds": {SERVICES.plural: {"put": [service], "gone": []}}}
    saved = recording(tmp_path / "run.kgr", {"trace_tcp": [row]}, objects=[change])
    report = run.make(of(saved))
    live = LiveRun(RunOptions((GadgetRun(load_gadget("trace_tcp")),)), of(saved), Progress(io.StringIO()))
    for follower in live.followers:
        commit = follower.take({SERVICES: [service]} | {kind: [] for kind in follower.resources if kind != SERVICES})
        assert commit is not None
        commit()
    live.write(Rows([batch("trace_tcp", [row])]))
    shown = json.loads(live.all())["model"]
    found, expected = ([(one["level"], one["message"]) for one in each["findings"]["list"]] for each in (shown, report))
    assert "connects to port 81 of service web, which has port 80 only" in expected[0][1]
    assert found == expected
    assert shown["verdict"]["answer"] == report["verdict"]["answer"]
    assert any("has no events of" in text for text in shown["verdict"]["not_seen"])


def test_ends_that_two_gadgets_report_are_of_one_process() -> None:
    gadgets = [load_gadget(name) for name in ("trace_exit", "trace_process")]
    model = RunModel(gadgets, WALL, WALL + 10 * SECOND)
    ends = {"timestamp": 2, "pid": 12, "comm": b"sh", "code": 3}
    rows = [process("exec", 12, 1, 1, "/bin/sh"), process("exit", 12, 1, 2, code=3), process("fork", 13, 7, 2)]
    model.write(Rows([batch("trace_exit", [ends]), batch("trace_process", rows)]))
    listed = model.document()["processes"]["list"]
    assert [(one["command"], one["end"]) for one in listed] == [("/bin/sh", "exit 3"), ("(sh)", "")]
