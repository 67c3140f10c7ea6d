"""The language of rules: mistakes are named with their place, and our own rules are whole."""

import re
from pathlib import Path

import pytest

from kubectl_gadget.diagnose.rules import OBJECTS, PLACEHOLDER, Relation, Rule, load, own_files
from kubectl_gadget.diagnose.search import runs
from kubectl_gadget.errors import UsageError

RULES = load(own_files())
RULE = """rules:
  - name: refused
    group: network
    severity: error
    seen:
      refused: {gadget: trace_tcp, where: errno != 0, by: [remote, remote_port]}
    title: "{self.workload} is refused {refused.count} times"
"""


def read(folder: Path, text: str) -> tuple[Rule, ...]:
    (folder / "own.yaml").write_text(text)
    return load([folder / "own.yaml"])


def test_a_rule_is_read_with_its_defaults(tmp_path: Path) -> None:
    (rule,) = read(tmp_path, RULE)
    assert (rule.name, str(rule.severity), str(rule.confidence), rule.about) == ("refused", "error", "proven", "self")
    assert rule.gadgets == {"trace_tcp"}
    assert [run.gadget.name for run in runs([rule])] == ["trace_tcp", "snapshot_socket"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("errno != 0", "erno != 0", "erno"),
        ("errno != 0", "errno !=", "ends too early"),
        ("gadget: trace_tcp", "gadget: trace_tpc", "trace_tpc"),
        ("gadget: trace_tcp, where: errno != 0", "object: poood", "poood"),
        ("{refused.count}", "{refused.cuont}", "refused has no 'cuont'"),
        ("{refused.count}", "{refuse.count}", "'refuse' is neither a set nor peer"),
        ("severity: error", "severity: fatal", "fatal"),
        ("severity: error", "severity: error\n    when: refused.sum_x > 1", "refused has no 'sum_x'"),
        ("severity: error", "severity: error\n    peer: {address: remote}", "no column by which the first set"),
        ("severity: error", "severity: error\n    about: peer", "has no `peer`"),
        ("severity: error", "severity: error\n    explains: {crash-lop: pod}", "'crash-lop', which is no rule"),
        ("severity: error", "severity: error\n    colour: red", "colour"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        read(tmp_path, RULE.replace(old, new))
    assert "own.yaml" in str(caught.value) or "trace_tpc" in said


def test_a_later_file_replaces_a_rule_of_the_same_name(tmp_path: Path) -> None:
    for name, severity in (("a", "error"), ("b", "note")):
        (tmp_path / f"{name}.yaml").write_text(RULE.replace("severity: error", f"severity: {severity}"))
    (rule,) = load([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert str(rule.severity) == "note"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_our_rules_say_what_is_wrong_and_what_to_do(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    assert rule.description.endswith(".")
    assert rule.provoke
    assert rule.words.cause
    assert rule.words.remedy
    assert rule.words.more.startswith(("kubectl gadget ", "kubectl "))
    assert PLACEHOLDER.search(rule.words.title), "a title names whom it is about"
    for text in (rule.words.cause, rule.words.remedy):
        assert text[0] not in ' "'
        assert not text.endswith(".")


def test_all_symptoms_are_explained_by_a_rule_and_no_cause_is_its_own_symptom() -> None:
    for rule in RULES:
        assert dict(rule.explains).get(rule.name) in (None, Relation.PEER)  # a chain of servers
    explained = {name for rule in RULES for name, _ in rule.explains}
    assert {"crash-loop", "not-ready", "connection-refused", "no-answer", "probe-fails"} <= explained


def test_the_table_of_causes_names_rules_and_leaves_none_out_but_symptoms() -> None:
    page = Path(__file__).parents[2] / "docs" / "design" / "diagnose.md"
    rows = [line for line in page.read_text().partition("## Causes and their rules")[2].splitlines() if "`" in line]
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert len(rows) == 60
    assert named <= {rule.name for rule in RULES}
    symptoms = {"crash-loop", "exits-with-error", "not-ready", "no-answer", "probe-fails", "init-container-waits"}
    assert {rule.name for rule in RULES} - named == symptoms | {
        "tls-version-refused",
        "process-stopped",
        "container-not-created",
        "ends-with-system-error",
        "ends-without-error",
        "job-failed",
    }


def test_kinds_of_records_have_no_member_twice() -> None:
    for members in OBJECTS.values():
        assert len(members) == len(set(members))
