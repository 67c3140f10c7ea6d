"""Rows of `trace tcp` on a double of a cluster with two nodes that run real agents: the other ends have names."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import why_no_containers
from tests.fake_cluster import FakeCluster
from tests.flows.command import COMMAND
from tests.flows.pod_network import PodNetwork
from tests.flows.test_flows_of_nodes import a_network, agent_of, hear
from tests.flows.test_flows_of_pods import client, server
from tests.waiting import PATIENCE, read_until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]
__all__ = ["a_network"]


async def traced(net: PodNetwork, tmp_path: Path, *words: str, known: bool = True) -> tuple[list[Any], str]:
    """The rows while xwing on node-1 connects to deathstar on node-2. `known`: the API server has both pods."""
    pods = net.pod(1, "alliance", "xwing"), net.pod(2, "empire", "deathstar")
    roots = [next(iter(pod.containers.values())).cgroup.parents[3] for pod in pods]
    agents = {f"node-{number + 1}": agent_of(root) for number, root in enumerate(roots)}
    async with FakeCluster(2, agent=agents) as cluster:
        for number, (namespace, name) in enumerate((("alliance", "xwing"), ("empire", "deathstar")), 1):
            ip = net.addresses[name]
            cluster.store.change(
                "nodes", "", f"node-{number}", lambda node, ip=ip: node.update(spec={"podCIDR": f"{ip}/32"})
            )
            cluster.add_pod(name, f"node-{number}", f"{namespace}-{net.name}")
            if known:
                cluster.store.change(
                    "pods", f"{namespace}-{net.name}", name, lambda pod, ip=ip: pod["status"].update(podIP=ip)
                )
        process = await asyncio.create_subprocess_exec(
            *COMMAND[:-1],
            *("trace", "tcp", "-A", "-o", "json", *words),
            *("--kubeconfig", str(cluster.write_kubeconfig(tmp_path / "kubeconfig"))),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ,
        )
        await read_until(process.stderr, "on 2/2 nodes")
        asked = net.start(pods[1], server)
        port = await hear(asked)
        await hear(net.start(pods[0], client, net.addresses["deathstar"], port))
        await hear(asked)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            out, errors = await process.communicate()
    return [json.loads(line) for line in out.splitlines()], errors.decode()


def names(rows: list[Any], operation: str) -> set[tuple[Any, ...]]:
    of = ("remote_kind", "remote_node", "remote_namespace", "remote_pod")
    return {tuple(row.get(name) for name in of) for row in rows if row["operation"] == operation}


async def test_both_ends_are_named_by_their_pods_and_a_replay_names_them_too(net: PodNetwork, tmp_path: Path) -> None:
    recording = tmp_path / "run.kgr"
    rows, errors = await traced(net, tmp_path, "--record", str(recording))
    expected = {
        "connect": {("pod", "node-2", f"empire-{net.name}", "deathstar")},
        "accept": {("pod", "node-1", f"alliance-{net.name}", "xwing")},
    }
    assert {operation: names(rows, operation) for operation in expected} == expected, errors
    replay = await asyncio.create_subprocess_exec(
        *(*COMMAND[:-1], "replay", str(recording), "-o", "json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors_of_replay = await replay.communicate()
    again = [json.loads(line) for line in out.splitlines()]
    assert {operation: names(again, operation) for operation in expected} == expected, errors_of_replay.decode()


async def test_an_address_of_pods_that_no_pod_has_says_so(net: PodNetwork, tmp_path: Path) -> None:
    rows, errors = await traced(net, tmp_path, known=False)
    assert names(rows, "connect") == {("no pod", None, None, None)}, errors


async def test_without_names_nothing_is_asked_and_rows_have_addresses_only(net: PodNetwork, tmp_path: Path) -> None:
    rows, errors = await traced(net, tmp_path, "--no-names")
    assert names(rows, "connect") == {(None, None, None, None)}, errors
    assert {row["remote"] for row in rows if row["operation"] == "connect"} == {net.addresses["deathstar"]}
