"""Help and completion of what the build has stored are those of the commands themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget.cli import main, stored
from kubectl_gadget.cli.complete import complete
from kubectl_gadget.cli.describe import commands, store, text_of
from kubectl_gadget.cli.root import root
from kubectl_gadget.cli.stored import NotStored, StoredCommand, help_text
from kubectl_gadget.gadgets import GadgetSummary


@pytest.fixture(scope="module")
def written(catalogue_built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that has the texts of all commands."""
    package = tmp_path_factory.mktemp("tree") / "kubectl_gadget"
    folder = package / "built" / "commands"
    folder.mkdir(parents=True)
    (folder / "gadget_gone.json").touch()
    store(folder)
    return package


@pytest.fixture
def texts(written: Path, built_in: list[GadgetSummary], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with these texts, which is used."""
    folder = written / "built" / "commands"
    monkeypatch.setattr(stored, "FOLDER", folder)
    monkeypatch.setattr(stored, "PACKAGE", written)
    return folder


def test_all_commands_are_stored_as_they_are(texts: Path) -> None:
    found = dict(commands(root()))
    assert len(found) > 100
    (file,) = texts.iterdir()  # a hundred take three times as much in a wheel
    for path, command in found.items():
        assert json.dumps(StoredCommand(path).text) == json.dumps(text_of(command)), path
    assert StoredCommand(("trace", "open")).text.flags[0].shown.startswith("--")
    assert file.read_text().count("Pods of all namespaces") == 1


@pytest.mark.parametrize("columns", ["80", "137"])
@pytest.mark.parametrize("words", ["", "trace", "trace open", "ci run"])
def test_help_is_that_of_the_command(
    texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main.run([*words.split(), "--help"]) == 0
    text = help_text([*words.split(), "--help"])
    assert text == help_text([*words.split(), "-h"]) == capsys.readouterr().out


def test_a_group_without_a_command_shows_its_help(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["trace"]) == 0
    assert help_text(["trace"]) == capsys.readouterr().out
    assert help_text(["trace", "open"]) is None  # which would run


@pytest.mark.parametrize(
    "words", ["replay", "demo", "run gadget.yaml", "trace nope", "trace ../open", "trace exec+open"]
)
def test_other_commands_have_to_be_asked(texts: Path, words: str) -> None:
    assert help_text([*words.split(), "--help"]) is None
    assert help_text(["trace open", "--help"]) is None  # one word


def test_defaults_of_the_user_are_known_to_the_command_alone(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert help_text(["trace", "open", "--help"])
    monkeypatch.setenv("KUBECTL_GADGET_OUTPUT", "json")
    assert help_text(["trace", "open", "--help"]) is None
    assert help_text(["trace", "--help"])


LINES = (
    *(
        "",
        "tr",
        "nope ",
        "trace ",
        "trace op",
        "trace open -",
        "-n x trace open --fa",
        "trace open -o ",
        "trace open -o=js",
    ),
    *("trace open --errno EAC", "trace lsm --hook file_open,file_rec", "top pod --sort -mem", "top pod --by node,na"),
    *("trace open --columns pid,co", "trace open --kubeconfig ", "bcc ", "advise ", "policy ", "recording info "),
    *("trace open --local ", "ci ", "run "),
)


@pytest.mark.parametrize("line", LINES)
def test_completion_is_that_of_the_command(texts: Path, line: str) -> None:
    *before, last = line.split(" ")
    try:
        found = complete([*before, last], StoredCommand())
    except NotStored:
        assert line == "nope "
    else:
        assert found == complete([*before, last])


@pytest.mark.parametrize("line", ["trace exec+op", "trace exec+open ", "run gadget.yaml ", "demo tra", "replay x.kgr "])
def test_completion_of_other_commands_has_to_be_asked(texts: Path, line: str) -> None:
    *before, last = line.split(" ")
    with pytest.raises(NotStored):
        complete([*before, last], StoredCommand())


def test_texts_that_are_older_than_the_code_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, project = tmp_path / "kubectl_gadget", tmp_path / "pyproject.toml"
    top, module = package / "built" / "commands" / stored.NAME, package / "cli" / "root.py"
    monkeypatch.setattr(stored, "FOLDER", top.parent)
    monkeypatch.setattr(stored, "PACKAGE", package)
    assert not stored.is_current()
    for path, age in ((top, 50), (module, 60)):
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (age, age))
    assert stored.is_current()  # an installed package does not change
    project.touch()
    assert not stored.is_current()
    assert help_text(["--help"]) is None
    os.utime(top, (70, 70))
    assert stored.is_current()


@pytest.mark.parametrize(
    "call", ["main.run(['trace', 'open', '--help'], as_stored=True)", "complete.answer(['trace', 'open', '--'])"]
)
def test_what_is_stored_is_shown_without_typer_and_flags(texts: Path, call: str) -> None:
    program = f"""
import sys
from pathlib import Path
from kubectl_gadget.cli import complete, main
from kubectl_gadget.cli import stored
stored.FOLDER, stored.PACKAGE = Path({str(texts)!r}), Path({str(stored.PACKAGE)!r})
{call}
print(*set(sys.modules) - before, file=sys.stderr)
"""
    command = [sys.executable, "-c", "import sys; before = set(sys.modules)" + program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--failed" in done.stdout
    loaded = {name for name in done.stderr.split() if not name.startswith("kubectl_gadget")}
    assert loaded & {"typer", "dataclasses", "inspect", "subprocess", "asyncio", "numpy"} == set()
    assert f"{main.__package__}.flags" not in done.stderr
