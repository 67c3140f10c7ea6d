"""`kubectl gadget flows` on a double of a cluster with two nodes that run real agents, each with pods of its own.

Each agent sees its node's pods alone: a folder of cgroups stands, for it, in the place of the whole tree.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import why_no_bpf, why_no_containers
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.exec import AGENT
from tests.flows.command import COMMAND
from tests.flows.pod_network import Deed, PodNetwork
from tests.flows.test_flows_of_pods import RECEIVED, SENT, TIMES, client, server
from tests.waiting import PATIENCE, read_until, until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]


@pytest.fixture(name="net")
def a_network() -> Iterator[PodNetwork]:
    if why_no_bpf():
        pytest.skip(str(why_no_bpf()))
    with PodNetwork(Path("/run")) as net:
        yield net


def agent_of(cgroup: Path) -> list[str]:
    """An agent to which this cgroup is the root of all."""
    script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    mount = cgroup.parent
    return ["unshare", "--mount", "sh", "-c", script, str(cgroup), str(mount), *AGENT]


async def begun_on_both(kubeconfig: Path, *words: str) -> asyncio.subprocess.Process:
    """`flows` of all namespaces as JSON, once it is attached on both nodes."""
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "-A", "-o", "json", *words, "--kubeconfig", str(kubeconfig)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    )
    await read_until(process.stderr, "on 2/2 nodes")
    return process


async def hear(deed: Deed) -> Any:
    """What it says, without holding up the cluster, which lives in this event loop."""
    await until(lambda: deed.has_spoken)
    return deed.heard()


async def test_a_connection_between_two_nodes_is_one_flow_with_a_process_on_each(
    net: PodNetwork, tmp_path: Path
) -> None:
    xwing, deathstar = net.pod(1, "alliance", "xwing"), net.pod(2, "empire", "deathstar")
    roots = [next(iter(pod.containers.values())).cgroup.parents[3] for pod in (xwing, deathstar)]
    agents = {f"node-{number + 1}": agent_of(root) for number, root in enumerate(roots)}
    async with FakeCluster(2, agent=agents) as cluster:
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        # A busy machine is late with one node's rows; the end of the run brings all in order.
        process = await begun_on_both(kubeconfig, "--sort-wait", "1m")
        asked = net.start(deathstar, server)
        port = await hear(asked)
        asking = net.start(xwing, client, net.addresses["deathstar"], port)
        ports = await hear(asking)
        await hear(asked)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            out, rest = await process.communicate()
    events = [json.loads(line) for line in out.splitlines()]
    began, ended = (
        [event for event in events if (event["protocol"], event["kind"]) == ("TCP", kind)] for kind in ("new", "close")
    )
    assert sorted(event["source"]["port"] for event in began) == sorted(ports)
    assert len(ended) == TIMES
    both = {(event["source"]["node"], event["destination"]["node"]) for event in ended}
    assert both == {("node-1", "node-2")}, rest.decode()
    assert {(event["source"]["name"], event["destination"]["name"]) for event in ended} == {
        (f"alliance-{net.name}/xwing", f"empire-{net.name}/deathstar")
    }
    assert {(event["source"]["pid"], event["destination"]["pid"]) for event in ended} == {(asking.pid, asked.pid)}
    assert {(event["sent"], event["received"]) for event in ended} == {(SENT, RECEIVED)}
