"""The pods of `kubectl gadget demo` call each other, over a network that is apart from this machine's."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.advise.networkpolicy import KIND
from kubectl_gadget.advise.uses import SeenUses, Use
from kubectl_gadget.demo import NETWORK_POLICIES, PODS, DemoPod, DemoPods, Scene, stage
from kubectl_gadget.demo.runc import BundleSpec
from kubectl_gadget.demo.scene import make_certificate, python_folders
from kubectl_gadget.policies.network.evaluate import blocked
from kubectl_gadget.policies.network.run import LivePolicyTables, inventory, read_files, read_objects
from tests.conftest import why_no_containers

needs_containers = pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers()))


def links() -> str:
    """The names of this machine's network interfaces."""
    return "\n".join(sorted(os.listdir("/sys/class/net")))


def rules() -> str:
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def pods(scene: Scene) -> Iterator[DemoPods]:
    with stage(scene, Path(f"/run/kubectl-gadget-test-{os.getpid()}-scene")) as found:
        scene.start(found)
        yield found


@pytest.fixture(scope="module")
def caller(pods: DemoPods, scene: Scene) -> DemoPod:
    """A pod of the same network, that does nothing of itself."""
    address = f"{scene.network[99]}/{scene.network.prefixlen}"
    return pods.start_pod("default", "caller", {}, address=address)


def call(pods: DemoPods, scene: Scene, caller: DemoPod, script: str) -> int | None:
    """The exit code of a shell's script there."""
    nameserver = f"search default.svc.cluster.local svc.cluster.local\nnameserver {scene.address(PODS[3])}\n"
    files = {"etc/resolv.conf": nameserver}
    return pods.add_container(
        caller, f"run{len(caller.containers)}", ["sh", "-c", script], files=files, until_end=True
    ).exit_code


@needs_containers
@pytest.mark.parametrize(
    "script",
    [
        "until wget -q -O- http://deathstar.empire/v1/ | grep 'Death Star'; do sleep 0.1; done",
        "wget -q -O- --post-data a=b http://deathstar.empire/v1/request-landing | grep landed",
        "wget -O- http://deathstar.empire/v1/exhaust-port 2>&1 | grep 503",
        "wget -O- http://deathstar.empire/v1/nowhere 2>&1 | grep 404",
        "wget -q -O- --no-check-certificate https://deathstar.empire/v1/ | grep 'Death Star'",
        "nslookup kube-dns.kube-system.svc.cluster.local | grep Name",
        "nslookup hoth.rebels.svc.cluster.local 2>&1 | grep NXDOMAIN",
        "nc -w 5 deathstar.empire 23 2>&1 </dev/null | grep refused",
        "ping -c 1 -W 5 deathstar.empire",
        "wget -T 1 -O- http://192.0.2.1/ 2>&1 | grep unreachable",
    ],
)
def test_a_pod_reaches_the_others_by_name_and_nothing_else(
    pods: DemoPods, scene: Scene, caller: DemoPod, script: str
) -> None:
    assert call(pods, scene, caller, script) == 0


@pytest.mark.root
@needs_containers
def test_nothing_of_this_machines_network_changes() -> None:
    before = links(), Path("/proc/net/route").read_text(), rules()
    scene = Scene()
    with stage(scene, Path(f"/run/kubectl-gadget-test-{os.getpid()}-apart")) as pods:
        scene.start(pods)
        assert (links(), Path("/proc/net/route").read_text(), rules()) == before
    assert (links(), Path("/proc/net/route").read_text(), rules()) == before


def test_what_the_api_server_would_say_fits_the_policies(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "objects.json").write_text(json.dumps(scene.objects("here")))
    objects = read_objects(str(tmp_path / "objects.json"))
    policies = read_files([str(NETWORK_POLICIES)], "default")
    tables = LivePolicyTables(policies)
    tables.take(objects)
    assert tables.count == 2
    recording = SeenUses(KIND, inventory=inventory(objects))
    for words in CALLS:
        recording.add(uses(scene, *words))
    found = {
        (item.namespace + "/" + item.pod, item.peer, item.port)
        for item in blocked(recording.inventory, recording.uses, policies)
    }
    assert found == {
        ("empire/deathstar", "pod default/xwing", 80),
        ("default/xwing", "pod empire/deathstar", 23),
        ("empire/deathstar", "pod default/xwing", 23),
    }


CALLS = [
    ("default/xwing", "empire/deathstar", 80, "TCP"),
    ("default/xwing", "empire/deathstar", 23, "TCP"),
    ("default/xwing", "kube-system/coredns", 53, "UDP"),
    ("default/tiefighter", "empire/deathstar", 80, "TCP"),
    ("default/tiefighter", "empire/deathstar", 443, "TCP"),
    ("default/tiefighter", "kube-system/coredns", 53, "UDP"),
]


def uses(scene: Scene, client: str, server: str, port: int, protocol: str) -> Iterator[Use]:
    """A connection as both sides saw it."""
    sides = ((client, server, "egress"), (server, client, "ingress"))
    for here, there, direction in sides:
        namespace, _, pod = here.partition("/")
        addresses = {"local": scene.address(here), "remote": scene.address(there)}
        row = {"namespace": namespace, "pod": pod, "direction": direction, "protocol": protocol, "port": port}
        yield {**row, **addresses, "connections": 1, "sent_packets": 1, "received_packets": 1, "container": "main"}


def test_each_run_has_a_certificate_of_its_own() -> None:
    first, second = make_certificate("deathstar.empire"), make_certificate("deathstar.empire")
    assert first != second
    assert first.count("-----BEGIN") == 2


def test_the_files_of_python_are_shown_read_only() -> None:
    spec = BundleSpec(
        "c" * 64,
        "5" * 64,
        "default",
        "web",
        "1-2",
        "web",
        "python",
        ["/bin/true"],
        0,
        "/a",
        42,
        host_folders=tuple(python_folders()),
    )
    mounts = {item["destination"]: item["options"] for item in spec.config()["mounts"]}
    assert mounts["/usr"] == ["rbind", "ro", "nosuid", "nodev"]
