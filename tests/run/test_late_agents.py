"""Whole runs against the double of a cluster whose agents start late, never, or only when the run is over: the tool
must not say that nothing happened where nobody looked.

The agents speak the real protocol without BPF, so that their start can be timed.
"""

import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.fake_cluster import FakeCluster
from tests.fake_cluster.runner import Runner

LATE_AGENT = """
import os, select, sys, time
from kubectl_gadget.wire.frames import LAST, EventsHeader, FrameDecoder, FrameType, encode
from kubectl_gadget.wire.message import parse
from tests.json_frames import encode_json
from tests.run.scripted import HELLO

def say(type_, **value):
    clocks = {"boot_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "realtime_ns": time.time_ns()}
    os.write(1, encode_json(type_, {**value, **clocks}))

say(FrameType.HELLO, **{**HELLO, "node": os.environ["NODE_NAME"], "kinds": ["stream", "top", "snapshot"]})
decoder, due = FrameDecoder(), None
while True:
    wait = None if due is None else max(0, due - time.monotonic())
    if not select.select([0], [], [], wait)[0]:
        due = None
        say(FrameType.STARTED, gadgets=[])
        if kind == "snapshot":
            os.write(1, encode(FrameType.EVENTS, EventsHeader(0, LAST, 0).encode()))
        continue
    data = os.read(0, 1 << 16)
    if not data:
        break
    for frame in decoder.feed(data):
        if frame.type == FrameType.RUN:
            due = time.monotonic() + float(sys.argv[1])
            kind = parse(frame.payload)["gadgets"][0].get("kind", "stream")
        elif frame.type == FrameType.HEARTBEAT:
            say(FrameType.PONG, id=parse(frame.payload)["id"])
        elif frame.type == FrameType.STOP:
            say(FrameType.END, reason="stop", stats={"gadgets": [{"events": 0, "lost": {}}]})
            sys.exit()
"""
NEVER = 1_000.0


def agents(**seconds: float) -> Mapping[str, Sequence[str]]:
    """The command of each node's agent, which attaches so many seconds after it was asked to."""
    return {
        name.replace("_", "-"): (sys.executable, "-c", LATE_AGENT, str(late), "session")
        for name, late in seconds.items()
    }


async def trace(folder: Path, agents: Mapping[str, Sequence[str]], *words: str) -> tuple[int, str]:
    """The exit code of a run that ends by itself, and what it said."""
    async with FakeCluster(2, agent=agents) as cluster:
        runner = Runner(cluster.write_kubeconfig(folder / "kubeconfig"))
        await runner.start("trace", "exec", "-A", *words)
        code, _, said = await runner.end(interrupt=False)
        return code, said


async def test_the_time_counts_from_when_all_nodes_are_attached(tmp_path: Path) -> None:
    code, said = await trace(tmp_path, agents(node_1=0, node_2=2.5), "--timeout", "1s", "--strict")
    assert code == 0, said
    assert re.search(r"0 events in \d+\.\d s from 2 nodes; lost: 0", said)
    assert "trace exec on 2/2 nodes" in said


@pytest.mark.parametrize("strict", [(), ("--strict",)])
async def test_a_node_that_does_not_start_in_time_is_named_and_nothing_is_claimed_for_it(
    tmp_path: Path, strict: Sequence[str]
) -> None:
    words = ("--timeout", "1s", "--start-timeout", "6s", *strict)
    code, said = await trace(tmp_path, agents(node_1=0, node_2=NEVER), *words)
    assert code == 1
    assert "no longer waiting for node-2 (programs are not attached yet)" in said
    assert "on 1/2 nodes (not on node-2)" in said
    assert re.search(r"0 events in \d+\.\d s from 1 of 2 nodes; lost there: 0", said)
    assert "not traced: node-2: its programs are not attached yet, after 6 s (--start-timeout)" in said
    assert "node-2: 0 events" not in said
    assert ("--strict: the trace is not complete: node-2 was not traced" in said) is bool(strict)


async def test_a_node_that_attaches_after_all_is_late(tmp_path: Path) -> None:
    words = ("--timeout", "15s", "--start-timeout", "6s")
    code, said = await trace(tmp_path, agents(node_1=0, node_2=11), *words)
    assert code == 1
    assert re.search(r"0 events in \d+\.\d s from 2 nodes; lost: 0", said)
    (line,) = (line for line in said.splitlines() if "late: traced for the last" in line)
    assert line.startswith("  node-2: ")


async def test_a_run_of_which_no_agent_starts_in_time_is_an_error(tmp_path: Path) -> None:
    code, said = await trace(tmp_path, agents(node_1=NEVER, node_2=NEVER), "--start-timeout", "1s")
    assert code == 1
    assert "all 2 nodes: its programs are not attached yet, after 1 s" in said
    assert "try: --start-timeout" in said


