"""`flows` on a double of a cluster with services and translated addresses: a replay shows what the run showed."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPod
from tests.conftest import why_no_containers
from tests.fake_cluster import FakeCluster
from tests.flows.pod_network import PodNetwork
from tests.flows.test_flows_of_nodes import a_network, agent_of, begun_on_both, hear
from tests.flows.test_flows_of_pods import SERVICE, client, server
from tests.gadget_run import GADGET
from tests.waiting import PATIENCE

__all__ = ["a_network"]
pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]


def add_pod(cluster: FakeCluster, net: PodNetwork, pod: DemoPod, namespace: str, name: str, node: str) -> None:
    """The pod as the cluster knows it, of a workload."""
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": f"{name}s", "uid": f"u-{name}", "controller": True}
    cluster.add_pod(name, node, f"{namespace}-{net.name}", labels={"app": name}, uid=pod.uid, owners=[owner])

    def address(item: dict[str, Any]) -> None:
        item["status"]["podIP"] = net.addresses[name]
        item["status"]["podIPs"] = [{"ip": net.addresses[name]}]

    cluster.store.change("pods", f"{namespace}-{net.name}", name, address)


def add_service(cluster: FakeCluster, net: PodNetwork, name: str, port: int) -> None:
    namespace = f"empire-{net.name}"
    ports = [{"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"}]
    spec = {"clusterIP": SERVICE, "clusterIPs": [SERVICE], "ports": ports}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    cluster.store.add("services", namespace, service)
    metadata = {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}}
    endpoints = [{"addresses": [net.addresses["deathstar"]], "conditions": {"ready": True}}]
    of_slice = {
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{**ports[0], "port": port}],
    }
    kind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"}
    cluster.store.add("endpointslices", namespace, {**kind, **of_slice})


async def replayed(path: Path, *words: str) -> str:
    command = [*GADGET, "replay", str(path), *words]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_replay_has_the_services_and_the_translated_addresses_of_the_run(
    net: PodNetwork, tmp_path: Path
) -> None:
    xwing, deathstar = net.pod(1, "alliance", "xwing"), net.pod(2, "empire", "deathstar")
    roots = [next(iter(pod.containers.values())).cgroup.parents[3] for pod in (xwing, deathstar)]
    agents = {f"node-{number + 1}": agent_of(root) for number, root in enumerate(roots)}
    path = tmp_path / "flows.kgr"
    async with FakeCluster(2, agent=agents) as cluster:
        add_pod(cluster, net, xwing, "alliance", "xwing", "node-1")
        add_pod(cluster, net, deathstar, "empire", "deathstar", "node-2")
        asked = net.start(deathstar, server)
        port = await hear(asked)
        add_service(cluster, net, "trench", port)
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        process = await begun_on_both(kubeconfig, "--record", str(path))
        target = f"{net.addresses['deathstar']}:{port}"
        net.nft(
            "table ip t { chain c { type nat hook prerouting priority -100; "
            f"ip daddr {SERVICE} tcp dport 80 dnat to {target}; }} }}"
        )
        await hear(net.start(xwing, client, SERVICE, 80))
        await hear(asked)
        cluster.store.remove("services", f"empire-{net.name}", "trench")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            out, rest = await process.communicate()
    output = out.decode()
    assert f"recorded in {path}" in rest.decode()
    assert await replayed(path, "flows", "-o", "json") == output
    ended = [event for event in map(json.loads, output.splitlines()) if event["kind"] == "close"]
    assert {event["destination"]["ip"] for event in ended} == {SERVICE}
    assert {event["destination"]["name"] for event in ended} == {f"empire-{net.name}/trench"}
    assert {event["backend"]["name"] for event in ended} == {f"empire-{net.name}/deathstar"}
    assert "deathstars (StatefulSet)" in await replayed(path, "flows", "-o", "mermaid")
