"""`flows`, another command, reports what `enforce --network-policy` refuses, with the policy and the rule."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import why_no_containers
from tests.flows.pod_network import PodNetwork
from tests.policies.network.enforcing import enforcing, known_pod
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]
Event = dict[str, Any]
PORT = 8080


def policy(name: str, app: str, **spec: Any) -> dict[str, Any]:
    """Of one application's pods; its types are those that it has rules of."""
    types = [word.capitalize() for word in spec]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": types, **spec},
    }


def connects(_: Connection, host: str, port: int) -> str:
    """Ends with the name of what the process saw."""
    import errno
    import socket

    with socket.socket() as one:
        one.settimeout(1.5)
        try:
            one.connect((host, port))
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return errno.errorcode[error.errno or 0]
    return ""


def sends(_: Connection, host: str, port: int) -> dict[str, str]:
    """What becomes of a datagram by each call that may send the first one of a socket."""
    import errno
    import socket

    def by_connect(one: socket.socket) -> None:
        one.connect((host, port))

    def by_sendto(one: socket.socket) -> None:
        one.sendto(b"x", (host, port))

    def by_sendmsg(one: socket.socket) -> None:
        one.sendmsg([b"x"], [], 0, (host, port))

    def by_ipv6(one: socket.socket) -> None:
        one.sendto(b"x", (f"::ffff:{host}", port))

    found = {}
    for call in (by_connect, by_sendto, by_sendmsg, by_ipv6):
        family = socket.AF_INET6 if call is by_ipv6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            try:
                call(one)
            except OSError as error:
                found[call.__name__] = errno.errorcode[error.errno or 0]
    return found


def listens(pipe: Connection, port: int) -> None:
    """Until it is ended."""
    import socket

    with socket.create_server(("0.0.0.0", port)):
        pipe.send(port)
        pipe.recv()


@pytest.fixture(scope="module", name="net")
def a_network(tmp_path_factory: pytest.TempPathFactory, catalogue_built: Path) -> Iterator[PodNetwork]:
    with PodNetwork(Path("/run")) as found:
        for node, name in ((1, "client"), (2, "server")):
            found.pod(node, name, name)
        found.start(found.pods["server"], listens, PORT).heard()
        yield found


@contextmanager
def enforce(
    net: PodNetwork, folder: Path, *policies: dict[str, Any], end: signal.Signals = signal.SIGINT
) -> Iterator[list[Event]]:
    """While the block runs, the policies of the namespaces are in force, and flows that run already know of them. Its
    own rows are in the list afterwards."""
    others = maps_of_refusals()
    known = [known_pod(f"{name}-{net.name}", name, name, address) for name, address in net.addresses.items()]
    for one in policies:
        app = one["spec"]["podSelector"]["matchLabels"]["app"]
        one["metadata"]["namespace"] = f"{app}-{net.name}"
    with enforcing(folder, policies, known, end=end) as rows:
        own = maps_of_refusals() - others
        wait_until(lambda: not (there := maps_that_flows_look_at()) or all(own <= found for found in there))
        yield rows


def call(net: PodNetwork) -> str:
    """The client calls the server."""
    found: str = net.start(net.pods["client"], connects, net.addresses["server"], PORT).heard()
    return found


def drops(events: list[Event]) -> list[Event]:
    return [event for event in events if event["verdict"] == "DROPPED"]


def denied(direction: str, pod: str, name: str, rule: str | None = None) -> Event:
    return {"policies": [{"namespace": pod, "name": name}], "direction": direction, "rule": rule}


