"""Each report is read by a real reader of its format, with hostile texts in it."""

import html.parser
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import junitparser
import pytest
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from markdown_it import MarkdownIt
from sarif_pydantic import Sarif

from kubectl_gadget.reports import machine, readable
from kubectl_gadget.reports.model import Activity, FileUse, Status
from tests.reports.sample import HOSTILE, report


def rendered() -> dict[str, str]:
    """All reports of a hostile run."""
    found = report()
    return {
        "junit": machine.render_junit(found),
        "sarif": machine.render_sarif(found, {}),
        "markdown": readable.render_markdown(found),
        "json": machine.render_json(found),
        "attestation": machine.render_attestation(found, [f"image@sha256:{'0' * 64}"], {}),
    }


@pytest.mark.parametrize("kind", ["junit", "sarif", "markdown", "json", "attestation"])
def test_no_line_is_a_command_to_a_runner(kind: str) -> None:
    text = rendered()[kind]
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\x00" not in text
    assert "\u202e" not in text
    if kind == "markdown":  # what people see in the log of a job
        assert "##[" not in text
        assert "##vso[" not in text
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]


def test_junitparser_reads_failures_errors_and_names() -> None:
    suites = junitparser.JUnitXml.fromstring(machine.render_junit(report()).encode())
    (suite,) = suites
    assert (suite.tests, suite.failures, suite.errors) == (len(HOSTILE) + 4, len(HOSTILE), 2)
    cases = list(suite)
    assert cases[1].name == "everything was seen"
    assert isinstance(cases[1].result[0], junitparser.Error)
    hostile = next(case for case in cases if case.name == HOSTILE[1])
    assert isinstance(hostile.result[0], junitparser.Failure)
    assert hostile.result[0].message == HOSTILE[1]


def test_a_green_run_has_no_failure_in_junit() -> None:
    suites = junitparser.JUnitXml.fromstring(machine.render_junit(report(checks=(), incomplete=())).encode())
    assert (suites.failures, suites.errors) == (0, 0)


def test_junit_is_xml_1_0() -> None:
    ET.fromstring(machine.render_junit(report()))


def test_a_sarif_library_reads_results() -> None:
    text = machine.render_sarif(report(), {})
    (run,) = Sarif.model_validate_json(text).runs
    results = run.results or []
    assert len(results) == 2 * len(HOSTILE)
    first = results[0]
    assert first.partial_fingerprints
    assert len(first.partial_fingerprints["kubectlGadget/v1"]) == 32
    place = first.locations[0].physical_location  # type: ignore[index]
    assert place.artifact_location.uri
    assert not place.artifact_location.uri.startswith("/")
    assert place.region.start_line == 7  # type: ignore[union-attr]
    assert run.invocations
    assert run.invocations[0].execution_successful


def test_sarif_paths_are_relative_to_the_repository(tmp_path: Path) -> None:
    found = report(checks=())
    root = {"GITHUB_WORKSPACE": str(tmp_path)}
    base = json.loads(machine.render_sarif(found, root))["runs"][0]["originalUriBaseIds"]["%SRCROOT%"]["uri"]
    assert base == f"{tmp_path.as_uri()}/"


def test_an_inconclusive_run_is_no_successful_execution_in_sarif() -> None:
    run = json.loads(machine.render_sarif(report(checks=()), {}))["runs"][0]
    assert run["invocations"][0]["executionSuccessful"] is False
    levels = [each["level"] for each in run["invocations"][0]["toolExecutionNotifications"]]
    assert levels == ["error"] * len(HOSTILE) + ["warning"] * len(HOSTILE)


def test_a_markdown_renderer_sees_no_markup_of_others() -> None:
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(readable.render_markdown(report()))
    reader = _Tags()
    reader.feed(shown)
    assert reader.tags <= {
        *(
            "h2",
            "h3",
            "p",
            "strong",
            "ul",
            "li",
            "code",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "details",
            "summary",
        ),
        *("pre", "sub"),
    }
    assert not reader.attributes - {"style"}


def test_all_rows_of_markdown_tables_have_all_cells() -> None:
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(readable.render_markdown(report()))
    for table in re.findall(r"<table>.*?</table>", shown, re.DOTALL):
        head = table.count("<th>") + table.count("<th ")
        rows = table.count("<tr>") - 1
        assert table.count("<td>") + table.count("<td ") == head * rows
        assert "</td>\n</tr>" in table


def test_markdown_shows_hostile_names_as_they_are() -> None:
    shown = MarkdownIt("gfm-like", {"linkify": False}).render(readable.render_markdown(report()))
    reader = _Tags()
    reader.feed(shown)
    assert "a|b`c``d" in reader.text
    assert "<script>alert(1)</script>" in reader.text
    assert "\\x1b[31mred" in reader.text


def test_markdown_is_capped() -> None:
    checks = report().checks * 2000
    assert len(readable.render_markdown(report(checks=checks)).encode()) < 200_000


def test_json_is_read_back_as_the_same_report() -> None:
    found = report(activity=report().activity)
    text = machine.render_json(found)
    again = machine.parse_json(text)
    assert machine.render_json(again) == text
    assert again.status is Status.FINDINGS
    assert [each.fingerprint for each in again.findings] == [
        each["fingerprint"] for check in json.loads(text)["checks"] for each in check["findings"][:1]
    ] + [each["fingerprint"] for check in json.loads(text)["checks"] for each in check["findings"][1:]]


def test_in_toto_reads_the_statement(tmp_path: Path) -> None:
    built = tmp_path / "built"
    built.write_bytes(b"x")
    text = machine.render_attestation(
        report(), [str(built)], {"GITHUB_RUN_ID": "5", "GITHUB_SERVER_URL": "https://github.com"}
    )
    found = json.loads(text)
    Statement.copy_from_pb(json_format.Parse(text, StatementMessage())).validate()
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert found["subject"][0]["digest"]["sha256"] == digest
    predicate = found["predicate"]
    assert predicate["monitoredProcess"]["hostID"] == "https://github.com"
    assert predicate["kubectlGadget"]["complete"] is False
    assert predicate["kubectlGadget"]["lost"] == {"ring buffer full": 7}
    assert len(predicate["monitorLog"]["process"]) == len(HOSTILE)
    assert {"network", "fileAccess"} <= predicate["monitorLog"].keys()


class _Tags(html.parser.HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("code", [0, 1])
def test_markdown_leaves_out_what_no_reader_acts_on(code: int) -> None:
    activity = Activity()
    probes = ("/usr/lib/locale/C.UTF-8/LC_CTYPE", "/opt/lib/libx.so", "/srv/app.conf")
    activity.add_files(FileUse(path, "read", "ENOENT") for path in probes)
    activity.add_files([FileUse("/usr/lib/libx.so", "read"), FileUse("/etc/shadow", "read", "EACCES")])
    activity.add_files(
        [FileUse("/dev/null", "write"), FileUse("/dev/pts/3", "write"), FileUse("/etc/cron.d/x", "write")]
    )

    text = readable.render_markdown(report(activity=activity, command_code=code, checks=()))

    assert "/etc/cron.d/x" in text
    assert "/etc/shadow (EACCES)" in text
    assert ("/srv/app.conf" in text) is bool(code)
    assert not [noise for noise in ("LC_CTYPE", "libx.so", "/dev/null", "/dev/pts") if noise in text]
