"""An observer's session with the real agent and kernel: it sees one namespace, and cannot ask for more."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.host.cgroups import find_root
from kubectl_gadget.agents import manifests
from kubectl_gadget.demo import DemoPods
from kubectl_gadget.wire.frames import FrameType, encode
from kubectl_gadget.wire.message import parse
from kubectl_gadget.wire.session_command import SessionCommand
from tests.agent.client import Client
from tests.agent.records import cgroups
from tests.agent.session.test_declared import asked, spoil
from tests.conftest import why_no_containers
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]

SHOP = "kg-observer-shop"
"""No other namespace of this machine is called so."""
OPENS = ["sh", "-c", "while :; do cat /etc/hosts >/dev/null; sleep 0.05; done"]


def observer(tmp_path: Path, *gadgets: str, namespace: str | None = SHOP) -> Client:
    words = manifests.contained_command(SessionCommand(gadgets, namespace=namespace), {"spec": {"containers": [{}]}})
    environment = {"KUBECTL_GADGET_CONTAINED": "1", "KUBECTL_GADGET_RUN": str(tmp_path), "POD_UID": "agents"}
    return Client(environment, command=(sys.executable, *words[2:]))


@pytest.fixture
def pods() -> Iterator[DemoPods]:
    with DemoPods(Path(f"/run/kubectl-gadget-observer-test-{os.getpid()}")) as pods:
        yield pods


@pytest.fixture
def nameless() -> Iterator[int]:
    """A container that nothing describes, whose process opens files: its cgroup."""
    cgroup = Path(find_root()) / ("e" * 64)
    cgroup.mkdir()
    process = subprocess.Popen(["sh", "-c", f"echo $$ >{cgroup}/cgroup.procs; {OPENS[2]}"], start_new_session=True)
    yield cgroup.stat().st_ino
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    def is_gone() -> bool:
        with suppress(OSError):
            cgroup.rmdir()
        return not cgroup.exists()

    wait_until(is_gone, "the end of its processes")


def test_an_observer_sees_one_namespace_and_gets_no_other_container(
    tmp_path: Path, pods: DemoPods, nameless: int, catalogue_built: Path
) -> None:
    mine = pods.start_pod(SHOP, "cart", {"main": OPENS})
    other = pods.start_pod("bank", "vault", {"main": OPENS})
    spec, elf = asked("trace_open")
    with observer(tmp_path, "trace_open") as client:
        client.run(elf, spec, {"namespaces": None, "host": True})
        assert client.wait_for(FrameType.HELLO)["contained"] is True
        wanted = mine.containers["main"].cgroup.stat().st_ino
        client.wait_until(lambda: cgroups(client.ring.get(0, b"")).count(wanted) >= 5)
        # Asking for another namespace later changes nothing but that its own is not shown any more.
        client.send(FrameType.FILTER, {"namespaces": ["bank"], "host": True})
        client.send(FrameType.FILTER, {"host": True})
        later = pods.run_short("bank", "short", [*OPENS[:2], "cat /etc/hosts"])
        before = len(cgroups(client.ring[0]))
        client.wait_until(lambda: len(cgroups(client.ring[0])) >= before + 5)
        client.stop()
    assert set(cgroups(client.ring[0])) == {wanted}
    assert {container["namespace"] for container in client.containers().values()} == {SHOP}
    said = json.dumps([parse(frame.payload) for frame in client.frames if frame.type != FrameType.EVENTS])
    for foreign in (other.containers["main"].id, later.containers["main"].id, "bank", "vault", "e" * 64):
        assert foreign not in said
    assert set(client.owners()) <= {wanted, mine.sandbox.cgroup.stat().st_ino}


def test_without_a_namespace_it_sees_all_containers_as_others_do(
    tmp_path: Path, pods: DemoPods, nameless: int, catalogue_built: Path
) -> None:
    pods.start_pod("bank", "vault", {"main": OPENS})
    spec, elf = asked("trace_open")
    with observer(tmp_path, "trace_open", namespace=None) as client:
        client.run(elf, spec, {})
        client.wait_until(lambda: nameless in cgroups(client.ring.get(0, b"")))
        client.wait_until(lambda: "bank" in {found["namespace"] for found in client.containers().values()})
        client.stop()


@pytest.mark.parametrize(
    ("type", "value"),
    [
        (FrameType.LOOK_UP, {"functions": ["sys_write"], "ways": {}}),
        (FrameType.UPDATE, {"gadget": 0, "set": {"peers": {}}}),
        (FrameType.RUN, {"gadgets": [{"name": "policy", "kind": "policy", "object": 0, "hooks": []}]}),
        (FrameType.RUN, {"gadgets": [{"name": "installed", "kind": "installed", "object": 0}]}),
        (FrameType.RUN, {"gadgets": []}),
    ],
)
def test_a_request_that_an_observer_may_not_make_ends_the_session(
    tmp_path: Path, type: FrameType, value: dict[str, Any], catalogue_built: Path
) -> None:
    with observer(tmp_path, "trace_open") as client:
        client.send(type, value)
        end = client.finish()
    assert end["reason"] == "error"
    assert "STARTED" not in client.types()


def test_another_object_is_refused_before_anything_is_loaded(tmp_path: Path, catalogue_built: Path) -> None:
    spec, elf = asked("trace_open")
    with observer(tmp_path, "trace_open") as client:
        client.send_bytes(encode(FrameType.OBJECT, elf[:-1]))
        end = client.finish()
    assert "only the objects of their own catalogue" in end["error"]["what"]
    with observer(tmp_path, "trace_open") as client:
        client.send_bytes(encode(FrameType.OBJECT, elf))
        client.send(FrameType.RUN, {"gadgets": [spoil(spec, "globals/filter_path/offset", 0)]})
        end = client.finish()
    assert "differs from this agent's catalogue" in end["error"]["what"]
    assert "STARTED" not in client.types()


def test_a_session_without_a_gadget_does_not_begin(tmp_path: Path, pods: DemoPods, catalogue_built: Path) -> None:
    """It would name all containers, and no right is checked for it."""
    pods.start_pod("bank", "vault", {"main": OPENS})
    with observer(tmp_path, namespace=None) as client, suppress(BrokenPipeError, ConnectionError):
        client.send(FrameType.RUN, {"gadgets": []})
        while client.read():
            pass
    assert client.frames == []


def test_a_session_for_the_status_names_nothing(tmp_path: Path, pods: DemoPods, catalogue_built: Path) -> None:
    pods.start_pod("bank", "vault", {"main": OPENS})
    spec, _ = asked("trace_open")
    for request in ({"gadgets": []}, {"gadgets": [spec]}, {"gadgets": [spec | {"name": "status"}]}):
        with observer(tmp_path, "status", namespace=None) as client:
            client.send(FrameType.RUN, request)
            end = client.finish()
        assert end["reason"] == "error"
        assert client.types() == ["HELLO", "END"]
