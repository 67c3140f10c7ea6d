"""What people type first, who know kubectl, bcc and other tools: each gets an answer that leads on."""

import re
import shlex
from pathlib import Path

import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.cli.command import equivalents
from kubectl_gadget.cli.pages import unknown_gadget
from kubectl_gadget.cli.root import root
from kubectl_gadget.gadgets import GadgetSummary
from tests.cli.conftest import Runs
from tests.gadget_run import PROJECT


def answer(capsys: pytest.CaptureFixture[str], line: str, code: int = 2) -> list[str]:
    """The lines on standard error."""
    assert main.run(shlex.split(line)) == code
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("line", "what", "meant"),
    [
        ("trace tcp udp icmp", "'udp' is a gadget", "kubectl gadget trace tcp+udp+icmp; a pod of this name is pod/udp"),
        ("trace tcp+udp icmp -A", "'icmp' is a gadget", "kubectl gadget trace tcp+udp+icmp; a pod of this name"),
        ("trace exec exec", "'exec' is a gadget", "kubectl gadget trace exec; a pod of this name is pod/exec"),
        ("top tcp udp", "'udp' is a gadget", "kubectl gadget top udp, in a run of its own; a pod of this name"),
        ("profile cpu offcpu", "'offcpu' is a gadget", "kubectl gadget profile offcpu, in a run of its own"),
        ("demo trace tcp udp", "'udp' is a gadget", "kubectl gadget demo trace tcp+udp"),
        ("record exec -n shop", "'exec' is a gadget", "kubectl gadget trace exec --record FILE; a pod of this name is"),
        ("record exec+open", "'exec+open' is a gadget", "kubectl gadget trace exec+open --record FILE"),
        ("observe dns", "'dns' is a gadget", "kubectl gadget trace dns; a pod of this name is pod/dns"),
        ("advise seccomp capabilities", "'capabilities' is an advisor", "kubectl gadget advise capabilities, in a run"),
    ],
)
def test_a_gadget_in_the_place_of_a_pod_is_not_a_pod_name(
    built_in: list[GadgetSummary], runs: Runs, capsys: pytest.CaptureFixture[str], line: str, what: str, meant: str
) -> None:
    error, remedy = answer(capsys, line)
    assert error.startswith(f"error: {what}, not a pod")
    assert remedy.startswith(f"try: {meant}")
    assert runs == []


def test_a_pod_with_the_name_of_a_gadget_can_be_chosen(built_in: list[GadgetSummary], runs: Runs) -> None:
    assert main.run(["trace", "tcp", "pod/udp", "web-1"]) == 0
    assert runs[-1].selection.pods == ("udp", "web-1")


