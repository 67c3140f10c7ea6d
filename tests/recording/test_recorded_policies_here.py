"""Policies on recorded rows: the same decisions as a live policy's at the same time, from the gadgets' rows alone."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPods

pytestmark = pytest.mark.bpf
CLIENT = (sys.executable, "-m", "kubectl_gadget.cli.main")
TIMES = 7
DEEDS = f"""
echo x > /tmp/secret; mkdir /tmp/own; cp /bin/busybox /tmp/own/cat
i=0
while [ $i -lt {TIMES} ]; do read x < /tmp/secret; /tmp/own/cat /tmp/secret > /dev/null; i=$((i+1)); done
read x < /etc/hosts
(read x < /tmp/missing)
nc -w 1 127.0.0.1 4444 < /dev/null
nc -w 1 127.0.0.1 4445 < /dev/null
"""
SECRET = "matchArgs: [{index: 1, operator: Equal, values: [/tmp/secret]}]"


def openat(*selectors: str) -> str:
    args = "args: [{index: 1, type: string}]"
    return f"{{call: sys_openat, syscall: true, {args}, selectors: [{', '.join(f'{{{one}}}' for one in selectors)}]}}"


OTHER = "matchBinaries: [{operator: Postfix, values: [/own/cat]}]"
OF_SECRET = {
    "arguments": "",
    "binaries": OTHER,
    "other binaries": "matchBinaries: [{operator: NotPostfix, values: [/own/cat]}]",
    "a PID of the container": "matchPIDs: [{operator: In, isNamespacePID: true, values: [1]}]",
    "not from outside": "matchPIDs: [{operator: NotIn, isNamespacePID: true, followForks: true, values: [1]}]",
    "namespaces": "matchNamespaces: [{namespace: Pid, operator: NotIn, values: [host_ns]}]",
    "the node's namespaces": "matchNamespaces: [{namespace: Pid, operator: In, values: [host_ns]}]",
    "would kill": "matchActions: [{action: Sigkill}]",
    "capabilities": "matchCapabilities: [{type: Effective, operator: In, values: [CAP_CHOWN]}]",
}
HOOKS = {
    **{name: openat(f"{SECRET}, {more}" if more else SECRET) for name, more in OF_SECRET.items()},
    "prefix": openat("matchArgs: [{index: 1, operator: Prefix, values: [/tmp/, /etc/ho]}]"),
    "the first selector counts": openat(f"{SECRET}, {OTHER}, matchActions: [{{action: NoPost}}]", SECRET),
    "results": "{call: sys_openat, syscall: true, return: true, returnArg: {index: 0, type: int}, args: [{index: 1,"
    " type: string}], selectors: [{matchArgs: [{index: 1, operator: Prefix, values: [/tmp/]}],"
    ' matchReturnArgs: [{operator: Equal, values: ["-2"]}]}]}',
    "a rate limit": openat(f"{SECRET}, matchActions: [{{action: Post, rateLimit: 10m, rateLimitScope: process}}]"),
    "an entry's tracepoint": "{subsystem: syscalls, event: sys_enter_openat, args: [{index: 6, type: string}],"
    " selectors: [{matchArgs: [{index: 6, operator: Equal, values: [/tmp/secret]}]}]}",
    "a tracepoint": "{subsystem: sched, event: sched_process_exec, args: [{index: 4, type: string}],"
    " selectors: [{matchArgs: [{index: 4, operator: Prefix, values: [/tmp/own/]}]}]}",
    "executions": "{call: sys_execve, syscall: true, args: [{index: 0, type: string}],"
    " selectors: [{matchArgs: [{index: 0, operator: Prefix, values: [/bin/]}]}]}",
}
# What the kernel itself opens, such as a program's file, is in no row of trace open.
FUNCTIONS = {
    "a file": "{call: security_file_open, syscall: false, args: [{index: 0, type: file}],"
    " selectors: [{matchArgs: [{index: 0, operator: Prefix, values: [/tmp/secret]}]}]}",
    "programs": "{call: security_bprm_check, syscall: false, args: [{index: 0, type: linux_binprm}],"
    " selectors: [{matchArgs: [{index: 0, operator: Prefix, values: [/bin/]}]}]}",
    "ports": "{call: tcp_connect, syscall: false, args: [{index: 0, type: sock}],"
    ' selectors: [{matchArgs: [{index: 0, operator: DPort, values: ["4444"]}]}]}',
    "addresses": "{call: tcp_connect, syscall: false, args: [{index: 0, type: sock}],"
    ' selectors: [{matchArgs: [{index: 0, operator: DAddr, values: ["127.0.0.0/8"]}]}]}',
}
NAMESPACES = ("rec-watched", "rec-other")
"""no other test's, which may have containers on this machine at the same time"""
SCOPES = {
    "": "",
    "a namespace's pods": "podSelector: {matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace',"
    " operator: In, values: [rec-watched]}]}",
    "containers": "containerSelector: {matchExpressions: [{key: name, operator: In, values: [main]}]}",
    "the node": "hostSelector: {}",
}


def policy(name: str, hook: str, scope: str = "") -> str:
    return (
        f"apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {{name: {name}}}\n"
        f"spec:\n  {scope}\n  {'tracepoints' if 'subsystem' in hook else 'kprobes'}: [{hook}]\n---\n"
    )