async def test_agents_that_never_start_are_named_with_the_reason_of_their_pods(tmp_path: Path) -> None:
    async with FakeCluster(2, agent=agents(node_1=0, node_2=0)) as cluster:
        cluster.faults.waiting |= dict.fromkeys(cluster.nodes, ("ContainerCreating", ""))
        runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        await runner.start("trace", "exec", "-A", "--start-timeout", "1s")
        code, _, said = await runner.end(interrupt=False)
    assert code == 1
    assert "ContainerCreating" in said


async def test_one_agent_that_never_starts_makes_the_run_fail(tmp_path: Path) -> None:
    async with FakeCluster(2, agent=agents(node_1=0, node_2=0)) as cluster:
        cluster.faults.waiting["node-2"] = ("ContainerCreating", "")
        runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        await runner.start("trace", "exec", "-A", "--start-timeout", "6s", "--timeout", "1s")
        code, _, said = await runner.end(interrupt=False)
    assert code == 1
    assert "from 1 of 2 nodes; lost there: 0" in said
    assert "node-2" in said.partition("lost there: 0")[2]


async def test_a_snapshot_waits_for_no_node_longer_than_for_its_start(tmp_path: Path) -> None:
    async with FakeCluster(2, agent=agents(node_1=0, node_2=NEVER)) as cluster:
        runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        await runner.start("snapshot", "process", "-A", "--start-timeout", "6s")
        code, _, said = await runner.end(interrupt=False)
    assert code == 1
    assert "from 1 of 2 nodes; lost there: 0" in said
    assert "not traced: node-2: its programs are not attached yet" in said


async def test_a_run_that_ends_while_it_waits_names_the_node_that_it_waits_for(tmp_path: Path) -> None:
    async with FakeCluster(2, agent=agents(node_1=0, node_2=NEVER)) as cluster:
        runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        await runner.start("trace", "exec", "-A")
        await runner.until_said("waiting for node-2 (programs are not attached yet)")
        code, _, said = await runner.end()
    assert code == 128 + signal.SIGINT
    assert "from 1 of 2 nodes; lost there: 0" in said
    assert "not traced: node-2: its programs are not attached yet, and the run ended" in said


@pytest.mark.parametrize("flag", ["--fail-on", "--expect"])
async def test_no_match_is_inconclusive_when_not_everything_was_traced(tmp_path: Path, flag: str) -> None:
    words = ("--timeout", "1s", "--start-timeout", "6s", flag, 'comm == "sh"')
    code, said = await trace(tmp_path, agents(node_1=0, node_2=NEVER), *words)
    assert code == 5
    assert f'{flag}: no row matched comm == "sh", but this is inconclusive: node-2 was not traced' in said


@pytest.mark.parametrize("strict", [(), ("--strict",)])
async def test_a_selection_without_pods_is_no_answer(tmp_path: Path, strict: Sequence[str]) -> None:
    async with FakeCluster(2, agent=agents(node_1=0, node_2=0)) as cluster:
        runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        await runner.start("trace", "exec", "--timeout", "0.5s", *strict)
        code, _, said = await runner.end(interrupt=False)
    assert code == bool(strict), said
    assert "nothing was traced: no running pods were found in default namespace" in said
    assert "lost" not in said


@pytest.mark.parametrize(
    "words", [("trace", "exec", "-A"), ("advise", "seccomp", "-A"), ("behavior", "save", "new.yaml", "-A")]
)
async def test_interrupted_before_anything_was_attached_nothing_was_traced(
    tmp_path: Path, words: Sequence[str]
) -> None:
    async with FakeCluster(2, agent=agents(node_1=NEVER, node_2=NEVER)) as cluster:
        runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        await runner.start(*words)
        await runner.until_said("waiting for node-1, node-2 (programs are not attached yet); ")
        code, out, said = await runner.end()
    assert code == 128 + signal.SIGINT
    assert not out
    assert "nothing was traced: interrupted before any of 2 nodes was attached" in said
    assert "observe longer" not in said
    assert "lost" not in said


async def test_it_is_said_before_the_first_row_from_when_on_a_policy_is_in_force(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: default}\n"
        "spec: {podSelector: {}, policyTypes: [Egress]}\n"
    )
    async with FakeCluster(2, agent=agents(node_1=0, node_2=NEVER)) as cluster:
        for node in cluster.nodes:
            cluster.add_pod(f"pod-on-{node}", node)
        runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        words = ("--network-policy", str(tmp_path / "policy.yaml"), "--timeout", "1s", "--start-timeout", "6s")
        await runner.start("enforce", *words)
        code, _, said = await runner.end(interrupt=False)
    assert code == 1, said
    assert "node-1: in force since 2" in said
    assert "node-2: in force" not in said
    assert "enforcing network policies on 1/2 nodes (not on node-2)" in said
    assert "not traced: node-2" in said
