"""Baseline files."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.behavior.baseline import baseline_text, is_baseline, parse_baseline
from kubectl_gadget.behavior.facts import USUAL_KINDS, Behavior, FactKind, Unit, WatchedRun, merge
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.inventory import Workload
from tests.behavior.made import CART, behavior, fact

_FACTS = (
    fact("program", "/usr/bin/curl", "/bin/sh", first_seen="2026-01-01T00:00:00Z", count=3, evidence={"pid": 7}),
    fact("open", "/bin/cart", "read /usr/lib/python3/*"),
    fact("connect", "/bin/cart", "service shop/redis:6379/tcp"),
    fact("exit", "/bin/cart", "code 1"),
)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def _again(found: Behavior) -> Behavior:
    return parse_baseline("b.yaml", baseline_text(found)).behavior


def _known(found: Behavior) -> list[object]:
    return [(one, one.pods, one.runs, one.count, one.first_seen, one.evidence, one.images) for one in found.facts]


def test_a_file_that_is_read_is_what_was_written() -> None:
    made = behavior(*_FACTS, pods=1, images=("nginx:1", "sha256:0123"), kinds=USUAL_KINDS - {FactKind.OPEN})
    made = Behavior(
        tuple(fact(f.kind, f.program, f.value, images=("nginx:1",), evidence=f.evidence) for f in made.facts),
        made.coverage,
        (WatchedRun("2026-01-01T00:00:00Z", 12.5, 3, 2),),
        ("node n2 failed: no BTF",),
    )

    again = _again(made)

    assert _known(again) == _known(made)
    assert (again.coverage, again.runs, again.missing) == (made.coverage, made.runs, made.missing)


def test_a_text_that_a_person_wrote_as_a_time_is_read_again() -> None:
    made = Behavior(runs=(WatchedRun('a"b\\', 1),))

    assert _again(made).runs == made.runs


def test_facts_stand_on_one_line_each_and_are_readable() -> None:
    lines = baseline_text(behavior(*_FACTS), with_evidence=False).splitlines()

    assert "      - {program: /usr/bin/curl, from: /bin/sh}" in lines
    assert '      - {connect: "service shop/redis:6379/tcp", by: /bin/cart}' in lines
    assert "      - {open: read /usr/lib/python3/*, by: /bin/cart}" in lines


def test_a_further_run_that_does_the_same_changes_no_line_of_a_fact() -> None:
    def lines(found: Behavior) -> list[str]:
        return [line for line in baseline_text(found, with_evidence=False).splitlines() if line.startswith("      - ")]

    assert lines(merge([behavior(*_FACTS), behavior(*_FACTS)])) == lines(behavior(*_FACTS))


def test_a_fact_that_was_not_seen_everywhere_says_so() -> None:
    both = merge([behavior(*_FACTS, pods=1), behavior(fact("listen", "/bin/cart", "80/tcp"), pods=2)])

    text = baseline_text(both)

    assert '{listen: "80/tcp", by: /bin/cart, pods: 1, runs: 1}' in text
    assert _known(_again(both)) == _known(both)


@given(_TEXTS, _TEXTS, st.sampled_from(list(FactKind)))
def test_every_text_of_a_container_is_read_as_it_was(program: str, value: str, kind: FactKind) -> None:
    made = behavior(fact(kind, program, value, evidence={"args": (value,), "comm": program}))

    text = baseline_text(made)

    assert len([line for line in text.splitlines() if line.startswith("      - ")]) == 1
    assert _known(_again(made)) == _known(made)
    assert yaml.safe_load(text)["containers"][0]["facts"][0][kind] in (program, value)


def test_bytes_that_are_no_text_are_shown_as_bytes() -> None:
    (found,) = _again(behavior(fact("resolve", "/bin/cart", "\udcff.example"))).facts

    assert found.value == "\\xff.example"


def test_each_fact_knows_its_line() -> None:
    text = baseline_text(behavior(*_FACTS))

    lines = parse_baseline("b.yaml", text).lines

    assert all(text.splitlines()[line - 1].lstrip(" -").startswith(f"{{{f.kind}: ") for f, line in lines.items())
    assert len(lines) == len(_FACTS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 2", "version: 1", "b.yaml:3:10: version must be 2"),
        ("program: /usr/bin/curl, from", "program: /usr/bin/curl, by", "does not belong to a fact of the kind program"),
        ("{open: ", "{opne: ", "opne is not known; did you mean open?"),
        ("exit: code 1, ", "exit: code 1, listen: x, ", "must have one of"),
        ("{exit: code 1,", "{exit: code 1, pods: 0,", "pods must be at least 1, not 0"),
        ("Deployment/cart", "cart", "must be KIND/NAME"),
        ("pods: 1", "pods: many", "must be a whole number"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, message: str) -> None:
    text = baseline_text(behavior(*_FACTS))
    assert old in text

    with pytest.raises(UsageError) as caught:
        parse_baseline("b.yaml", text.replace(old, new, 1))

    assert message in str(caught.value)


def test_the_same_fact_twice_is_refused() -> None:
    line = "      - {exit: code 1, by: /bin/cart}\n"
    text = baseline_text(behavior(*_FACTS)).replace(line, line * 2)

    with pytest.raises(UsageError, match="the same fact is in line"):
        parse_baseline("b.yaml", text)


def test_a_line_that_a_person_adds_needs_nothing_but_the_fact() -> None:
    text = (
        "version: 2\ncontainers:\n  - {workload: Pod/web, container: main, facts: [{listen: 80/tcp, by: /bin/web}]}\n"
    )

    (found,) = parse_baseline("b.yaml", text).behavior.facts

    assert (found.value, found.workload.name, found.pods) == ("80/tcp", "web", 1)


def test_container_is_named() -> None:
    assert str(CART) == "shop/deployment/cart/main"


@pytest.mark.parametrize(
    ("text", "answer"), [(baseline_text(behavior()), True), ('{"recording": "x"}\n', False), ("", False)]
)
def test_a_baseline_is_known_by_how_it_begins(text: str, answer: bool, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text)

    assert is_baseline(tmp_path / "x") is answer


_PLACES = """version: 2
containers:
  - workload: Deployment/cart
    namespace: shop
    container: main
    facts:
      - {connect: "b:1/tcp", by: /bin/cart}
      - {connect: "d:1/tcp", by: /bin/cart}
  - workload: Deployment/web
    namespace: shop
    container: main
    facts: []
