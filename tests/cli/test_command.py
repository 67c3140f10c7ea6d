"""From typed functions to typer's commands."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from kubectl_gadget.cli import values
from kubectl_gadget.cli.command import GadgetCommand, make_command, open_context
from kubectl_gadget.cli.flags import SHOW, FlagSet, Switch, Texts, flag
from kubectl_gadget.cli.pages import Page
from kubectl_gadget.errors import UsageError


@dataclass(frozen=True)
class SampleFlags(FlagSet):
    rows: Annotated[int | None, flag(SHOW, "--rows N", "Rows"), values.count] = None
    names: Annotated[Texts, flag(SHOW, "--name NAME", "Names"), values.commas] = None
    loud: Annotated[Switch, flag(SHOW, "--loud/--no-loud, -v", "Loud")] = None


Words = Annotated[tuple[str, ...], typer.Argument(metavar="WORD"), tuple]


def run(command: GadgetCommand, words: list[str]) -> int:
    with open_context(command, "sample", words) as ctx:
        return command.execute(ctx)


def test_a_flag_set_is_one_flag_for_each_field() -> None:
    def sample(words: Words, flags: SampleFlags) -> int:
        return 0

    command = make_command(sample, "sample", Page)
    texts = {flag.name: flag for flag in command.flag_texts}
    assert list(texts) == ["rows", "names", "loud"]
    assert texts["rows"].metavar == "N"
    assert texts["loud"].metavar is None
    assert texts["loud"].spellings == ["--loud", "-v"]
    assert texts["loud"].negations == ["--no-loud"]
    assert command.text.takes == ["WORD"]


def test_a_function_gets_its_sets_with_values_of_their_types() -> None:
    seen: list[object] = []

    def sample(words: Words, flags: SampleFlags) -> int:
        seen.append((words, flags))
        return 3

    command = make_command(sample, "sample", Page)
    assert run(command, ["one", "--rows=2", "--name", "a,b", "--name=c", "-v", "two"]) == 3
    assert seen == [(("one", "two"), SampleFlags(2, ("a", "b", "c"), True))]


def test_further_flags_come_as_a_dictionary_of_what_was_given() -> None:
    seen: list[object] = []

    def sample(flags: SampleFlags, extras: dict[str, object]) -> int:
        seen.append(extras)
        return 0

    hints: dict[str, object] = {
        "size": Annotated[int | None, flag(SHOW, "--size N", "Size"), values.count],
        "other": Annotated[Switch, flag(SHOW, "--other", "Other")],
    }
    assert run(make_command(sample, "sample", Page, hints), ["--size", "7"]) == 0
    assert seen == [{"size": 7}]


def test_a_value_that_cannot_be_read_names_its_flag() -> None:
    def sample(flags: SampleFlags) -> int:
        return 0

    with pytest.raises(UsageError, match=r"--rows '0': must be 1 or more"):
        run(make_command(sample, "sample", Page), ["--rows", "0"])
