"""The report as people and programs read it."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema
import pytest

from kubectl_gadget.diagnose import report
from kubectl_gadget.diagnose.findings import Found
from kubectl_gadget.diagnose.search import Report
from kubectl_gadget.reports.files import rendered
from kubectl_gadget.reports.model import Severity, Status
from kubectl_gadget.run.coverage import Cause, Coverage, NodeCoverage
from tests.diagnose.seen import NOW, Seen, connect, endpoints, pod, service

WEB, DB = "web-5d4f8c9b7c-x2x7k", "db-7d4b9c6f58-kk2bz"
NS = round(NOW * 1e9)
NODE = NodeCoverage(name="node-1", selected_ns=NS, attached_ns=NS, until_ns=NS + 30_000_000_000)
TRACED = Coverage(complete_ns=NS, ended_ns=NS + 30_000_000_000, nodes=(NODE,), gadgets=("tcp",))


def made(*findings: Found, unseen: tuple[str, ...] = (), coverage: Coverage = TRACED, agents: bool = True) -> Report:
    pods = (("shop", DB), ("shop", WEB))
    shown = tuple(each.finding() for each in findings)
    return Report(shown, coverage, pods, 94, 30.0, ("tcp",), 30, unseen, not agents)


def ill() -> Seen:
    seen = Seen(
        pods=[pod(WEB, "10.1.0.1", {"app": "web"}), pod(DB, "10.1.0.2", {"app": "db"})],
        services=[service("db", "10.9.0.1", 5432, 5432, app="db")],
        endpointslices=[endpoints("db", ["10.1.0.2"])],
    )
    return seen.row(WEB, "trace_tcp", connect("10.9.0.1", 5432), 9).listens(DB, ("127.0.0.1", 5432))


def test_a_finding_says_who_what_why_and_what_to_do() -> None:
    lines = list(report.text(made(*ill().findings), color=False, width=100))
    assert lines[0].startswith("ERROR  deploy/db listens on the loopback address only at port 5432: deploy/web")
    fields = [line.split(":")[0].strip() for line in lines if line.startswith("  ") and line[2] != " "]
    assert fields == ["who", "seen", "cause", "do", "more", "explains"]
    assert "9 times" in "\n".join(lines)
    assert lines[-1] == "1 cause (1 error); looked at: 2 pods, 1 node, 30 s, 94 events, 1 gadget, 30 rules"
    assert all(len(line) <= 100 for line in lines)


def test_nothing_wrong_says_what_was_looked_at_and_never_that_all_is_well() -> None:
    text = "\n".join(report.text(made(), color=False, width=120))
    assert text.startswith("nothing wrong was seen; looked at: 2 pods, 1 node, 30 s, 94 events")
    assert f"pods: shop/{DB}, shop/{WEB}\nnodes: node-1\nevents: none" in text
    assert "only what happened in this time was seen" in text
    assert "healthy" not in text


def test_what_was_not_traced_is_said() -> None:
    lost = NODE.replace(name="node-2", attached_ns=0, cause=Cause.NOT_IN_TIME, why="its agent did not start")
    coverage = TRACED.replace(nodes=(NODE, lost))
    found = made(unseen=("node-2 was not traced: its agent did not start",), coverage=coverage)
    text = "\n".join(report.text(found, color=False, width=120))
    assert "1 of 2 nodes" in text
    assert "not seen: node-2 was not traced: its agent did not start" in text
    assert found.is_inconclusive


def test_an_answer_from_the_api_alone_says_so() -> None:
    text = "\n".join(report.text(made(coverage=Coverage(), agents=False), color=False, width=120))
    assert "only in the API, because no container runs" in text


def test_json_has_the_same_findings_with_their_symptoms() -> None:
    document = json.loads(json.dumps(report.document(made(*ill().findings))))
    (found,) = document["findings"]
    assert found["rule"] == "listens-on-loopback"
    assert found["pods"] == [f"shop/{DB}"]
    assert found["others"] == [f"shop/{WEB}"]
    assert found["evidence"][0]["error"] == "ECONNREFUSED"
    assert [each["rule"] for each in found["explains"]] == ["connection-refused"]
    assert document["looked_at"]["nodes"] == ["node-1"]
    assert document["version"] == report.SCHEMA_VERSION


def test_json_is_as_its_schema_says() -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs/schemas/diagnose.json").read_text())
    document = report.document(made(*ill().findings, unseen=("node-2 was not traced",)))
    jsonschema.validate(json.loads(json.dumps(document)), schema)
    del document["findings"][0]["explains"][0]["remedy"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


@pytest.mark.parametrize("kind", ["markdown", "junit", "sarif"])
def test_all_reports_have_the_cause_the_remedy_and_the_symptoms(kind: str) -> None:
    text = rendered(report.run_report(made(*ill().findings), Severity.ERROR), kind)
    for words in ("listens on the loopback address only at port 5432", "let the server listen on 0.0.0.0", "proven"):
        assert words in text
    assert "gets no answer from service db" in text or "refuse" in text


def test_a_rule_that_found_an_error_is_a_check_that_failed() -> None:
    found = report.run_report(made(*ill().findings), Severity.ERROR)
    assert [(check.rule, check.status) for check in found.checks] == [
        ("diagnosis/listens-on-loopback", Status.FINDINGS),
        ("diagnosis/29 further rules", Status.PASSED),
    ]
    only_critical = report.run_report(made(*ill().findings), Severity.CRITICAL)
    assert only_critical.status is Status.PASSED
    junit = ET.fromstring(rendered(found, "junit"))
    assert junit.attrib["failures"] == "1"
    (result,) = json.loads(rendered(found, "sarif"))["runs"][0]["results"]
    assert result["ruleId"] == "diagnosis/listens-on-loopback"
    assert result["level"] == "error"


def test_what_was_not_seen_is_inconclusive_in_all_reports() -> None:
    found = report.run_report(made(unseen=("node-2 was not traced",)), Severity.ERROR)
    assert found.status is Status.INCONCLUSIVE
    assert "node-2 was not traced" in rendered(found, "junit")


def test_only_colors_are_escapes() -> None:
    plain = list(report.text(made(*ill().findings), color=False, width=100))
    colored = list(report.text(made(*ill().findings), color=True, width=100))
    assert "\x1b" not in "".join(plain)
    assert colored[0] == plain[0].replace("ERROR", "\x1b[31mERROR\x1b[0m")