def all_policies(hooks: Mapping[str, str]) -> str:
    found = [policy(f"h-{number}", hook) for number, hook in enumerate(hooks.values())]
    found += [policy(f"s-{number}", HOOKS["arguments"], scope) for number, scope in enumerate(SCOPES.values())]
    return "".join(found)


@contextmanager
def running(*words: str) -> Iterator[list[str]]:
    """A command that has begun; the list has its lines once the block is over."""
    found: list[str] = []
    with subprocess.Popen([*CLIENT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        while " on " not in (line := process.stderr.readline()) or "tracing" not in line:
            assert line, "".join(said)
            said.append(line)
        yield found
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert "lost: 0" in errors, (process.returncode, said, errors)
    found += out.splitlines()


def decisions(lines: Sequence[str]) -> Counter[tuple[Any, ...]]:
    """What was decided for which process, by policy."""
    found: Counter[tuple[Any, ...]] = Counter()
    for line in lines:
        event = next(item for name, item in json.loads(line).items() if name.startswith("process_"))
        process, (argument, *_) = event["process"], event["args"]
        if process.get("pod", {}).get("namespace") not in NAMESPACES:
            continue
        value = next(iter(argument.values()))
        what = value if isinstance(value, str) else tuple(value.get(key) for key in ("path", "saddr", "daddr", "dport"))
        found[event["policy_name"], process["exec_id"], process["binary"], what, event["action"]] += 1
    return found


def replayed(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*CLIENT, "replay", str(path), "observe", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


OPENS = ("process+open+tcp+privilege", "--resolve", "--runtime")
CALLS = ("process+syscalls", "--syscalls", "openat,execve")


def decided(
    hooks: Mapping[str, str], pods: DemoPods, folder: Path, gadgets: Sequence[str] = OPENS
) -> tuple[Counter[str], Path, Path]:
    """Runs the deeds beside a live policy and a recording of gadgets, whose decisions have to be the same. Returns the
    number of events by policy, the policies and the recording."""
    file, path = folder / "policies.yaml", folder / "rows.kgr"
    file.write_text(all_policies(hooks))
    record = ("trace", *gadgets, "-A", "--local", "-o", "json", "--record", str(path))
    observe = ("observe", "-f", str(file), "-A", "--local", "-o", "json", "-e", "kprobe,tracepoint")
    with running(*record), running(*observe) as live:
        for namespace in NAMESPACES:
            pods.run_short(namespace, "reader", ["/bin/sh", "-c", DEEDS])
    found = replayed(path, "-f", str(file), "-o", "json", "-e", "kprobe,tracepoint")
    assert found.returncode == 0, found.stderr
    here, there = decisions(found.stdout.splitlines()), decisions(live)
    assert here == there, (here - there, there - here, found.stderr)
    by_policy: Counter[str] = Counter()
    for key, count in there.items():
        by_policy[key[0]] += count
    return by_policy, file, path


@pytest.mark.parametrize("gadgets", [OPENS, CALLS], ids=lambda words: words[0])
def test_recorded_rows_give_the_decisions_of_a_live_policy(
    pods: DemoPods, tmp_path: Path, gadgets: Sequence[str]
) -> None:
    found, file, path = decided(HOOKS, pods, tmp_path, gadgets)
    assert found["h-0"] == 2 * (2 * TIMES + 1)
    silent = {"the node's namespaces", "not from outside"}
    assert {name for number, name in enumerate(HOOKS) if not found[f"h-{number}"]} == silent
    assert found["s-3"] == 0
    assert found["s-1"] * 2 == found["s-0"]
    assert "SIGKILL" in next(line for line in replayed(path, "-f", str(file)).stdout.splitlines() if "WOULD" in line)


@pytest.mark.skipif(not Path("/sys/bus/event_source/devices/kprobe").exists(), reason="this kernel has no kprobes")
def test_so_do_those_of_policies_on_the_kernels_functions(pods: DemoPods, tmp_path: Path) -> None:
    found, _, _ = decided(FUNCTIONS | {"arguments": HOOKS["arguments"]}, pods, tmp_path)
    assert all(found[f"h-{number}"] for number in range(len(FUNCTIONS)))


def test_what_a_recording_cannot_decide_is_said_and_strict_refuses_it(tmp_path: Path) -> None:
    file, path = tmp_path / "policy.yaml", tmp_path / "rows.kgr"
    record = [*CLIENT, "trace", "process+open", "--failed", "--local", "--host", "--record", str(path)]
    subprocess.run([*record, "--timeout", "1s"], check=True, capture_output=True, timeout=120)
    file.write_text(
        policy("secrets", openat("matchArgs: [{index: 1, operator: Equal, values: [/x]}]"))
        + policy("miner", FUNCTIONS["ports"])
    )
    found = replayed(path, "-f", str(file))
    assert found.returncode == 0
    assert "policy secrets, sys_openat: trace open does not say by which call" in found.stderr
    assert "policy secrets, sys_openat: trace open was recorded with --failed" in found.stderr
    assert "policy miner, tcp_connect: the recording has no calls of it" in found.stderr
    assert "trace tcp would have them" in found.stderr
    refused = replayed(path, "-f", str(file), "--strict")
    assert refused.returncode != 0
    assert "--strict: the recording cannot decide all of it: policy secrets" in refused.stderr
