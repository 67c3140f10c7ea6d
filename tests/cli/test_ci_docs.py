"""docs/ci and the composite action: valid for their platforms, with command lines that this program accepts.

A line that only looks like a command of ours teaches users a flag that does not exist.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kubectl_gadget.ci.assertions import parse_assertions
from kubectl_gadget.cli.command import Command, GadgetCommand, GadgetGroup, open_context
from kubectl_gadget.cli.root import root
from kubectl_gadget.cli.stored import PROGRAM
from kubectl_gadget.errors import UsageError
from tests.gadget_run import PROJECT

PAGES = sorted((PROJECT / "docs" / "ci").glob("*.md"))
ACTION = PROJECT / ".github" / "actions" / "kubectl-gadget" / "action.yml"
_COMMAND = re.compile(r"kubectl[ -]gadget ((?:ci|replay) [^|`]*)")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def validate(schema: str, *files: Path) -> None:
    """In this process, since the library takes longer to start than to check."""
    from check_jsonschema import main
    from click.testing import CliRunner

    result = CliRunner().invoke(main, ["--builtin-schema", schema, *map(str, files)])
    assert result.exit_code == 0, result.output


def test_each_page_is_in_the_index_and_says_what_was_not_run() -> None:
    index = (PROJECT / "docs" / "ci" / "README.md").read_text()
    for page in PAGES:
        if page.name != "README.md":
            assert f"({page.name})" in index
            assert "Checked here: " in page.read_text()
            assert "Not run here: " in page.read_text()


def test_workflows_and_the_action_are_valid_for_github(tmp_path: Path) -> None:
    found = blocks(PROJECT / "docs" / "ci" / "github-actions.md", "yaml")
    assert len(found) == 5
    files = [tmp_path / f"{number}.yml" for number in range(len(found))]
    for file, block in zip(files, found, strict=True):
        file.write_text(block)
    validate("vendor.github-workflows", *files)
    validate("vendor.github-actions", ACTION)


def test_the_pipeline_is_valid_for_gitlab(tmp_path: Path) -> None:
    (block,) = blocks(PROJECT / "docs" / "ci" / "gitlab.md", "yaml")
    (tmp_path / "ci.yml").write_text(block)
    validate("vendor.gitlab-ci", tmp_path / "ci.yml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_can_be_parsed(page: Path) -> None:
    for block in blocks(page, "yaml"):
        assert list(yaml.safe_load_all(block))


def commands(text: str) -> Iterator[list[str]]:
    """The words after `kubectl gadget` of each command in a page, as a shell splits them."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        for found in _COMMAND.findall(re.sub(r"\$\{[^}]*\}|\$\w+|\$\([^)]*\)", "x", line)):
            rest = found.split(" && ")[0]
            try:
                words = shlex.split(rest, comments=True)
            except ValueError:  # the command is in quotes itself
                words = shlex.split(rest[: rest.rindex("'")], comments=True)
            if len(words) > 1 and words[1] in ("run", "start", "step", "stop") and "COMMAND" not in words:
                yield words


def check(words: list[str]) -> None:
    """Raises UsageError for a flag or a value that does not exist."""
    command: Command = root()
    context = open_context(command, PROGRAM, list(words))
    while isinstance(command, GadgetGroup):
        name, *rest = context.args
        below = command.find(name, context.command_path)
        assert below is not None, name
        command, context = below, open_context(below, name, rest, context)
    assert isinstance(command, GadgetCommand)
    command.check(context)


@pytest.mark.parametrize("page", [*PAGES, ACTION], ids=lambda page: page.name)
def test_every_command_line_is_accepted(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    found = list(
        commands(
            text.replace("args: [ci, ", "args: kubectl gadget ci ").replace(", ", " ")
            if page.name == "argo.md"
            else text
        )
    )
    assert found, "the page has no command"
    for words in found:
        check(words)


def test_a_wrong_command_line_would_be_found() -> None:
    (words,) = commands("    kubectl gadget ci run --no-such-flag -- make")
    with pytest.raises(UsageError, match="unknown flag --no-such-flag"):
        check(words)


def test_the_assertions_of_the_page_are_valid() -> None:
    text = (PROJECT / "docs" / "ci" / "README.md").read_text()
    block = text.partition("### Assertions\n")[2].partition("\n\n")[0]
    found = parse_assertions("README.md", "\n".join(line[4:] for line in block.splitlines()))
    assert [each.name for each in found][-1] == "no shell"
    assert [(str(each.amount), each.per_pod) for each in found] == [
        ("== 0", False),
        (">= 1", False),
        ("== 1", True),
        ("== 0", False),
    ]


def run_action(tmp_path: Path, **inputs: str) -> "subprocess.CompletedProcess[str]":
    """Runs the action's script with programs that print their words."""
    script = yaml.safe_load(ACTION.read_text())["runs"]["steps"][1]["run"]
    for name in ("kubectl-gadget", "sudo"):
        fake = tmp_path / name
        fake.write_text(
            "#!/bin/bash\nprintf '%s\\n' \"$@\"\n" if name != "sudo" else '#!/bin/bash\nshift 3; exec "$@"\n'
        )
        fake.chmod(0o755)
    defaults = {"COMMANDS": "make", "FLAGS": "", "LOCAL": "true", "SARIF": ""}
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **defaults, **inputs}
    command = ["bash", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"FLAGS": '--fail-on=\'path == "/etc/shadow"'}, "flags: cannot be split into words"),
        ({"LOCAL": "True"}, "local: must be true or false, not 'True'"),
        ({"LOCAL": "::x"}, "not '??x'"),
        ({"LOCAL": ""}, "not ''"),
    ],
)
def test_inputs_that_the_action_does_not_understand_run_nothing(
    inputs: dict[str, str], said: str, tmp_path: Path
) -> None:
    ran = run_action(tmp_path, **inputs)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr


@pytest.mark.parametrize("flags", ["", "  \n "])
def test_the_action_works_without_flags(flags: str, tmp_path: Path) -> None:
    words = run_action(tmp_path, FLAGS=flags, LOCAL="false").stdout.splitlines()
    assert words == ["ci", "run", "--report", "markdown", "--", "bash", "-eo", "pipefail", "-c", "make"]


def test_the_actions_script_passes_its_inputs_on_as_they_are(tmp_path: Path) -> None:
    hostile = 'echo "a  b"; $(touch evil) `touch evil`'
    flags = "--fail-on 'path == \"/a b\"' --trace signal"
    ran = run_action(tmp_path, COMMANDS=hostile, FLAGS=flags, SARIF="t.sarif")
    words = ran.stdout.splitlines()
    user = words[words.index("--run-as") + 1]
    assert words == [
        *("ci", "run", "--local", "--run-as", user, "--fail-on", 'path == "/a b"', "--trace", "signal"),
        *("--report", "markdown", "--report", "sarif=t.sarif", "--", "bash", "-eo", "pipefail", "-c", hostile),
    ]
    assert not (tmp_path / "evil").exists()