OTHER_PORT = {"ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}], "ports": [{"port": 9}]}]}


def test_packets_that_a_policy_drops_name_it_and_the_rule_that_came_nearest(net: PodNetwork, tmp_path: Path) -> None:
    with enforce(net, tmp_path, policy("web", "server", **OTHER_PORT)), net.flows() as events:
        assert call(net) == "timeout"
    found = drops(events)
    assert found
    for event in found:
        assert event["denied_by"] == denied("ingress", "server", "web", "web ingress[0]")
        assert event["drop_reason"] == "POLICY_DENIED"
        assert event["summary"] == "policy web/ingress (rule web ingress[0] allows other ports)"
        assert (event["source"]["pod"], event["destination"]["pod"]) == ("client", "server")
        assert event["source"]["comm"] == "connects"


def test_refused_connects_name_the_policy_also_when_it_comes_and_goes_during_the_run(
    net: PodNetwork, tmp_path: Path
) -> None:
    with net.flows() as events:
        assert call(net) == ""
        with enforce(net, tmp_path, policy("no-way-out", "client", egress=[])):
            assert call(net) == "EPERM"
        assert call(net) == ""
    (event,) = drops(events)
    assert event["denied_by"] == denied("egress", "client", "no-way-out")
    assert (event["summary"], event["error"]) == ("policy no-way-out/egress, EPERM", "EPERM")
    assert (event["source"]["pod"], event["destination"]["ip"]) == ("client", net.addresses["server"])
    assert event["source"]["comm"] == "connects"


def test_what_is_refused_before_it_is_a_packet_is_found_by_the_address_of_its_pod(
    net: PodNetwork, tmp_path: Path
) -> None:
    known = [known_pod(f"{name}-{net.name}", name, name, address) for name, address in net.addresses.items()]
    (tmp_path / "pods.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": known}))
    objects = ("--objects", str(tmp_path / "pods.json"))
    with (
        net.flows("--from-ip", net.addresses["client"], *objects) as events,
        net.flows("--from-ip", net.addresses["server"], *objects) as others,
        enforce(net, tmp_path, policy("no-way-out", "client", egress=[])),
    ):
        assert call(net) == "EPERM"
        net.start(net.pods["client"], sends, net.addresses["server"], PORT).heard()
    found = drops(events)
    assert {event["protocol"] for event in found} == {"TCP", "UDP"}
    assert {event["source"]["ip"] for event in found} == {net.addresses["client"]}
    assert not drops(others)


def test_datagrams_that_are_refused_before_they_are_packets_name_the_policy(net: PodNetwork, tmp_path: Path) -> None:
    refused = {call: "EPERM" for call in ("by_connect", "by_sendto", "by_sendmsg", "by_ipv6")}
    with net.flows() as events, enforce(net, tmp_path, policy("quiet", "client", egress=[])) as rows:
        assert net.start(net.pods["client"], sends, net.addresses["server"], PORT).heard() == refused
    found = drops(events)
    assert len(found) == len(refused)
    for event in found:
        assert event["denied_by"] == denied("egress", "client", "quiet")
        assert (event["summary"], event["protocol"]) == ("policy quiet/egress, EPERM", "UDP")
        assert (event["source"]["pod"], event["source"]["comm"]) == ("client", "sends")
        assert (event["destination"]["ip"], event["destination"]["port"]) == (net.addresses["server"], PORT)
    assert sum(row["count"] for row in rows) == len(refused)


def test_several_at_once_and_one_that_is_killed(net: PodNetwork, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    with net.flows() as events, enforce(net, folders[0], policy("nobody", "server", ingress=[])):
        with enforce(net, folders[1], policy("no-way-out", "client", egress=[]), end=signal.SIGKILL):
            assert call(net) == "EPERM"
        wait_until(lambda: call(net) == "timeout")
    assert {event["summary"] for event in drops(events)} == {"policy no-way-out/egress, EPERM", "policy nobody/ingress"}
    wait_until(lambda: not maps_of_refusals())


def bpf_maps(*words: str) -> list[dict[str, Any]]:
    """As `bpftool map WORDS` tells them."""
    done = subprocess.run(["bpftool", "-j", "map", *words], capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]") if done.returncode == 0 else []
    return found


def maps_of_refusals() -> set[int]:
    """Numbers of what is in the kernel; each belongs to a run of enforce."""
    return {map["id"] for map in bpf_maps() if map.get("name") == "gadget_refused"}


def maps_that_flows_look_at() -> list[set[int]]:
    """For each run of flows."""
    runs = [map["id"] for map in bpf_maps() if map.get("name") == "gadget_refusals"]
    return [
        {inner["inner_map_id"] for inner in bpf_maps("dump", "id", str(run)) if inner.get("inner_map_id")}
        for run in runs
    ]
