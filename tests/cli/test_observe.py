"""The command line of observe, up to the session."""

import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.gadgets.load import load_gadget
from tests.cli.conftest import Runs


@pytest.fixture(autouse=True)
def _real_catalogue(catalogue_built: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.gadgets.load_gadget", load_gadget)


def test_it_follows_processes_and_on_request_files(runs: Runs) -> None:
    assert main.run(["observe", "--local"]) == 0
    assert [run.gadget.name for run in runs[0].gadgets] == ["trace_process"]
    assert main.run(["observe", "--local", "--files", "/etc,/root/.ssh"]) == 0
    assert {run.gadget.name: run.parameters for run in runs[1].gadgets} == {
        "trace_fileuse": {"path": "/etc,/root/.ssh"},
        "trace_process": {},
    }


@pytest.mark.parametrize(
    ("format", "is_own"), [("compact", True), ("json", True), ("jsonpb", True), ("table", False), ("csv", False)]
)
def test_lines_and_json_have_sinks_of_their_own(runs: Runs, format: str, is_own: bool) -> None:
    assert main.run(["observe", "--local", "-o", format]) == 0
    assert (runs[0].make_sink is not None) == is_own
    assert runs[0].transform is not None


@pytest.mark.parametrize(
    "words",
    [
        "-o pcap-ng",
        "-o nope",
        "--tree -o json",
        "--timestamps -o json",
        "--show pid --tree",
        "--show nope",
        "--ancestors",
        "--tree -o jsonpb",
        "-o jsonpb --files /etc",
        "-o jsonpb --flows",
        "-o jsonpb -e exec,connect",
        "-o jsonpb --columns pid",
        "--columns pid",
        "--process (",
        "--pod [",
        "--pod (?=a)",
        "-e exce",
        "--files etc",
        "--files /a/../b",
        "--no-sort",
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    runs: Runs, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert main.run(["observe", "--local", *words.split()]) == 2
    assert runs == []
    assert "error: " in capsys.readouterr().err


def test_event_types_are_taken_in_both_spellings(runs: Runs) -> None:
    assert main.run(["observe", "--local", "-e", "exec,PROCESS_EXIT", "--event-types", "process_lsm"]) == 0
