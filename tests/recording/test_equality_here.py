"""One run writes both: rows, and a recording whose replay prints the same bytes. With real BPF, for every kind."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import DemoPods
from tests.gadget_run import GADGET

pytestmark = pytest.mark.bpf
LOAD = (
    "import os, socket, subprocess, time\n"
    "server = socket.create_server(('127.0.0.1', 0))\n"
    "while True:\n"
    "    open('/etc/passwd').read(); subprocess.run(['true'])\n"
    "    try: open('/etc/no-such-file')\n"
    "    except OSError: pass\n"
    "    with socket.create_connection(server.getsockname()) as to, server.accept()[0] as at:\n"
    "        to.send(b'x'); at.recv(1)\n"
    "    time.sleep(0.03)\n"
)
KINDS = {
    "stream": ("trace", "exec+open+tcp", "-o", "json"),
    "stream with a filter": ("trace", "open", "-o", "json", "--filter", 'comm.startsWith("p")'),
    "stream that is not sorted": ("trace", "open", "-o", "csv", "--no-sort"),
    "top": ("top", "file", "-o", "json", "--interval", "500ms"),
    "snapshot": ("snapshot", "process", "-o", "json"),
    "profile": ("profile", "cpu", "-o", "json"),
    "profile, whole stacks": ("profile", "cpu", "-o", "folded"),
    "histogram": ("profile", "syscall", "-o", "json"),
    "tcpdump": ("tcpdump", "-o", "pcap-ng"),
    "observe": ("observe", "-o", "json", "--flows", "--files", "/etc"),
    "observe, as columns": ("observe", "-o", "yaml", "--filter", 'binary != "/none"'),
    "flows": ("flows", "-o", "json", "--loopback"),
}
_OF_THE_RUN = ("--no-sort",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_prints_what_the_run_printed(kind: str, tmp_path: Path) -> None:
    words, path = KINDS[kind], tmp_path / "run.kgr"
    run = [*GADGET, *words, "--local", "--host", "--record", str(path)]
    if words[0] != "snapshot":
        run += ["--timeout", "2s"]
    with subprocess.Popen([sys.executable, "-c", LOAD]) as load:
        live = subprocess.run(run, check=False, capture_output=True, timeout=120)
        load.terminate()
    assert live.returncode == 0, live.stderr.decode()
    assert f"recorded in {path}" in live.stderr.decode()
    replayed = printed("replay", str(path), *words)
    assert replayed == live.stdout
    assert live.stdout
    assert printed("replay", str(path), *words[-(len(words) - _words_of_command(words)) :]) == live.stdout


def test_a_replay_prints_the_calls_of_a_container_that_has_ended(pods: DemoPods, tmp_path: Path) -> None:
    path = tmp_path / "run.kgr"
    run = (*GADGET, "traceloop", "-o", "json", "--on", "exit", "--local", "--record", str(path))
    with subprocess.Popen(run, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as live:
        assert live.stdout is not None
        assert live.stderr is not None
        said = b""
        while b"recording for" not in said:
            piece = live.stderr.readline()
            assert piece, said.decode()
            said += piece
        pods.run_short("default", "xwing", ["/bin/cat", "/etc/passwd"], "spaceship")
        first = live.stdout.readline()
        live.send_signal(signal.SIGINT)
        rest, errors = live.communicate(timeout=120)
    assert json.loads(first)["pod"] == "xwing", errors.decode()
    assert b'"openat"' in first + rest
    assert printed("replay", str(path), "traceloop", "-o", "json") == first + rest


POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: passwd}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{index: 1, type: string}]
    selectors:
    - matchArgs: [{index: 1, operator: Equal, values: [/etc/passwd]}]
"""


@pytest.mark.parametrize("command", [("observe",), ("enforce", "--dry-run")])
def test_a_replay_prints_the_events_of_the_runs_policies(command: Sequence[str], tmp_path: Path) -> None:
    path, policy = tmp_path / "run.kgr", tmp_path / "policy.yaml"
    actions = "" if command[0] == "observe" else "      matchActions: [{action: Sigkill}]\n"
    policy.write_text(POLICY + actions)
    run = [*GADGET, *command, "-f", str(policy), "-o", "json", "--local", "--host", "--record", str(path)]
    with subprocess.Popen([sys.executable, "-c", LOAD]) as load:
        live = subprocess.run([*run, "--timeout", "2s"], check=False, capture_output=True, timeout=120)
        load.terminate()
    assert live.returncode == 0, live.stderr.decode()
    assert b"/etc/passwd" in live.stdout
    assert b'"policy_name":"passwd"' in live.stdout.replace(b" ", b"")
    assert printed("replay", str(path), "-o", "json") == live.stdout
    assert printed("replay", str(path), "observe", "-f", str(policy), "-o", "json") == live.stdout
    policy.write_text((POLICY + actions).replace("/etc/passwd", "/etc/shadow"))
    other = [*GADGET, "replay", str(path), "observe", "-f", str(policy)]
    refused = subprocess.run(other, check=False, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{path} has no events of passwd: its run had other policies" in refused.stderr


def printed(*words: str) -> bytes:
    done = subprocess.run([*GADGET, *words], check=False, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert b"cannot be read" not in done.stderr
    return done.stdout


def _words_of_command(words: Sequence[str]) -> int:
    """The number of flags that name the command, which a replay does not need."""
    if words[0] == "observe":
        return words.index("-o")
    return next(place for place, word in enumerate(words) if word.startswith("-"))


def test_a_part_of_a_recording_and_other_commands_on_it(tmp_path: Path) -> None:
    path = tmp_path / "run.kgr"
    words = ("trace", "process+open", "--local", "--host", "--record", str(path), "--timeout", "2s", "-o", "json")
    run = (*GADGET, *words)
    with subprocess.Popen([sys.executable, "-c", LOAD]) as load:
        live = subprocess.run(run, capture_output=True, timeout=120, check=True)
        load.terminate()
    rows = [json.loads(line) for line in live.stdout.splitlines()]
    alone = [{name: value for name, value in row.items() if name != "event"} for row in rows]
    found = printed("replay", str(path), "trace", "process", "-o", "json")
    assert [json.loads(line) for line in found.splitlines()] == [row for row in alone if "operation" in row]
    found = printed("replay", str(path), "trace", "open", "--failed", "-o", "json")
    failed = [row for row in alone if row.get("errno")]
    assert [json.loads(line) for line in found.splitlines()] == failed != []
    found = printed("replay", str(path), "trace", "exec", "-o", "json")
    execs = [json.loads(line) for line in found.splitlines()]
    recorded = [row for row in alone if row.get("operation") == "exec"]
    assert [(row["pid"], row["args"], row["exe"]) for row in execs] == [
        (row["pid"], row["args"], row["exe"]) for row in recorded
    ]
    assert any(row["args"] == ["true"] for row in execs)
    late = printed("replay", str(path), "--since", "1s", "-o", "json").splitlines()
    assert 0 < len(late) < len(rows)
    assert set(late) <= set(live.stdout.splitlines())
    assert printed("replay", str(path), "-o", "json", "-n", "no-such-namespace") == b""
    assert len(printed("replay", str(path), "-o", "json", "--max-events", "3").splitlines()) == 3
    info = json.loads(printed("recording", "info", str(path), "-o", "json"))
    assert info["whole"]
    assert sum(info["nodes"].values()) == len(rows)
