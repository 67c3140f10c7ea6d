"""The examples of rules: each of ours finds what it must, and nothing where nothing is wrong; mistakes are named."""

import re
from pathlib import Path

import pytest

from kubectl_gadget.diagnose.examples import check, found_in, problem
from kubectl_gadget.diagnose.rules import Example, Rule, load, own_files
from kubectl_gadget.errors import UsageError

RULES = load(own_files())
RULE = """rules:
  - name: refused
    group: network
    severity: error
    seen:
      refused: {gadget: trace_tcp, where: error == "ECONNREFUSED", by: [remote, remote_port]}
    when: refused.count >= 2
    title: "{self.workload} is refused {refused.count} times"
    examples:
      - what: two refusals
        finds: true
        rows: [{gadget: trace_tcp, operation: connect, error: ECONNREFUSED, remote: 10.1.0.2, times: 2}]
        says: refused 2 times
"""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_our_rules_have_examples_of_both_kinds_that_fit(rule: Rule) -> None:
    assert {example.finds for example in rule.examples} == {True, False}
    for example in rule.examples:
        assert problem(rule, example) == "", example.what


FOUND = [(rule, example) for rule in RULES for example in rule.examples if example.finds]


@pytest.mark.parametrize(("rule", "example"), FOUND, ids=lambda each: getattr(each, "name", ""))
def test_with_all_rules_an_example_gives_its_finding_too(rule: Rule, example: Example) -> None:
    roots = found_in(RULES, example)
    assert rule.name in {each.rule.name for root in roots for each in root.all()}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("times: 2", "times: 1", "'two refusals' is no finding"),
        ("finds: true", "finds: false", "is a finding: pod/web is refused 2 times"),
        ("says: refused 2", "says: refused 3", "does not say 'refused 3 times'"),
        ("operation: connect", "operation: conect", "operation of trace_tcp is never 'conect'"),
        ("operation: connect", "opration: connect", "trace_tcp has no column 'opration'"),
        ("remote: 10.1.0.2", "remote: 10", "remote of trace_tcp cannot be 10"),
        ("gadget: trace_tcp, operation", "gadget: trace_tpc, operation", "trace_tpc"),
        ("finds: true", "finds: true\n        places: [{nod: a}]", "a place has no 'nod'"),
        ("finds: true", "finds: true\n        records: [{object: pod, redy: true}]", "pod has no 'redy'"),
        ("finds: true", "finds: true\n        records: {object: pod}", "must be a list of mappings"),
        ("finds: true", "found: true", "found"),
    ],
)
def test_an_example_that_contradicts_its_rule_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(RULE)
    check(load([file]))
    file.write_text(RULE.replace(old, new))
    with pytest.raises(UsageError, match=re.escape(said)):
        check(load([file]))