"""


@pytest.mark.parametrize(
    ("workload", "value", "line"),
    [
        ("cart", "b:1/tcp", 7),
        ("cart", "a:1/tcp", 7),
        ("cart", "c:1/tcp", 8),
        ("cart", "e:1/tcp", 9),
        ("web", "a:1/tcp", 9),
        ("a", "a:1/tcp", 3),
        ("db", "a:1/tcp", 9),
        ("zoo", "a:1/tcp", 10),
    ],
)
@pytest.mark.parametrize("name", ["", "front"])
def test_a_new_fact_has_the_line_where_it_would_stand(workload: str, value: str, line: int, name: str) -> None:
    """`name`: another one that the workload has in the new run."""
    found = parse_baseline("b.yaml", _PLACES)
    unit = Unit(Workload("shop", "Deployment", workload), "main")
    if name and workload != "cart":
        return
    if name:
        to = replace(unit.workload, name=name)
        found = found.with_workload_of(found.behavior.renamed({unit.workload: to}))
        unit = replace(unit, workload=to)

    assert found.line_of(fact("connect", "/bin/cart", value, unit)) == line


def test_the_line_of_a_fact_that_is_last_in_the_file_exists() -> None:
    found = parse_baseline("b.yaml", _PLACES)

    assert found.line_of(fact("exit", "/bin/z", "code 1", Unit(Workload("z", "Pod", "z"), "z"))) <= found.length == 12
