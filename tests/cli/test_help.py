"""Help of every command."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kubectl_gadget import gadgets
from kubectl_gadget.cli import main, pages
from kubectl_gadget.cli.command import Command, GadgetCommand, GadgetGroup
from kubectl_gadget.cli.gadgets import all_flags, gadget_command
from kubectl_gadget.cli.help import MOST_LINES
from kubectl_gadget.cli.pages import NAMED_ONLY
from kubectl_gadget.cli.root import root
from kubectl_gadget.cli.stored import PROGRAM
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets import GadgetSummary
from kubectl_gadget.gadgets.schema import Parameter
from tests.cli.sample_gadgets import TRACE_OPEN

COMMANDS = [
    [],
    *(name.split() for name in ("list", "demo", "deploy", "undeploy", "status", "version", "options", "run")),
    ["trace"],
    ["trace", "open"],
    ["top", "file"],
]


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main.run([*words, "--help"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_two_screens_and_80_columns(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    lines = help_of(capsys, *words).splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != ["trace"]], ids=" ".join)
def test_help_starts_with_examples_and_ends_with_usage(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    paragraphs = help_of(capsys, *words).split("\n\n")
    assert paragraphs[1].startswith("Examples:\n  # ")
    assert paragraphs[-1].startswith(f"Usage: {' '.join(['kubectl', 'gadget', *words])} ")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_never_calls_the_program_by_its_file_name(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert "kubectl-gadget" not in help_of(capsys, *words)


def test_help_of_a_gadget_explains_its_flags_and_columns(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "trace", "open")
    assert re.search(r"--failed +Only opens that failed", text)
    assert re.search(r"--max-depth N +How deep \(default: 8\)", text)
    assert re.search(r"PATH +as the program passed it", text)
    assert "-o wide adds: uid\n" in text


def test_help_names_no_flag_twice(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "trace", "open").partition("More flags")[0]
    flags = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)
    assert len(flags) == len(set(flags)) > 15


def test_the_shared_flags_are_all_explained_by_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["options"]) == 0
    text = capsys.readouterr().out
    named = help_of(capsys, "trace", "open").partition("More flags")[2]
    for flag in re.findall(r"--[a-z-]+", named):
        assert re.search(rf"{flag}[ ,]", text)


def test_every_flag_is_explained_by_the_help_of_its_command_or_with_the_shared_flags() -> None:
    shared = {flag.spellings[0] for flag in all_flags()}
    for words, command in commands(root()):
        for panel, options in command.text.panels().items():
            if panel in command.page().named_only:
                assert {option.spellings[0] for option in options} <= shared, words


def test_every_page_is_that_of_a_command_and_names_its_flags() -> None:
    top = root()
    for name in pages.written():
        command: Command | None = top
        for word in () if name == PROGRAM else name.split():
            assert isinstance(command, GadgetGroup), name
            command = command.find(word)
        assert command is not None, name
        page = command.page()
        assert page.summary, name
        if isinstance(command, GadgetCommand):
            assert {*page.silent, *page.named_only} - {*NAMED_ONLY} <= command.text.panels().keys(), name


def commands(group: GadgetGroup, *words: str) -> Iterator[tuple[tuple[str, ...], GadgetCommand]]:
    """All commands below a group; those of a demo and a replay are the same again."""
    for name in [name for name in group.entries if name not in ("demo", "replay")]:
        found = group.find(name)
        if isinstance(found, GadgetGroup):
            yield from commands(found, *words, name)
        elif found is not None:
            yield (*words, name), found


def test_the_help_of_the_program_lists_gadgets_by_verb(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    assert re.search(r"^  trace +Show events as they happen: open$", text, re.MULTILINE)
    assert text.index("  trace ") < text.index("  top ") < text.index("  run ")


@pytest.mark.parametrize(
    "words", [["help", "trace", "open"], ["trace", "open", "-h"], ["trace", "open", "--zzz", "-h"]]
)
def test_help_can_be_asked_for_in_other_ways(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    expected = help_of(capsys, "trace", "open")
    assert main.run(words) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("words", [[], ["trace"], ["run"]])
def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    expected = help_of(capsys, *words)
    assert main.run(words) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    "call", ["main.run(['trace', 'open', '--help'])", "complete.complete(['trace', 'open', '--'])"]
)
def test_the_commands_import_nothing_heavy_for_help_and_completion(built_in: list[GadgetSummary], call: str) -> None:
    program = f"""
import sys
from kubectl_gadget.cli import complete, main
print(len(str({call})))
print(*sorted(sys.modules), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(result.stdout) > 1
    loaded = set(result.stderr.split())
    assert loaded & {"typer"}
    heavy = {"numpy", "kubernetes", "rich", "pydantic", "yaml", "celpy", "jsonpath", "asyncio", "urllib3", "websockets"}
    assert loaded & heavy == set()


def test_help_of_every_built_in_gadget_fits_two_screens_and_starts_with_examples(
    built_in: list[GadgetSummary], capsys: pytest.CaptureFixture[str]
) -> None:
    for entry in built_in:
        text = help_of(capsys, *entry.command)
        assert text.count("\n") <= MOST_LINES
        assert max(map(len, text.splitlines())) <= 80
        assert text.split("\n\n")[1].startswith("Examples:\n  # ")


def test_no_built_in_gadget_has_a_flag_that_is_taken(built_in: list[GadgetSummary]) -> None:
    for entry in built_in:
        gadget = gadgets.load_gadget(entry.name)
        flags = gadget_command(gadget, "x").flag_texts
        spellings = [text for flag in flags for text in [*flag.spellings, *flag.negations]]
        assert len(spellings) == len(set(spellings))


def test_a_gadget_whose_flag_is_taken_is_refused() -> None:
    gadget = replace(TRACE_OPEN, parameters=(Parameter("timeout", "int", "taken", "gadget_timeout"),))
    with pytest.raises(UsageError, match="--timeout is taken"):
        gadget_command(gadget, "open")
