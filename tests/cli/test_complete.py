"""What the TAB key offers."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.cli import complete, main
from kubectl_gadget.cli.arguments import Given
from kubectl_gadget.gadgets import GadgetSummary
from tests.cli.conftest import Runs

PROGRAMS = Path(sys.executable).parent


def offered(*words: str) -> list[str]:
    return [candidate.word for candidate in complete.complete(words)[0]]


def directive(*words: str) -> int:
    return complete.complete(words)[1]


@pytest.fixture
def kubectl(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """kubectl answers every question with two names; gives back what it was asked."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        asked.append(command)
        names = "NAME\nalpha\nbeta\n" if command[1] == "config" else "pod/alpha\npod/beta\n"
        return subprocess.CompletedProcess(command, 0, names, "")

    monkeypatch.setattr(complete, "_run", run)
    return asked


def test_commands_are_offered_with_their_summaries() -> None:
    candidates, number = complete.complete(["tr"])
    assert candidates == [complete.Suggestion("trace", "Show events as they happen: open")]
    assert number == complete.NO_FILES


def test_gadgets_of_a_verb_are_completed_also_after_flags() -> None:
    assert offered("trace", "") == offered("-n", "x", "trace", "-A", "") == ["open"]


def test_flags_are_completed_long_ones_first_and_without_negations() -> None:
    flags = offered("trace", "open", "-")
    assert {"--failed", "--namespace", "-n", "--help"} <= set(flags)
    assert offered("trace", "open", "--fa") == ["--failed", "--fail-on"]
    assert [flag for flag in flags if flag in ("--no-failed", "--sort")] == []


@pytest.mark.parametrize("words", [["-o", ""], ["-o="], ["--output", ""], ["--output="], ["-A", "-o", ""]])
def test_output_formats_are_offered_however_the_value_is_attached(words: Sequence[str]) -> None:
    assert offered("trace", "open", *words)[:3] == ["table", "wide", "json"]


def test_no_space_follows_a_format_that_takes_a_template() -> None:
    assert offered("trace", "open", "-o", "jsonp") == ["jsonpath="]
    assert directive("trace", "open", "-o", "jsonp") == complete.NO_FILES_NO_SPACE


def test_columns_are_completed_after_those_already_typed() -> None:
    assert offered("trace", "open", "--columns", "pid,co") == ["pid,container", "pid,comm"]


def test_files_are_left_to_the_shell() -> None:
    assert complete.complete(["trace", "open", "--kubeconfig", ""]) == ([], complete.FILES)
    for words in (
        ["run"],
        ["bcc"],
        ["bpftrace"],
        *(["recording", name] for name in ("info", "redact", "query", "convert")),
    ):
        assert complete.complete([*words, ""]) == ([], complete.FILES)


def test_the_demo_is_offered_gadgets_word_by_word() -> None:
    assert {"trace", "top", "observe", "flows"} <= set(offered("demo", "")) < set(offered(""))
    assert offered("demo", "top", "") == ["file"]


@pytest.mark.parametrize("words", [["nope", ""], ["trace", "nope", ""], ["trace", "open", "--path", ""]])
def test_nothing_is_offered_where_nothing_is_known(words: Sequence[str]) -> None:
    assert complete.complete(words) == ([], complete.NO_FILES)


def test_pods_are_asked_for_with_the_flags_that_were_given(kubectl: list[list[str]]) -> None:
    assert offered("--context", "c", "trace", "open", "-n", "ns1", "--as=me", "alpha", "") == ["beta"]
    assert kubectl == [
        ["kubectl", "get", "pods", "--namespace=ns1", "-o=name", "--context=c", "--as=me", "--request-timeout=2s"]
    ]


def test_workloads_are_asked_for_by_the_kind_that_was_typed(kubectl: list[list[str]]) -> None:
    assert offered("trace", "open", "-n", "ns1", "deploy/al") == ["deploy/alpha"]
    assert [command[:4] for command in kubectl] == [["kubectl", "get", "deployments", "--namespace=ns1"]]
    assert offered("trace", "open", "nosuch/") == []


def test_kinds_are_completed_with_a_slash_and_without_a_space(kubectl: list[list[str]]) -> None:
    assert offered("trace", "open", "dep") == ["deployment/", "deployments/", "deploy/"]
    assert directive("trace", "open", "dep") == complete.NO_FILES_NO_SPACE
    assert offered("trace", "open", "") == ["alpha", "beta"]


