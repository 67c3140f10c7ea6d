"""`kubectl gadget demo` as a user types it: each command has something to show of the pods."""

import json
import re
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import why_no_containers
from tests.gadget_run import GADGET

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]
COMMAND = [*GADGET, "demo"]
Row = dict[str, Any]
Wanted = dict[str, Callable[[Row], bool]]
INTERRUPTED = 128 + signal.SIGINT


def until_seen(line: str, wanted: Wanted) -> str:
    """Runs a command of the demo until its rows have all that is wanted; what it says on standard error."""
    missing = dict(wanted)
    command = [*COMMAND, *line.split(), "-o", "json", "--timeout", "2m"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            row = json.loads(text)
            missing = {name: fits for name, fits in missing.items() if not fits(row)}
            if not missing:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert not missing, f"not seen: {', '.join(missing)}\n{errors}"
    assert process.returncode == INTERRUPTED, errors
    return errors


def of(pod: str, **values: Any) -> Callable[[Row], bool]:
    return lambda row: row["pod"] == pod and all(row.get(name) == value for name, value in values.items())


def test_http_has_good_and_bad_answers_at_both_ends() -> None:
    wanted = {
        "xwing's question": of("xwing", role="client", method="GET", target="/v1/", status=200),
        "tiefighter's landing": of("tiefighter", role="client", method="POST", status=200),
        "the server": of("deathstar", role="server", status=200),
        "a failure": of("tiefighter", role="client", target="/v1/exhaust-port", status=503),
    }
    errors = until_seen("trace http", wanted)
    assert "starting 4 pods on this machine: default/xwing, " in errors
    assert "  kubectl gadget trace http -o json -A " in errors


def test_dns_tcp_sni_tls_and_ping_are_seen_in_one_stream() -> None:
    wanted = {
        "a name": of("xwing", event="dns", rcode="NOERROR", name="deathstar.empire.svc.cluster.local"),
        "a name that is not there": of("xwing", event="dns", rcode="NXDOMAIN"),
        "the DNS server": of("coredns", event="dns", role="server"),
        "a refused port": of("xwing", event="tcp", operation="connect", error="ECONNREFUSED", remote_port=23),
        "the name in TLS": of("tiefighter", event="sni", name="deathstar.empire"),
        "a ping": lambda row: row.get("event") == "icmp" and row["pod"] in ("xwing", "deathstar"),
    }
    until_seen("trace dns+tcp+sni+icmp", wanted)


def test_flows_have_both_ends_by_name() -> None:
    def flow(source: str, destination: str, port: int, **more: Any) -> Callable[[Row], bool]:
        def fits(row: Row) -> bool:
            ends = (row["source"], row["destination"]) if "source" in row else ({}, {})
            names = [f"{end.get('namespace')}/{end.get('pod')}" for end in ends]
            found = names == [source, destination] and ends[1].get("port") == port
            return found and all(row.get(name) == value for name, value in more.items())

        return fits

    until_seen(
        "flows",
        {
            "web": flow("default/xwing", "empire/deathstar", 80, verdict="FORWARDED"),
            "tls": flow("default/tiefighter", "empire/deathstar", 443),
            "refused": flow("default/xwing", "empire/deathstar", 23, verdict="ERROR"),
        },
    )


def test_network_policies_of_the_demo_refuse_what_they_should_and_nothing_else() -> None:
    refused: set[tuple[str, str, int]] = set()

    def note(row: Row) -> bool:
        refused.add((row["pod"], row["direction"], row["local_port"] or row["remote_port"]))
        return len(refused) == 2

    errors = until_seen("enforce --network-policy", {"both": note})
    assert refused == {("xwing", "egress", 23), ("deathstar", "ingress", 80)}
    assert re.search(r"^network policies: /.*/network-policies.yaml$", errors, re.MULTILINE)


def test_advice_from_the_demo_names_pods_by_their_labels() -> None:
    command = [*COMMAND, "advise", "networkpolicy", "-o", "json", "--timeout", "12s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    decoder, text, found = json.JSONDecoder(), done.stdout, []
    while text.strip():
        value, stop = decoder.raw_decode(text.lstrip())
        found.append(value)
        text = text.lstrip()[stop:]
    items = [item for value in found for item in (value if isinstance(value, list) else value.get("items", [value]))]
    (xwing,) = [item for item in items if item["metadata"]["name"] == "xwing"]
    assert xwing["spec"]["podSelector"] == {"matchLabels": {"class": "xwing", "org": "alliance"}}
    peers = [peer["podSelector"]["matchLabels"] for rule in xwing["spec"]["egress"] for peer in rule["to"]]
    assert {"class": "deathstar", "org": "empire"} in peers
    assert {"k8s-app": "kube-dns"} in peers


def test_diagnose_finds_what_ails_three_pods_and_the_cause_in_a_fourth_ones_server() -> None:
    command = [*COMMAND, "diagnose", "-o", "json", "--timeout", "10s", "--fail-on-finding"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    found = {(each["rule"], each["about"]): each for each in report["findings"] if each["severity"] != "note"}
    loopback = ("listens-on-loopback", "empire/pod/deathstar")
    assert set(found) == {
        loopback,
        ("permission-denied", "default/pod/xwing"),
        ("name-does-not-exist", "default/pod/tiefighter"),
    }, done.stderr
    symptoms = {(each["rule"], each["about"]) for each in found[loopback]["explains"]}
    assert symptoms == {("connection-refused", f"default/pod/{name}") for name in ("xwing", "tiefighter")}
    assert len(report["looked_at"]["pods"]) == 4
    assert done.returncode == 4


def test_a_second_demo_says_that_there_is_one() -> None:
    with subprocess.Popen(
        [*COMMAND, "--timeout", "2m"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as first:
        assert first.stderr is not None
        while "starting" not in (line := first.stderr.readline()):
            assert line, "it did not start"
        second = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    assert second.returncode == 1
    assert second.stderr.startswith("error: another demo is running")
    assert "starting" not in second.stderr
