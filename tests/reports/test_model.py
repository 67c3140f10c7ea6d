"""The verdict, and fingerprints that are equal in the next run."""

import pytest

from kubectl_gadget.reports.model import (
    Activity,
    Check,
    Explanation,
    FileUse,
    Finding,
    RemoteEnd,
    RunReport,
    SeenProcess,
    Severity,
    Status,
    Where,
    folded,
    limited,
    stable,
    workload_of,
)
from kubectl_gadget.reports.readable import log_lines, render_markdown


def run(*checks: Check, incomplete: tuple[str, ...] = (), code: int | None = 0) -> RunReport:
    """A report with these checks."""
    return RunReport("1", "here", "", 1, ("make",), code, checks, incomplete)


ERROR = Check("assertion", "a", findings=(Finding("assertion/a", Severity.ERROR, "no"),))
WARNING = Check("baseline", "b", findings=(Finding("baseline/b", Severity.WARNING, "new"),))
PASSED = Check("assertion", "c")
UNDECIDED = Check("assertion", "d", undecided="events were lost")


@pytest.mark.parametrize(
    ("report", "status", "code"),
    [
        (run(PASSED), Status.PASSED, 0),
        (run(), Status.PASSED, 0),
        (run(WARNING), Status.PASSED, 0),
        (run(ERROR), Status.FINDINGS, 4),
        (run(UNDECIDED), Status.INCONCLUSIVE, 5),
        (run(PASSED, incomplete=("7 events were lost",)), Status.INCONCLUSIVE, 5),
        (run(incomplete=("node n failed",)), Status.INCONCLUSIVE, 5),
        (run(ERROR, incomplete=("7 events were lost",)), Status.FINDINGS, 4),
        (run(ERROR, code=3), Status.FINDINGS, 3),
        (run(PASSED, code=3, incomplete=("lost",)), Status.INCONCLUSIVE, 3),
    ],
)
def test_the_verdict_and_the_exit_code(report: RunReport, status: Status, code: int) -> None:
    assert (report.status, report.exit_code) == (status, code)


def test_a_command_that_failed_is_in_the_verdict() -> None:
    assert run(PASSED, code=3).verdict() == "the command failed with exit code 3; passed: 1 check passed"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/tmp/tmp.Ab12Cd34Ef/x", "/tmp/tmp.Zz98Yy76Xx/x"),
        ("/proc/1234/status", "/proc/99/status"),
        ("web-7d4b9c6f5b-x2x7k", "web-5f6d8c9b4b-zz9kw"),
        ("/run/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/run/9b2504e0-4f89-41d3-9a0c-0305e82c33ff"),
        (
            "/var/lib/docker/4b825dc642cb6eb9a060e54bf8d69288fbee4904",
            "/var/lib/docker/0123456789abcdef0123456789abcdef01234567",
        ),
        ("cc1 /tmp/ccAb12Cd.s", "cc1 /tmp/ccXy98Zw.s"),
        ("2026-01-02T03:04:05", "2027-11-12T13:14:15"),
        ("10.0.0.1:40001", "10.0.0.1:50002"),
        ("[2001:db8::1]:40001", "[2001:db8::1]:50002"),
    ],
)
def test_what_differs_between_runs_is_not_in_a_fingerprint(one: str, other: str) -> None:
    assert stable(one) == stable(other)
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/etc/shadow", "/etc/passwd"),
        ("/usr/bin/curl", "/usr/bin/wget"),
        ("kube-proxy", "kube-scheduler"),
        ("1.2.3.4:443", "66.6.6.66:443"),
        ("1.2.3.4:443", "1.2.3.4:4444"),
        ("1.2.3.4:40000", "66.6.6.66:40000"),
        ("curl http://1.2.3.4/x", "curl http://66.6.6.66/x"),
        ("2001:db8::1", "2001:db8::2"),
        ("[2001:db8::1]:443", "[2001:db8::1]:444"),
        ("[::ffff:1.2.3.4]:443", "[::ffff:1.2.3.5]:443"),
        ("[fe80:0:0:0:1:2:3:4]:443", "[fe80:0:0:0:1:2:3:5]:443"),
    ],
)
def test_what_is_another_thing_has_another_fingerprint(one: str, other: str) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_a_fingerprint_has_no_pod_node_count_or_time() -> None:
    one = Finding("r", Severity.ERROR, "m", Where("ns", "web-*", "c", "web-7d4b9c6f5b-x2x7k", "n1"), ("x",), (), 1, "t")
    other = Finding(
        "r", Severity.NOTE, "n", Where("ns", "web-*", "c", "web-5f6d8c9b4b-zz9kw", "n2"), ("x",), (), 9, "u"
    )
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        ("web-7d4b9c6f5b-x2x7k", "web-*"),
        ("agent-x2x7k", "agent-*"),
        ("db-0", "db-0"),
        ("xwing", "xwing"),
        ("my-service", "my-service"),
    ],
)
def test_the_workload_of_a_pod(pod: str, workload: str) -> None:
    assert workload_of(pod) == workload