@pytest.mark.parametrize("flag", ["-n", "--node", "--context", "--cluster", "--user", "--node=alpha,"])
def test_names_of_the_cluster_and_the_kubeconfig_are_offered(kubectl: list[list[str]], flag: str) -> None:
    words = [flag] if "=" in flag else [flag, ""]
    assert [word.rpartition(",")[2] for word in offered("trace", "open", *words)] == ["alpha", "beta"]
    assert len(kubectl) == 1


def test_no_cluster_is_asked_for_the_pods_of_this_machine(kubectl: list[list[str]]) -> None:
    assert offered("trace", "open", "--local", "") == []
    assert kubectl == []


@pytest.mark.parametrize(
    "error", [FileNotFoundError(), subprocess.TimeoutExpired("kubectl", 2), subprocess.CalledProcessError(1, "kubectl")]
)
def test_a_kubectl_that_fails_offers_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(complete, "_run", run)
    assert complete.pods([Given("namespace", "x", "-n")]) == []


@pytest.fixture
def nothing_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are those of the sample gadgets."""
    monkeypatch.setattr(complete, "is_current", lambda: False)


@pytest.mark.usefixtures("nothing_stored")
def test_the_program_prints_tabs_and_ends_with_the_directive(capsys: pytest.CaptureFixture[str]) -> None:
    complete.answer(["tr"])
    assert capsys.readouterr().out == "trace\tShow events as they happen: open\n:4\n"


@pytest.mark.usefixtures("nothing_stored")
def test_an_error_is_not_shown_in_the_middle_of_what_is_typed(capfd: pytest.CaptureFixture[str]) -> None:
    complete.answer(["trace", "open", "--zzz", ""])
    assert capfd.readouterr() == (":4\n", "")


def test_the_program_answers_on_standard_output_alone() -> None:
    for words, answer in ((["--zzz", ""], ":4\n"), (["trac"], "trace\tShow events as they happen: ")):
        command = [sys.executable, "-m", "kubectl_gadget.cli.complete", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout[: len(answer)], done.stderr) == (0, answer, "")


def test_a_name_cannot_break_out_of_its_line() -> None:
    assert complete._line(complete.Suggestion("a\nb\x1b", "c")) == "ab\tc"


@pytest.mark.parametrize("words", ["list -o", "list --output", "trace open --color", "trace open -o"])
def test_every_value_that_is_offered_is_accepted(runs: Runs, words: str) -> None:
    candidates = offered(*words.split(), "")
    assert len(candidates) > 1
    for word in candidates:
        assert main.run([*words.split(), word + "{.pod}" * word.endswith("=")]) == 0


@pytest.mark.skipif(
    not (shutil.which("kubectl") and (PROGRAMS / "kubectl_complete-gadget").exists()),
    reason="kubectl, or kubectl_complete-gadget beside this Python, is not installed",
)
def test_kubectl_itself_hands_on_what_is_offered(built_in: list[GadgetSummary]) -> None:
    environment = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    command = ["kubectl", "__complete", "gadget", "trace", "open", "--fail"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    names = [line.partition("\t")[0] for line in result.stdout.splitlines()]
    assert names == ["--failed", "--fail-on", ":4"]


def test_gadgets_are_completed_after_those_already_typed(built_in: list[GadgetSummary]) -> None:
    assert offered("trace", "exec+op") == ["exec+open"]
    assert "exec+open+exec" not in offered("trace", "exec+open+")
    assert offered("top", "tcp+") == []
    assert "--columns" in offered("trace", "exec+open", "--col")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("trace open --errno EAC", ["EACCES"]),
        ("trace signal --signal SIGTE", ["SIGTERM"]),
        ("trace capabilities --capability CAP_SYS_T", ["CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG"]),
        ("trace lsm --hook file_o", ["file_open"]),
        ("trace lsm --hook file_open,file_rec", ["file_open,file_receive"]),
        ("top pod --sort -mem", ["-memory", "-memory_stalled"]),
        ("top pod --sort cpu,-mem", ["cpu,-memory", "cpu,-memory_stalled"]),
        ("top pod --by node,name", ["node,namespace"]),
        ("trace open --columns +tid", ["+tid"]),
    ],
)
def test_names_of_values_and_columns_are_offered(built_in: list[GadgetSummary], words: str, names: list[str]) -> None:
    assert offered(*words.split()) == names
