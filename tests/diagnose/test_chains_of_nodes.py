"""Chains of causes on a double of a cluster with two nodes that run real agents: a symptom leads to a pod that was not
selected, in another namespace and on another node."""

import json
import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import why_no_containers
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.runner import Runner
from tests.flows.pod_network import PodNetwork
from tests.flows.test_flows_of_nodes import a_network, agent_of, hear

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]
__all__ = ["a_network"]


def deaf(pipe: Connection) -> None:
    """Listens where only its own pod can connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        time.sleep(100)


def refused(pipe: Connection, host: str, port: int) -> None:
    """Tries to connect, again and again."""
    pipe.send("begun")
    while True:
        with socket.socket() as one:
            one.connect_ex((host, port))
        time.sleep(0.1)


async def diagnosed(net: PodNetwork, tmp_path: Path, *not_in_whole: str) -> tuple[dict[str, Any], str]:
    """The report on the pods of one namespace, and what was said. `not_in_whole`: what the user may list in single
    namespaces only."""
    web, db = net.pod(1, "shop", "web"), net.pod(2, "data", "db")
    roots = [next(iter(pod.containers.values())).cgroup.parents[3] for pod in (web, db)]
    agents = {f"node-{number + 1}": agent_of(root) for number, root in enumerate(roots)}
    async with FakeCluster(2, agent=agents) as cluster:
        for number, (namespace, name) in enumerate((("shop", "web"), ("data", "db")), 1):
            ip = net.addresses[name]
            cluster.add_pod(name, f"node-{number}", f"{namespace}-{net.name}")
            cluster.store.change(
                "pods", f"{namespace}-{net.name}", name, lambda pod, ip=ip: pod["status"].update(podIP=ip)
            )
        cluster.faults.forbidden_in_whole |= {("list", resource) for resource in not_in_whole}
        port = await hear(net.start(db, deaf))
        await hear(net.start(web, refused, net.addresses["db"], port))
        runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        await runner.start("diagnose", "-n", f"shop-{net.name}", "-o", "json", "--timeout", "12s")
        code, out, errors = await runner.end(interrupt=False)
    assert code == 0, errors
    return json.loads(out), errors


async def test_a_refusal_leads_to_a_pod_that_was_not_selected(net: PodNetwork, tmp_path: Path) -> None:
    report, said = await diagnosed(net, tmp_path)
    db = f"data-{net.name}/db"
    assert f"looking at {db}, at the other end" in said
    (root,) = (each for each in report["findings"] if each["rule"] == "listens-on-loopback")
    assert root["pods"] == [db], said
    assert [each["rule"] for each in root["explains"]] == ["connection-refused"]
    assert report["looked_at"]["pods"] == [f"shop-{net.name}/web"]
    assert report["looked_at"]["peers"] == [db]
    assert report["not_seen"] == []


async def test_an_address_of_a_namespace_that_may_not_be_listed_is_not_said_to_be_nobodys(
    net: PodNetwork, tmp_path: Path
) -> None:
    report, _ = await diagnosed(net, tmp_path, "pods")
    assert [each["rule"] for each in report["findings"]] == ["connection-refused"]
    (why,) = report["not_seen"]
    assert why == f"whose {net.addresses['db']} is: you may not list pods in all namespaces"
