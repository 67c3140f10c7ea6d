"""kubectl's argument syntax."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.cli.arguments import Spelling, UnknownFlag, parse
from kubectl_gadget.errors import UsageError
from kubectl_gadget.wording import nearest

FLAGS = {
    "--namespace": Spelling("namespace"),
    "-n": Spelling("namespace"),
    "--all": Spelling("all", True),
    "--no-all": Spelling("all", False),
    "-A": Spelling("all", True),
    "-q": Spelling("quiet", True),
}
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def values(*words: str) -> list[tuple[str, str | bool]]:
    return [(item.name, item.value) for item in parse(FLAGS, words).given]


@pytest.mark.parametrize(
    "words", [["-n", "prod"], ["-nprod"], ["-n=prod"], ["--namespace", "prod"], ["--namespace=prod"]]
)
def test_a_value_may_be_attached_in_every_way_that_kubectl_takes(words: list[str]) -> None:
    assert values(*words) == [("namespace", "prod")]


@pytest.mark.parametrize("words", [["--all"], ["-A"], ["--all=true"], ["-A=1"], ["--no-all=false"]])
def test_a_switch_can_be_turned_on_with_and_without_a_value(words: list[str]) -> None:
    assert values(*words) == [("all", True)]


@pytest.mark.parametrize("words", [["--all=false"], ["-A=0"], ["--no-all"]])
def test_a_switch_can_be_turned_off_with_a_value(words: list[str]) -> None:
    assert values(*words) == [("all", False)]


def test_a_switch_does_not_take_the_next_word() -> None:
    parsed = parse(FLAGS, ["-A", "xwing"])
    assert parsed.positionals == ["xwing"]


def test_short_flags_can_be_written_together_and_the_last_may_take_a_value() -> None:
    assert values("-qAn", "prod") == [("quiet", True), ("all", True), ("namespace", "prod")]
    assert values("-Anprod") == [("all", True), ("namespace", "prod")]


def test_a_value_may_begin_with_a_dash() -> None:
    assert values("-n", "-1") == [("namespace", "-1")]


def test_words_after_two_dashes_are_not_flags() -> None:
    assert parse(FLAGS, ["a", "--", "-n", "--"]).positionals == ["a", "-n", "--"]


def test_flags_and_words_may_be_mixed_when_there_are_no_subcommands() -> None:
    parsed = parse(FLAGS, ["a", "-A", "b"])
    assert (parsed.positionals, len(parsed.given)) == (["a", "b"], 1)


def test_the_words_of_a_subcommand_are_left_alone() -> None:
    parsed = parse(FLAGS, ["-n", "x", "trace", "-n", "y", "--", "z"], subcommands=True)
    assert parsed.positionals == ["trace", "-n", "y", "--", "z"]


def test_a_last_flag_without_value_is_pending() -> None:
    assert parse(FLAGS, ["-A", "--namespace"]).pending == "--namespace"


def test_an_unknown_flag_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UnknownFlag, match="unknown flag --namespac") as caught:
        parse(FLAGS, ["--namespac=x"])
    assert caught.value.remedy == "--namespace"


def test_an_unknown_letter_is_named_with_the_word_it_stands_in() -> None:
    with pytest.raises(UnknownFlag, match="-x in -Ax"):
        parse(FLAGS, ["-Ax"])


def test_a_switch_with_a_value_that_is_not_a_boolean_is_refused() -> None:
    with pytest.raises(UsageError, match="must be true or false"):
        parse(FLAGS, ["--all=maybe"])


@given(WORDS)
def test_any_value_comes_back_as_it_was_attached(value: str) -> None:
    assert values(f"--namespace={value}") == [("namespace", value)]
    assert values("--namespace", value) == [("namespace", value)]
    assert values(f"-n={value}") == [("namespace", value)]


@given(st.lists(WORDS | st.sampled_from([*FLAGS, "--", "-nx", "-A=0", "--all=true"])))
def test_any_words_are_parsed_or_refused_with_a_usage_error(words: list[str]) -> None:
    try:
        parsed = parse(FLAGS, words)
    except UsageError:
        return
    assert all(isinstance(item.value, bool) == (item.name != "namespace") for item in parsed.given)
    assert len(parsed.positionals) <= len(words)


def test_nothing_is_offered_when_nothing_is_near() -> None:
    assert nearest("zzz", ["open", "exec"]) is None


@pytest.mark.parametrize(
    ("words", "value", "positionals"),
    [
        (["--fail"], "error", []),
        (["--fail", "web"], "error", ["web"]),
        (["--fail", "note", "web"], "note", ["web"]),
        (["--fail=warning", "web"], "warning", ["web"]),
        (["--fail", "-A"], "error", []),
    ],
)
def test_a_value_that_may_be_missing_is_taken_only_if_it_is_one_of_the_values(
    words: list[str], value: str, positionals: list[str]
) -> None:
    parsed = parse({**FLAGS, "--fail": Spelling("fail", None, ("error", "warning", "note"))}, words)
    assert parsed.given[0] == ("fail", value, "--fail", False)
    assert parsed.positionals == positionals
