"""Rules that are proposed from two runs."""

from pathlib import Path

import pytest

from kubectl_gadget.behavior.baseline import baseline_text, read_baseline
from kubectl_gadget.behavior.comparison import compare
from kubectl_gadget.behavior.facts import Behavior, Fact
from kubectl_gadget.behavior.generalization import Generalizer, read_rules
from kubectl_gadget.behavior.learning import learned, of_one_job, rules_text
from kubectl_gadget.errors import UsageError
from tests.behavior.made import behavior, fact

RULES = Generalizer(read_rules())


def opened(path: str, how: str = "write") -> Fact:
    return fact("open", "/bin/cart", f"{how} {path}")


@pytest.mark.parametrize(
    ("one", "other", "third", "becomes"),
    [
        ("/work/out/sedQwErTy", "/work/out/sedaZbYcX", "/work/out/sedMnBvCx", "/work/out/sed<random>"),
        (
            "/work/out/RECORDvyh.tmp",
            "/work/out/RECORDqpo.tmp",
            "/work/out/RECORDabc.tmp",
            "/work/out/RECORD<random>.tmp",
        ),
        ("/work/x-qwe/a/b.c", "/work/x-asd/a/b.c", "/work/x-zxc/other", "/work/x-<random>/other"),
        ("/work/s/qwertyuiop", "/work/s/asdfghjklz", "/work/s/zxcvbnmlkj", "/work/s/<random>"),
    ],
)
def test_two_runs_that_differ_in_a_name_propose_a_rule_for_the_next(
    one: str, other: str, third: str, becomes: str, tmp_path: Path
) -> None:
    known = opened("/srv/known")
    found = learned(behavior(known, opened(one)), behavior(known, opened(other)), RULES)
    (tmp_path / "rules.yaml").write_text(rules_text(found, ["a", "b"]))
    with_rules = Generalizer(read_rules(tmp_path / "rules.yaml"))

    assert found.unexplained == ()
    assert {with_rules.path(path) for path in (one, other)} == {with_rules.path(one)}
    assert with_rules.path(third) == becomes
    assert with_rules.path("/work/elsewhere/x") == "/work/elsewhere/x"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/usr/bin/tool-abc", "/usr/bin/tool-xyz"),
        ("/usr/lib/x86_64-linux-gnu/liba.so", "/usr/lib/x86_64-linux-gnu/libb.so"),
        ("/root/.ssh/id_rsa", "/root/.ssh/id_dsa"),
        ("/work/out/a", "/work/out/b"),
        ("/abcdefgh", "/ijklmnop"),
        ("/work/a/b", "/work/a/b/c"),
    ],
)
def test_no_rule_is_proposed_where_each_name_counts_or_nothing_stays(one: str, other: str) -> None:
    facts = opened(one), opened(other)
    found = learned(behavior(facts[0]), behavior(facts[1]), RULES)

    assert found.rules == ()
    assert set(found.unexplained) == set(facts)


def test_a_program_that_only_one_run_has_is_not_explained() -> None:
    programs = [fact("program", f"/tmp/x{name}/run", "/bin/cart") for name in ("abc", "def")]
    found = learned(behavior(programs[0]), behavior(programs[1]), RULES)

    assert found.rules == ()
    assert set(found.unexplained) == set(programs)


def test_a_baseline_of_several_runs_knows_the_next_run_and_no_other_name(tmp_path: Path) -> None:
    def run(session: str) -> Behavior:
        folder = f"/work/target/incremental/prices-2boamk/s-{session}"
        return behavior(opened("/work/target/lib.rlib"), opened(f"{folder}/dep-graph.bin"), opened(f"{folder}.lock"))

    text = baseline_text(of_one_job([run("hoow45l3vr-01l1wu4"), run("hoow4cecco-167hmbo")], RULES))
    (tmp_path / "b.yaml").write_text(text)
    baseline = read_baseline(tmp_path / "b.yaml").behavior

    assert text.count("- {path: ") == 2
    assert [found.runs for found in baseline.facts] == [2, 2, 2]
    assert compare(baseline, run("hopk0a2q11-0zz9x1k")) == ()
    evil = opened("/work/target/incremental/prices-2boamk/s-hopk0a2q11-0zz9x1k/evil.so"), opened("/work/target/x.lock")
    new = compare(baseline, behavior(*run("hopk0a2q11-0zz9x1k").facts, *evil))
    assert len(new) == 2
    assert all(change.kind == "new" for change in new)


def test_what_is_learned_in_a_baseline_is_checked_when_it_is_read(tmp_path: Path) -> None:
    head = "version: 2\nlearned:\n  - {path: '%s'}\ncontainers: []\n"
    for wrong, why in (("^(/work/x", "regular expression"), ("^/work/x", "three groups")):
        (tmp_path / "b.yaml").write_text(head % wrong)
        with pytest.raises(UsageError, match=why):
            read_baseline(tmp_path / "b.yaml")


def test_names_of_dns_are_learned_by_their_labels() -> None:
    names = [fact("resolve", "/bin/cart", f"job-{name}.ci.example") for name in ("qwert", "asdfg")]
    found = learned(behavior(names[0]), behavior(names[1]), RULES)

    assert found.unexplained == ()
    assert "names:" in rules_text(found, ["a", "b"])
