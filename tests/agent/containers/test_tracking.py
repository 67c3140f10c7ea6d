"""Real containers, made by runc, and who the agent says they are."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.containers import tracking
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host.cgroups import find_root
from kubectl_gadget.demo import DemoPods
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import FrameType
from kubectl_gadget.wire.message import parse
from tests.agent.client import Client
from tests.agent.conftest import Compiled
from tests.agent.records import cgroups
from tests.conftest import why_no_containers
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]

OPEN_ONCE = "cat /etc/hosts >/dev/null"


@pytest.fixture
def pods() -> Iterator[DemoPods]:
    with DemoPods(Path(f"/run/kubectl-gadget-agent-test-{os.getpid()}")) as pods:
        yield pods


@pytest.fixture
def systemd_pods() -> Iterator[DemoPods]:
    with DemoPods(Path(f"/run/kubectl-gadget-agent-test-{os.getpid()}"), driver="systemd") as pods:
        yield pods


def trace(client: Client, opens: Compiled, **filter: Any) -> None:
    client.run(opens.elf, opens.gadget("openat_exit"), {"host": False, **filter})


def cgroup_id(path: Path) -> int:
    return path.stat().st_ino


def test_containers_that_run_already_are_named_from_their_bundles(pods: DemoPods, opens: Compiled) -> None:
    pod = pods.start_pod("empire", "deathstar", {"laser": ["sleep", "600"]}, image="example.org/laser:1")
    with Client() as client:
        trace(client, opens)
        client.wait_until(lambda: pod.sandbox.id in client.containers())
        container = client.containers()[pod.containers["laser"].id]
        assert container == {
            "id": pod.containers["laser"].id,
            "cgroup": cgroup_id(pod.containers["laser"].cgroup),
            "namespace": "empire",
            "pod": "deathstar",
            "pod_uid": pod.uid,
            "container": "laser",
            "image": "example.org/laser:1",
            "runtime": "containerd",
            "kind": "container",
            "earlier": True,
        }
        assert client.containers()[pod.sandbox.id]["kind"] == "sandbox"


def test_the_systemd_form_of_the_cgroup_path_is_known_too(systemd_pods: DemoPods, opens: Compiled) -> None:
    pod = systemd_pods.start_pod("default", "xwing", {"spaceship": ["sleep", "600"]})
    with Client() as client:
        trace(client, opens)
        client.wait_until(lambda: pod.containers["spaceship"].id in client.containers())
        container = client.containers()[pod.containers["spaceship"].id]
        assert (container["pod"], container["pod_uid"]) == ("xwing", pod.uid)


def test_a_container_that_starts_later_is_named_before_its_first_event(
    client: Client, opens: Compiled, pods: DemoPods
) -> None:
    trace(client, opens, namespaces=["default"])
    pod = pods.run_short("default", "xwing", ["sh", "-c", OPEN_ONCE])
    id = cgroup_id_of(client, pod.containers["main"].id)
    client.stop()
    named = events = None
    for number, frame in enumerate(client.frames):
        if frame.type == FrameType.CONTAINERS and named is None and str(id) in parse(frame.payload)["cgroups"]:
            named = number
        if frame.type == FrameType.EVENTS and events is None and id in cgroups(frame.payload[24:]):
            events = number
    assert named is not None
    assert events is not None
    assert named < events
    assert not client.containers()[pod.containers["main"].id]["earlier"]


def test_twenty_containers_that_live_a_moment_are_all_named(client: Client, opens: Compiled, pods: DemoPods) -> None:
    trace(client, opens, namespaces=["default"])
    ids = set()
    for number in range(20):
        ids.add(pods.run_short("default", f"short-{number}", ["sh", "-c", OPEN_ONCE]).containers["main"].id)
        client.read(0)
    client.stop()
    named = {id: container["pod"] for id, container in client.containers().items() if id in ids}
    assert sorted(named.values()) == sorted(f"short-{n}" for n in range(20))
    seen = set(cgroups(client.ring[0]))
    assert {cgroup_id_of(client, id) for id in ids} <= seen


def cgroup_id_of(client: Client, id: str) -> int:
    client.wait_until(lambda: id in client.containers())
    cgroup: int = client.containers()[id]["cgroup"]
    return cgroup


def test_a_removed_cgroup_is_reported_after_its_last_event(client: Client, opens: Compiled, pods: DemoPods) -> None:
    trace(client, opens)
    pod = pods.run_short("default", "xwing", ["sh", "-c", OPEN_ONCE])
    id = cgroup_id_of(client, pod.containers["main"].id)
    client.wait_until(lambda: id in client.removed())
    client.stop()
    removed = [
        number
        for number, frame in enumerate(client.frames)
        if frame.type == FrameType.CONTAINERS and id in parse(frame.payload)["removed"]
    ]
    last = max(
        number
        for number, frame in enumerate(client.frames)
        if frame.type == FrameType.EVENTS and id in cgroups(frame.payload[24:])
    )
    assert len(removed) == 1
    assert removed[0] > last


def test_a_cgroup_below_a_container_belongs_to_it_whatever_it_is_called(
    client: Client, opens: Compiled, pods: DemoPods
) -> None:
    trace(client, opens)
    container = pods.start_pod("default", "xwing", {"spaceship": ["sleep", "600"]}).containers["spaceship"]
    client.wait_until(lambda: container.id in client.containers())
    nested = container.cgroup.joinpath("inner", "f" * 64, *["deep"] * 40)
    nested.mkdir(parents=True)
    before = cgroups(client.ring.get(0, b"")).count(cgroup_id(container.cgroup))
    join = f"echo $$ >{nested}/cgroup.procs; {OPEN_ONCE}"
    subprocess.run(["sh", "-c", join], check=True)
    client.wait_until(lambda: cgroups(client.ring.get(0, b"")).count(cgroup_id(container.cgroup)) > before)
    assert cgroup_id(nested) not in cgroups(client.ring[0])
    assert "f" * 64 not in client.containers()
    while nested != container.cgroup:
        nested.rmdir()
        nested = nested.parent


def test_cgroups_that_a_container_makes_first_are_reported_up_to_a_number() -> None:
    top = Path(find_root()) / f"cri-containerd-{os.getpid():064x}.scope"
    below = [top / f"below-{number}" for number in range(tracking.MOST_EARLY + 17)]
    containers = Containers()
    try:
        for path in (top, *below):  # it is not told of the first before it reads
            path.mkdir()
        ids = [cgroup_id(path) for path in below]
        owners: dict[int, str | None] = {}

        def is_reported() -> bool:
            containers.drain()
            if changes := containers.take_changes():
                owners.update(changes.cgroups)
            return cgroup_id(top) in owners

        wait_until(is_reported)
        assert {owners[id] for id in ids if id in owners} == {owners[cgroup_id(top)]}
        assert sum(id in owners for id in ids) == tracking.MOST_EARLY
        (warning,) = containers.take_warnings()
        assert "made 17 more cgroups" in warning
        for path in (*below, top):
            path.rmdir()
        reported, removed = owners.keys() & {*ids}, set[int]()

        def are_removed() -> bool:
            containers.drain()
            removed.update(containers.take_removed())
            return reported <= removed

        wait_until(are_removed)
    finally:
        containers.close()


def test_a_users_cgroup_is_not_taken_for_a_container_of_the_runtime() -> None:
    """A user may make any cgroup below one that systemd has delegated."""
    id = f"{os.getpid():064x}"
    user = Path(find_root()) / f"user-{os.getpid()}.service"
    forged, real = user / f"cri-containerd-{id}.scope", Path(find_root()) / f"cri-containerd-{id}.scope"
    user.mkdir()
    os.chown(user, 1000, 1000)
    for path in (forged, real):
        path.mkdir()
    containers = Containers()
    try:
        changes = containers.take_changes()
        assert changes
        assert changes.cgroups[cgroup_id(forged)] == f"{id}@1000"
        assert cgroup_id(real) not in changes.cgroups, "it may still get its names"
    finally:
        containers.close()
        for path in (forged, user, real):
            path.rmdir()


def test_only_wanted_containers_are_sent(opens: Compiled, pods: DemoPods) -> None:
    loop = ["sh", "-c", f"while true; do {OPEN_ONCE}; sleep 0.02; done"]
    wanted = pods.start_pod("default", "xwing", {"spaceship": loop}).containers["spaceship"]
    unwanted = pods.start_pod("empire", "deathstar", {"laser": loop}).containers["laser"]
    with Client() as client:
        trace(client, opens, namespaces=["default"], pods=["xwing"], containers=["spaceship"])
        client.wait_until(lambda: cgroup_id(wanted.cgroup) in cgroups(client.ring.get(0, b"")))
        client.wait_for(FrameType.STATS)
        seen = set(cgroups(client.ring[0]))
        assert cgroup_id(unwanted.cgroup) not in seen
        client.send(FrameType.FILTER, {"namespaces": ["empire"]})
        client.wait_until(lambda: cgroup_id(unwanted.cgroup) in cgroups(client.ring[0]))
        client.wait_for(FrameType.STATS, after=len(client.frames))
        client.ring.clear()
        client.wait_until(lambda: cgroup_id(unwanted.cgroup) in cgroups(client.ring.get(0, b"")))
        assert cgroup_id(wanted.cgroup) not in cgroups(client.ring[0])


def test_host_processes_are_sent_only_when_asked_for(client: Client, opens: Compiled) -> None:
    trace(client, opens)
    host = Path(client.wait_for(FrameType.HELLO)["cgroup_root"]) / own_cgroup()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        Path("/etc/hosts").read_bytes()
        client.read(0.01)
    assert cgroup_id(host) not in cgroups(client.ring.get(0, b""))
    client.send(FrameType.FILTER, {"host": True})

    def seen() -> bool:
        Path("/etc/hosts").read_bytes()
        return cgroup_id(host) in cgroups(client.ring.get(0, b""))

    client.wait_until(seen)
    assert client.owners()[cgroup_id(host)] is None


def own_cgroup() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::")).strip("/")


def test_a_container_that_nothing_describes_is_reported_by_its_id_and_still_sent(
    client: Client, opens: Compiled
) -> None:
    trace(client, opens, namespaces=["default"])
    root = Path(client.wait_for(FrameType.HELLO)["cgroup_root"])
    folder = root / ("e" * 64)
    folder.mkdir()
    try:
        id = cgroup_id(folder)
        client.wait_until(lambda: id in client.owners())
        assert client.containers()["e" * 64]["container"] == "e" * 12
        assert client.containers()["e" * 64]["pod"] == ""
        pid = os.fork()
        if pid == 0:
            (folder / "cgroup.procs").write_text(str(os.getpid()))
            Path("/etc/hosts").read_bytes()
            os._exit(0)
        os.waitpid(pid, 0)
        client.wait_until(lambda: id in cgroups(client.ring.get(0, b"")))
    finally:
        folder.rmdir()


def test_followers_get_a_container_that_nothing_describes_with_the_uid_of_its_pod() -> None:
    uid = "0f7d1c8e-6a53-4a8e-9f1e-3d1b5a0c2e4f"
    pod = Path(find_root()) / f"pod{uid}"
    folder = pod / ("f" * 64)
    containers, owners = Containers(), dict[int, tuple[ContainerIdentity | None, bool]]()
    try:
        containers.follow(Owners(owners))
        folder.mkdir(parents=True)
        id = cgroup_id(folder)

        def is_followed() -> bool:
            containers.drain()
            return id in owners

        wait_until(is_followed)
        container, wanted = owners[id]
        assert container is not None
        assert (container.pod, container.pod_uid, wanted) == ("", uid, True)
        containers.set_filter(FilterSpec(namespaces=("default",)))
        assert owners[id] == (container, False)
    finally:
        containers.close()
        folder.rmdir()
        pod.rmdir()


def test_followers_do_not_get_a_container_of_which_nothing_is_known() -> None:
    folder = Path(find_root()) / ("f" * 64)
    containers, owners = Containers(), dict[int, tuple[ContainerIdentity | None, bool]]()
    try:
        containers.follow(Owners(owners))
        folder.mkdir()
        id, reported = cgroup_id(folder), list[str]()

        def is_reported() -> bool:
            containers.drain()
            if changes := containers.take_changes():
                reported.extend(container.id for container in changes.containers)
            return folder.name in reported

        wait_until(is_reported)
        assert id not in owners
    finally:
        containers.close()
        folder.rmdir()


class Owners:
    """A ContainerFollower."""

    def __init__(self, owners: dict[int, tuple[ContainerIdentity | None, bool]]) -> None:
        self._owners = owners

    def set_owner(self, cgroup: int, container: ContainerIdentity | None, wanted: bool) -> None:
        self._owners[cgroup] = container, wanted

    def forget(self, cgroup: int) -> None:
        del self._owners[cgroup]


def test_names_that_are_written_late_are_found_by_a_retry(client: Client, opens: Compiled, pods: DemoPods) -> None:
    """Some runtimes write the bundle's place after the cgroup: it is looked for again."""
    trace(client, opens)
    pod = pods.start_pod("default", "xwing", {"spaceship": ["sleep", "600"]})
    bundle = pod.containers["spaceship"].bundle
    root = Path(client.wait_for(FrameType.HELLO)["cgroup_root"])
    late = bundle.with_name("d" * 64)
    folder = root / late.name
    folder.mkdir()
    client.wait_until(lambda: pod.containers["spaceship"].id in client.containers())
    late.mkdir()
    (late / "config.json").write_text((bundle / "config.json").read_text())
    client.wait_until(lambda: late.name in client.containers())
    folder.rmdir()
    assert client.containers()[late.name]["pod"] == "xwing"


def test_a_walk_removes_a_container_with_all_cgroups_below_it() -> None:
    """As after changes were lost."""
    root = Path(find_root())
    top = root / f"cri-containerd-{os.getpid():064x}.scope"
    below = [top / f"below-{number}" for number in range(17)]
    for path in (top, *below):
        path.mkdir()
    containers = Containers()
    try:
        for path in (*below, top):
            path.rmdir()
        containers._walk()
        assert cgroup_names(containers).isdisjoint({top.name, *(path.name for path in below)})
    finally:
        containers.close()


def cgroup_names(containers: Containers) -> set[str]:
    """Last names of the paths that it knows."""
    return {path.rpartition("/")[2] for _, path in containers.everything()}
