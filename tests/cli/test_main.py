"""Exit codes, and messages of failures."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.errors import DEBUG, AgentError, ClusterError
from kubectl_gadget.gadgets import GadgetSummary
from tests.cli.conftest import Runs
from tests.gadget_run import GADGET


def test_the_exit_code_of_the_session_is_handed_on(runs: Runs) -> None:
    for code in (0, 1, 4, 130, 143):
        runs.outcome = code
        assert main.run(["trace", "open"]) == code


def test_an_error_is_reported_with_its_remedy_on_standard_error(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.outcome = ClusterError("the API server is away", "kubectl cluster-info")
    assert main.run(["trace", "open"]) == 1
    assert capsys.readouterr() == ("", "error: the API server is away\ntry: kubectl cluster-info\n")


def test_escape_codes_in_an_error_do_not_reach_the_terminal(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.outcome = AgentError("container \x1b[31mevil\x07 is\nodd")
    main.run(["trace", "open"])
    assert capsys.readouterr().err == "error: container \\x1b[31mevil\\x07 is\nodd\n"


def test_ctrl_c_outside_of_a_session_ends_with_130_and_no_words(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.outcome = KeyboardInterrupt()
    assert main.run(["trace", "open"]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_unexpected_error_is_one_line_and_its_traceback_goes_to_a_file(
    runs: Runs, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runs.outcome = KeyError("surprise")
    assert main.run(["trace", "open"]) == 1
    error = capsys.readouterr().err
    (kept,) = tmp_path.iterdir()
    assert error.splitlines()[0] == "error: internal error: KeyError: 'surprise'"
    assert str(kept) in error
    assert "Traceback" not in error
    assert "Traceback" in kept.read_text()


def test_another_broken_pipe_than_that_of_the_output_is_not_a_success(
    runs: Runs, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runs.outcome = BrokenPipeError(32, "Broken pipe")
    assert main.run(["trace", "open"]) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


def test_an_unexpected_error_shows_its_traceback_when_that_is_asked_for(
    runs: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEBUG, "1")
    runs.outcome = KeyError("surprise")
    assert main.run(["trace", "open"]) == 1
    assert "Traceback" in capsys.readouterr().err


WRITING = [
    "version --client",
    "list",
    "list -o json",
    "--help",
    "trace open --help",
    "options",
    "policy list",
    "policy explain",
    "deploy --dry-run=client",
]


def in_shell(words: str, redirections: str) -> tuple[int, str, str]:
    """Exit code and both outputs of a command line."""
    command = ["/bin/sh", "-c", f"{shlex.join(GADGET)} {words} {redirections}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.parametrize("words", WRITING)
@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">&-", "standard output is closed"), (">/dev/full", "No space left on device"), ("1</dev/null", "is closed")],
)
def test_what_cannot_be_written_is_an_error_with_its_reason(words: str, redirection: str, why: str) -> None:
    code, _, said = in_shell(words, redirection)
    assert code == 1
    assert said.startswith("error: the output cannot be written: ")
    assert why in said.splitlines()[0]
    assert "internal error" not in said


@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.parametrize("words", ["trace open --local", "observe --local", "flows --local", "top file --local"])
def test_a_run_with_closed_output_begins_nothing(words: str) -> None:
    code, _, said = in_shell(words, ">&-")
    assert (code, said.splitlines()[0]) == (1, "error: the output cannot be written: standard output is closed")
    assert "to stop" not in said


@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
@pytest.mark.parametrize("unbuffered", ["", "PYTHONUNBUFFERED=1"])
def test_without_standard_error_or_input_a_command_does_the_same(redirection: str, unbuffered: str) -> None:
    code, out, _ = in_shell("list -o name", redirection)
    assert (code, out) == (0, in_shell("list -o name", "")[1])
    assert out
    assert in_shell("trace opne", redirection)[:2] == (2, "")
    command = f"{unbuffered} {shlex.join(GADGET)} trace opne {redirection}"
    assert subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False).returncode == 2


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    command = " ".join([*GADGET, "options"])
    shell = f"set -o pipefail; {command} | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_standard_input_that_is_closed_is_empty() -> None:
    command = f"{shlex.join([*GADGET, 'policy', 'check', '-f', '-'])} <&- >&-"
    ended = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr.split("\n")[0]) == (2, "error: no policy was found in standard input")


@pytest.mark.parametrize(
    ("words", "error", "remedy"),
    [
        ("trac", "unknown command 'trac'", "kubectl gadget trace"),
        ("open", "unknown command 'open'", "kubectl gadget trace open"),
        ("trace_open", "unknown command 'trace_open'", "kubectl gadget trace open"),
        ("getevents -o compact", "unknown command 'getevents'", "kubectl gadget observe"),
        ("policy add p.yaml", "unknown command 'add'", "kubectl gadget policy install"),
        ("zzz", "unknown command 'zzz'", "kubectl gadget --help"),
        ("trace opne", "unknown gadget 'opne'", "kubectl gadget trace open"),
        ("trace open+opne", "unknown gadget 'opne'", "kubectl gadget trace open"),
        ("trace file", "unknown command 'file'", "kubectl gadget top file"),
        ("trace open --faild", "unknown flag --faild", "--failed"),
        ("trace open --zzz", "unknown flag --zzz", "kubectl gadget trace open --help"),
        ("trace open --foo", "unknown flag --foo", "kubectl gadget trace open --help"),
        ("flows --local --from-ip x", "--from-ip: 'x' does not appear to be", "10.0.0.0/8"),
        ("observe --local -e exec,x", "-e: 'x' must be one of exec, exit", "kubectl gadget observe --help"),
        ("--zzz trace open", "unknown flag --zzz", "kubectl gadget --help"),
        ("list netwok", "'netwok' is not a group of gadgets", "trace"),
        ("policy check p.yaml", "policy check takes no argument 'p.yaml'", "kubectl gadget policy check -f p.yaml"),
        ("list -o jsn", "-o 'jsn': must be one of table, json, name; did you mean json?", "list --help"),
        ("demo open", "unknown command 'open'", "kubectl gadget demo trace open"),
        ("demo deploy", "unknown command 'deploy'", "kubectl gadget demo --help"),
        ("deploy --dry-run=server", "must be one of none, client", "deploy --help"),
        ("deploy --dry-run", "flag --dry-run needs a value", "try: --dry-run client"),
        ("deploy -o yaml", "is only for --dry-run=client", "--dry-run=client -o yaml"),
        ("deploy --wait=false --timeout 5s", "--timeout and --wait=false", "deploy --help"),
    ],
)
def test_a_command_line_that_is_wrong_exits_2_and_offers_what_was_meant(
    capsys: pytest.CaptureFixture[str], words: str, error: str, remedy: str
) -> None:
    assert main.run(words.split()) == 2
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert output.out == ""
    assert len(lines) == 2
    assert error in lines[0]
    assert lines[1].startswith("try: ")
    assert remedy in lines[1]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("trace mount --operation fsmuont", "did you mean fsmount"),
        ("trace signal --signal 99", "expected 1–64"),
        ("trace fsslower --min 5ns", "is not a whole number of us"),
        ("trace exit --longer 1.5", "has no unit"),
    ],
)
def test_what_a_gadget_does_not_know_is_refused_before_anything_runs(
    built_in: list[GadgetSummary], capsys: pytest.CaptureFixture[str], words: str, error: str
) -> None:
    assert main.run(words.split()) == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(("words", "hinted"), [("observe flows", True), ("observe web", False)])
def test_observe_flows_is_about_a_pod_and_names_the_other_command(
    capsys: pytest.CaptureFixture[str], words: str, hinted: bool
) -> None:
    # A flag of observe; it has to be refused only after the command was found.
    assert main.run([*words.split(), "--local", "--timestamps", "-o", "json"]) == 2
    said = capsys.readouterr().err
    assert "--timestamps and --show are only for lines" in said
    assert ("for network flows: kubectl gadget flows" in said) is hinted


INTERRUPTED = """
import os, signal, sys
from kubectl_gadget.cli.main import main

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            sys.argv.pop(1)
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
main()
"""


@pytest.mark.parametrize(
    "module",
    [
        "kubectl_gadget.output.terminal",
        "kubectl_gadget.run.local_agent",
        "typer",
        "kubectl_gadget.cli.root",
    ],
)
def test_ctrl_c_while_it_starts_shows_no_traceback(module: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, module, "list", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode in (130, -signal.SIGINT)


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_ctrl_c_where_python_cannot_fail_is_not_lost(seconds: float) -> None:
    """Also where a busy machine takes so long to start a thread."""
    code = f"""
import os, signal, sys, threading, time
from kubectl_gadget.cli import main

start = threading.Thread.start

def start_slowly(thread):
    start(thread)
    time.sleep({seconds})

threading.Thread.start = start_slowly

class Freed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

def run(words, as_stored):
    Freed()
    time.sleep(60)
    print("went on")

main.run = run
main.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_nothing_looks_for_garbage_while_a_command_is_imported() -> None:
    program = """
import gc, sys
from kubectl_gadget.cli.main import main

gc.callbacks.append(lambda phase, info: sys.stdout.write("garbage"))
sys.argv[1:] = ["trace", "open", "--local", "--filter", "nothing == 1", "--max-events", "0"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