def test_what_the_documents_print_as_a_command_is_one(built_in: list[GadgetSummary], runs: Runs) -> None:
    verbs = {entry.command[0] for entry in built_in}
    found = 0
    for page in (PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")):
        text = re.sub("```.*?```", "", page.read_text(), flags=re.DOTALL)
        for code in re.findall("`([^`\n]*)`", text):
            words = code.removeprefix("kubectl gadget ").split()
            if len(words) < 2 or words[0] not in verbs or not re.fullmatch("[a-z +]+", " ".join(words)):
                continue
            found += 1
            assert main.run(words) == 0, (page, code)
            assert runs[-1].selection.pods == (), (page, code)
    assert found > 20


def test_a_flag_that_fills_columns_shows_them(built_in: list[GadgetSummary], runs: Runs) -> None:
    for command, flag, names in (
        ("open", "--resolve", ("resolved", "differs")),
        ("capabilities", "--stack", ("stack",)),
        ("tcpdrop", "--stack", ("stack",)),
        ("tcpretrans", "--stack", ("stack",)),
    ):
        assert main.run(["trace", command, flag]) == 0
        assert main.run(["trace", command, f"{flag}=false"]) == 0
        with_it, without = (run.gadgets[0].gadget for run in runs[-2:])
        assert [with_it.column(name).show for name in names] == ["default"] * len(names)
        assert [without.column(name).show for name in names] == ["wide"] * len(names)


@pytest.mark.parametrize(
    ("line", "what", "meant"),
    [
        ("opensnoop", "unknown command 'opensnoop'", "kubectl gadget trace open"),
        ("tcpconnect -A", "unknown command 'tcpconnect'", "kubectl gadget trace tcp --connect"),
        ("logs xwing", "unknown command 'logs'", "kubectl gadget observe POD"),
        ("get pods", "unknown command 'get'", "kubectl gadget list"),
        ("ps", "unknown command 'ps'", "kubectl gadget snapshot process"),
        ("-w", "unknown flag -w", "kubectl gadget trace open, which goes on until Ctrl-C"),
        ("trace open -w", "unknown flag -w", "without -w: it goes on until Ctrl-C"),
        ("trace exec --follow", "unknown flag --follow", "without --follow: it goes on until Ctrl-C"),
        ("trace exec,open", "unknown gadget 'exec,open'", "kubectl gadget trace exec+open"),
        (
            "trace exec --pod web",
            "unknown flag --pod",
            "kubectl gadget trace exec POD; the name of a pod",
        ),
        ("trace exec --name nginx", "unknown flag --name", "--filter 'comm == \"NAME\"'"),
        ("trace open --duration 30s", "unknown flag --duration", "--timeout 30s"),
        ("trace open --last 5m", "unknown flag --last", "--timeout 30s"),
        ("tcpdump -r x.pcap", "unknown flag -r", "kubectl gadget replay FILE tcpdump"),
        ("version --short", "unknown flag --short", "--client"),
        ("trace open --json", "unknown flag --json", "-o json"),
        ("record exec,tcp", "record takes no gadgets", "kubectl gadget trace exec+tcp --record FILE"),
        ("bpftrace -e BEGIN{}", "unknown flag -e", "without -e: the program is an argument"),
        ("tcpdump -n -i any", "-n '-i': is a flag, and the name of a namespace was expected", "kubectl gadget tcpdump"),
        ("help nope", "unknown command 'nope'", "kubectl gadget --help"),
    ],
)
def test_what_other_tools_call_otherwise_is_translated(
    built_in: list[GadgetSummary], runs: Runs, capsys: pytest.CaptureFixture[str], line: str, what: str, meant: str
) -> None:
    error, remedy = answer(capsys, line)
    assert error == f"error: {what}"
    assert remedy.startswith(f"try: {meant}")
    assert runs == []


def test_tcpdump_takes_its_expression_after_the_pods(built_in: list[GadgetSummary], runs: Runs) -> None:
    for line, pods, expression in (
        ("tcpdump port 80 -i any", (), "port 80"),
        ("tcpdump xwing web-1 tcp port 80 or 443", ("xwing", "web-1"), "tcp port 80 or 443"),
        ("tcpdump xwing 'udp and not port 53'", ("xwing",), "udp and not port 53"),
        ("tcpdump pod/tcp -- udp", ("tcp",), "udp"),
        ("tcpdump 10.0.0.1", (), "host 10.0.0.1"),
        ("tcpdump --pcap udp port 53", (), "(udp) and (port 53)"),
    ):
        assert main.run(shlex.split(line)) == 0, line
        assert runs[-1].selection.pods == pods
        assert runs[-1].gadgets[0].parameters["pcap"] == expression


def test_tcpdump_writes_packets_to_a_file(
    built_in: list[GadgetSummary], runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "f.pcap"
    assert main.run(["tcpdump", "-w", str(place), "port", "80"]) == 0
    assert runs[-1].output.format == "pcap-ng"
    assert place.exists()
    assert answer(capsys, f"tcpdump -w {tmp_path}/no/f.pcap")[0].startswith("error: -w ")
    assert answer(capsys, f"tcpdump -w {place} -o json")[0] == "error: -w and -o json cannot be used together"


@pytest.mark.parametrize(
    ("line", "what", "meant"),
    [
        ("tcpdump -i eth0", "-i: the interface 'eth0' cannot be chosen", "-i any"),
        ("tcpdump -nn port 80", "-n n: -n is the namespace", "without -n"),
        ("tcpdump -n port 80", "-n port: -n is the namespace", "without -n"),
        ("tcpdump -c 10", "-c 10: -c is the name of a container", "--max-events 10"),
    ],
)
def test_flags_that_mean_something_else_to_tcpdump_are_not_taken_silently(
    built_in: list[GadgetSummary], runs: Runs, capsys: pytest.CaptureFixture[str], line: str, what: str, meant: str
) -> None:
    error, remedy = answer(capsys, line)
    assert error.startswith(f"error: {what}")
    assert remedy.startswith(f"try: {meant}")
    assert runs == []


def test_gadgets_are_listed_by_group_or_verb(built_in: list[GadgetSummary], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["list", "network", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == [entry.name for entry in built_in if entry.group == "network"]
    assert main.run(["list", "top", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == [entry.name for entry in built_in if entry.command[0] == "top"]


def test_pods_may_be_chosen_by_a_pattern(built_in: list[GadgetSummary], runs: Runs) -> None:
    assert main.run(["trace", "exec", "api-*"]) == 0
    assert runs[-1].selection.pods == ("api-*",)


def test_the_version_is_reported_as_other_programs_report_it(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--version", "-V"):
        assert main.run([flag]) == 0
        assert capsys.readouterr().out.startswith("Client: ")


def test_help_alone_and_of_a_command_is_help(built_in: list[GadgetSummary], capsys: pytest.CaptureFixture[str]) -> None:
    for line, words in (
        ("help", "Usage: kubectl gadget COMMAND"),
        ("help trace open", "Usage: kubectl gadget trace open"),
    ):
        assert main.run(line.split()) == 0
        assert words in capsys.readouterr().out


def test_names_of_other_tools_suggest_the_equivalent_commands(built_in: list[GadgetSummary]) -> None:
    entries = root().entries
    gadgets = {" ".join(entry.command) for entry in built_in}
    for name, meant in equivalents("commands").items():
        assert name not in entries
        assert unknown_gadget(name, "kubectl gadget") is None, name
        words = meant.replace(",", " ").replace(";", " ").split()
        assert words[0] in entries, meant
        assert (
            len(words) == 1 or words[0] not in ("trace", "top", "snapshot", "profile") or " ".join(words[:2]) in gadgets
        )