def fingerprint(text: str) -> str:
    return Finding("rule", Severity.ERROR, "", Where("ns", "w", "c"), (text,)).fingerprint


def similar(*names: str, level: Severity = Severity.WARNING) -> list[Finding]:
    return [Finding("baseline/open", level, f"new: cp writes {name}", identity=("new", "cp", name)) for name in names]


def test_similar_findings_are_one_with_a_number_and_errors_are_not() -> None:
    many = [f"write /srv/a/{number}" for number in range(5)]
    found = similar(*many, "write /srv/b/x", "write /srv/b/y")

    assert [(finding.identity[2], more) for finding, more in folded(found)] == [
        ("write /srv/a/0", 4),
        ("write /srv/b/x", 0),
        ("write /srv/b/y", 0),
    ]
    assert len(folded(similar(*many, level=Severity.ERROR))) == 5


def test_checks_that_have_no_result_for_one_reason_are_said_together() -> None:
    checks = tuple(Check("assertion", str(number), undecided="3 events were lost") for number in range(13))
    found = RunReport("1", "here", "", 1, checks=(*checks, Check("policy", "p", undecided="no node")))

    assert found.undecided == (
        "assertion/0, assertion/1, assertion/2 and 10 more: 3 events were lost",
        "policy/p: no node",
    )


def test_more_findings_than_people_read_are_all_in_the_list() -> None:
    shown, left_out = limited(similar(*(f"write /srv/{number}/x" for number in range(5000))))

    assert (len(shown), left_out) == (5000, 0)


def test_lines_of_the_log_and_of_the_summary_say_how_many_are_alike() -> None:
    found = run(Check("baseline", "b", findings=tuple(similar(*(f"write /srv/a/{number}" for number in range(30))))))

    lines = list(log_lines(found))
    assert lines[0] == "warning: new: cp writes write /srv/a/0 and 29 more like it [baseline/open]"
    assert not any("further observation" in line and line.startswith("and ") for line in lines)
    assert "and 29 more like it" in render_markdown(found)


def test_peers_have_the_names_of_their_addresses_and_no_port_that_says_nothing() -> None:
    activity = Activity()
    for number in range(1, 4):
        activity.add_peer(RemoteEnd("connect", "tcp", f"10.0.0.{number}", 443, "curl"))
        activity.add_peer(RemoteEnd("accept", "tcp", "10.0.1.1", 0, "web"))
    names = {f"10.0.0.{number}": "name registry.example" for number in range(1, 4)}
    activity.name_peers(lambda address: names.get(address, ""))
    text = render_markdown(RunReport("1", "here", "", 1, activity=activity))

    assert "`curl → tcp name registry.example:443` ×3" in text
    assert "`web ← tcp 10.0.1.1` ×3" in text


def test_scripts_are_told_apart_and_files_and_ports_that_differ_by_chance_are_not() -> None:
    activity = Activity(given_ports={("tcp", 40123)})
    for number, script in enumerate(("/srv/setup.py", "-m pip", "/srv/setup.py")):
        activity.add_process(SeenProcess(str(number), "", "/usr/bin/python3", script=script))
    activity.add_files(FileUse(f"out-{number}.dat", "write") for number in range(5))
    for port in (40123, 50051):
        activity.add_peer(RemoteEnd("listen", "tcp", "127.0.0.1", port, "python3"))
        activity.add_peer(RemoteEnd("connect", "tcp", "127.0.0.1", port, "python3"))
    activity.add_peer(RemoteEnd("connect", "tcp", "10.0.0.1", 40123, "curl"))
    activity.name_peers(lambda address: "")
    text = render_markdown(RunReport("1", "here", "", 1, activity=activity))

    assert "`/usr/bin/python3 /srv/setup.py` ×2, `/usr/bin/python3 -m pip`" in text
    assert "`out-0.dat and 4 more like it` ×5" in text
    assert "`python3 tcp 127.0.0.1:<ephemeral>`, `python3 tcp 127.0.0.1:50051`" in text
    assert "`python3 → tcp 127.0.0.1:<ephemeral>`, `python3 → tcp 127.0.0.1:50051`, `curl → tcp 10.0.0.1:40123`" in text


def test_a_cause_names_its_workload_once() -> None:
    words = Explanation("proven", "", "", "", "", "")
    node = Finding("r", Severity.ERROR, "node/vm is refused", Where(workload="node/vm"), explanation=words)
    pod = Finding("r", Severity.ERROR, "deploy/web is refused", Where("shop", "deploy/web"), explanation=words)
    other = Finding("r", Severity.ERROR, "a port is used twice", Where("shop", "deploy/web"), explanation=words)
    texts = ["node/vm is refused", "shop: deploy/web is refused", "shop/deploy/web: a port is used twice"]
    assert [each.text for each in (node, pod, other)] == texts
    assert Finding("r", Severity.ERROR, "web ran a shell", Where("shop", "web")).text == "shop/web: web ran a shell"
