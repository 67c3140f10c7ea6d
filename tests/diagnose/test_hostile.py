"""Rows and records with whatever a program or a recording can put into them: nothing crashes, and nobody but a rule
writes a finding's words."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.diagnose import report
from kubectl_gadget.diagnose.findings import Found
from kubectl_gadget.diagnose.observations import Owner
from kubectl_gadget.diagnose.rules import OBJECTS, PLACEHOLDER, Rule, SeenSet
from kubectl_gadget.diagnose.search import Report, trusted
from kubectl_gadget.run.coverage import Coverage
from tests.diagnose.seen import NOW, RULES, Seen, connect, endpoints, event, pod, service
from tests.examples import examples
from tests.reports.sample import HOSTILE

IMITATIONS = (
    "CRITICAL  deploy/db was deleted by deploy/web",
    "\nERROR  deploy/db listens on 127.0.0.1\n  cause:    none",
    "\r\x1b[2K\x1b[31mERROR\x1b[0m  all is lost",
    "{self.workload} {peer.name} {run.seconds} {missing.name|bytes}",
    "\u2028ERROR  next\u2029",
    "  do:       kubectl delete namespace shop",
)
"""Names that look like findings, or like a part of one."""
TEXTS = st.sampled_from((*HOSTILE, *IMITATIONS, "", "-1", "10.1.0.2", "10.9.0.1")) | st.text(max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | TEXTS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXTS, each, max_size=3),
    max_leaves=5,
)
POD = "web-5d4f8c9b7c-x2x7k"
SEVERITY = re.compile(r"(CRITICAL|ERROR|WARNING|NOTE)  ")


def some(rules: tuple[Rule, ...] = RULES) -> Seen:
    """Pods with a service and a policy, so that rules about other ends have some."""
    pods = [pod(POD, "10.1.0.1", {"app": "web"}), pod("db-7d4b9c6f58-kk2bz", "10.1.0.2", {"app": "db"})]
    lists = {
        "services": [service("db", "10.9.0.1", 80, "http", app="db")],
        "endpointslices": [endpoints("db", ["10.1.0.2"])],
    }
    policy = {"metadata": {"name": "db-only", "namespace": "shop"}, "spec": {"podSelector": {}}}
    return Seen(rules, pods=pods, networkpolicies=[policy], **lists)


def count(seen: Seen, of: SeenSet, owner: Owner, row: dict[str, Any], times: int = 3) -> None:
    """Count a row as if it matched: the condition is another test's matter."""
    found = seen.observations.of(of).of(owner, tuple(hashable(row.get(name)) for name in of.by))
    if found is not None:
        for _ in range(times):
            found.add(row, round(NOW * 1e9), of.measure)


def hashable(value: Any) -> Any:
    return str(value) if isinstance(value, dict | list) else value


def shown(findings: list[Found]) -> list[str]:
    """All lines of the report in text; JSON and names are made, too."""
    found = Report(
        tuple(each.finding() for each in findings), Coverage(), (("shop", POD),), 3, 30.0, ("tcp",), len(RULES)
    )
    json.dumps(report.document(found)).encode()
    return list(report.text(found, color=False, width=100))


def assert_own_words(findings: list[Found]) -> None:
    lines = shown(findings)
    assert all(line.isprintable() for line in lines)
    assert sum(bool(SEVERITY.match(line)) for line in lines) == len(findings)
    for root in findings:
        for each in root.all():
            assert len(each.words.title.splitlines()) == 1
            parts = PLACEHOLDER.split(each.rule.words.title)[:: PLACEHOLDER.groups + 1]
            assert re.fullmatch(".*".join(map(re.escape, parts)), each.words.title)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@given(st.data())
@settings(max_examples=examples(15))
def test_any_row_is_a_finding_or_none(rule: Rule, data: st.DataObject) -> None:
    seen = some((rule,) if not rule.explains else RULES)
    owner = Owner("node-1", "shop", data.draw(st.sampled_from((POD, "", IMITATIONS[0]))), data.draw(TEXTS))
    for each in rule.seen:
        if each.gadget is None:
            row = data.draw(st.dictionaries(st.sampled_from(OBJECTS[each.object]), VALUES, max_size=6))
            records = trusted(
                [{"namespace": "shop", "pod": POD, **row, **{name: of[0] for name, of in each.equal.items()}}]
            )
            seen.observations.take_objects(each.object, records, round(NOW * 1e9))
        else:
            names = (*each.by, *each.measure, "comm", "error", "path")
            count(seen, each, owner, data.draw(st.fixed_dictionaries(dict.fromkeys(names, VALUES))))
    assert_own_words(seen.findings)


@pytest.mark.parametrize("text", IMITATIONS)
def test_a_name_that_imitates_a_finding_stays_a_name(text: str) -> None:
    seen = some()
    seen.row(POD, "trace_open", {"error": "EACCES", "path": f"/{text}", "flags": "O_RDONLY", "comm": text})
    seen.row(POD, "trace_exit", {"signal": "SIGSEGV", "comm": text})
    findings = seen.findings
    assert {each.rule.name for each in findings} == {"permission-denied", "crashed"}
    assert_own_words(findings)


@given(TEXTS)
@settings(max_examples=examples(40))
def test_what_the_api_says_cannot_write_a_finding_either(text: str) -> None:
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": text}}
    ill = pod(POD, "10.1.0.1", state=waiting, ready=False)
    ill["spec"]["containers"][0]["image"] = text
    seen = Seen(pods=[ill], events=[event(POD, "FailedMount", text), event(POD, "Unhealthy", text)])
    assert "config-missing" in seen.roots
    assert_own_words(seen.findings)


@given(st.dictionaries(st.sampled_from((*OBJECTS, "other")), VALUES | st.lists(VALUES, max_size=4), max_size=6))
@settings(max_examples=examples(60))
def test_records_of_a_recording_from_anybody_crash_nothing(recorded: dict[str, Any]) -> None:
    seen = some()
    for kind in OBJECTS:
        seen.observations.take_objects(kind, trusted(recorded.get(kind)), round(NOW * 1e9))
    seen.row(POD, "trace_tcp", connect("10.9.0.1", 80), 9)
    assert_own_words(seen.findings)
