"""UPDATE on real maps: entries as they are, and containers by pod."""

import ctypes
from typing import Any

import pytest

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.sources.client_tables import ClientTables
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.gadgets.load import object_bytes
from tests.bpf.tracer import MACHINE
from tests.messages import update_of

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]
VALUE = 40
OTHER, HOST, NAMESPACE, POD = (bytes([number]) * VALUE for number in (1, 2, 3, 4))


class Node:
    """In the place of Containers: tells of three containers and the host."""

    def __init__(self) -> None:
        self.followers: list[Any] = []

    def follow(self, follower: Any) -> None:
        self.followers.append(follower)
        for cgroup, pod, wanted in ((1, "web", True), (2, "db", True), (3, "web", False), (4, None, True)):
            follower.set_owner(cgroup, container(cgroup, pod) if pod else None, wanted)


def container(cgroup: int, pod: str) -> ContainerIdentity:
    return ContainerIdentity(f"{cgroup}", cgroup, "shop", pod, "uid", "main", "", "containerd", "container")


@pytest.fixture
def object() -> Any:
    object = BpfObject(object_bytes("network_policy", MACHINE), "network_policy", [])
    object.load()
    yield object
    object.close()


def value(object: BpfObject, table: str, key: bytes) -> bytes | None:
    map = object.map(f"gadget_table_{table}")
    assert isinstance(map, BpfMap)
    found = ctypes.create_string_buffer(map.value_size)
    try:
        libbpf.load().call("bpf_map_lookup_elem", map.fd, key, found)
    except Failure:
        return None
    return found.raw


def of_cgroup(object: BpfObject, cgroup: int) -> bytes | None:
    return value(object, "pods", cgroup.to_bytes(8, "little"))


def test_entries_are_set_and_removed(object: BpfObject) -> None:
    tables: Any = ClientTables("g", object, Node())  # type: ignore[arg-type]
    key, entry = bytes(12), b"p ingress[0]".ljust(128, b"\0")
    tables.update(update_of({"gadget": 0, "set": {"rules": {key.hex(): entry.hex()}}}))
    assert value(object, "rules", key) == entry
    tables.update(update_of({"gadget": 0, "remove": {"rules": [key.hex()]}}))
    assert value(object, "rules", key) is None


def test_containers_get_the_entry_of_their_pod_and_those_that_come_later_too(object: BpfObject) -> None:
    node = Node()
    tables: Any = ClientTables("g", object, node)  # type: ignore[arg-type]
    fixed = {"table": "pods", "other": OTHER.hex(), "host": HOST.hex()}
    tables.update(update_of({"gadget": 0, "containers": {**fixed, "pods": {"shop/web": POD.hex()}}}))
    assert [of_cgroup(object, cgroup) for cgroup in (1, 2, 3, 4)] == [POD, OTHER, OTHER, HOST]
    tables.update(
        update_of(
            {
                "gadget": 0,
                **{"containers": {**fixed, "pods": {"shop/web": None}, "namespaces": {"shop": NAMESPACE.hex()}}},
            }
        )
    )
    assert [of_cgroup(object, cgroup) for cgroup in (1, 2, 3, 4)] == [NAMESPACE, NAMESPACE, OTHER, HOST]
    (follower,) = node.followers
    follower.set_owner(5, container(5, "web"), True)
    assert of_cgroup(object, 5) == NAMESPACE
    follower.forget(5)
    tables.update(update_of({"gadget": 0, "containers": fixed}))
    assert of_cgroup(object, 5) is None


def test_a_container_without_a_name_gets_the_entry_of_the_uid_in_its_cgroups_path(object: BpfObject) -> None:
    node = Node()
    tables: Any = ClientTables("g", object, node)  # type: ignore[arg-type]
    fixed = {"table": "pods", "other": OTHER.hex(), "host": HOST.hex()}
    tables.update(update_of({"gadget": 0, "containers": {**fixed, "pods": {"uid": POD.hex()}}}))
    (follower,) = node.followers
    nameless = container(5, "")._replace(namespace="")
    follower.set_owner(5, nameless, True)
    follower.set_owner(6, nameless._replace(pod_uid="other"), True)
    follower.set_owner(7, nameless._replace(pod_uid=""), True)
    assert [of_cgroup(object, cgroup) for cgroup in (5, 6, 7)] == [POD, OTHER, HOST]


def test_a_pod_that_is_named_by_uid_leaves_no_entry_for_the_next_one_of_its_name(object: BpfObject) -> None:
    node = Node()
    tables: Any = ClientTables("g", object, node)  # type: ignore[arg-type]
    fixed = {"table": "pods", "other": OTHER.hex(), "host": HOST.hex()}
    tables.update(update_of({"gadget": 0, "containers": {**fixed, "pods": {"uid": POD.hex()}}}))
    (follower,) = node.followers
    follower.set_owner(5, container(5, "web"), True)
    follower.set_owner(6, container(6, "web")._replace(pod_uid="later"), True)
    assert [of_cgroup(object, cgroup) for cgroup in (5, 6)] == [POD, OTHER]


@pytest.mark.parametrize(
    ("update", "error"),
    [
        ({"set": {"rules": {"00": "00"}}}, FrameError),
        ({"set": {"rules": {"zz": "00"}}}, FrameError),
        ({"set": {"rules": []}}, FrameError),
        ({"containers": {"table": "pods"}}, FrameError),
        ({"set": {"no": {"00": "00"}}}, AgentError),
        ({"remove": {"gadget_events": ["00"]}}, AgentError),
    ],
)
def test_a_malformed_update_is_refused(object: BpfObject, update: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        ClientTables("g", object, Node()).update(update_of({"gadget": 0, **update}))  # type: ignore[arg-type]


def test_a_full_table_is_named_with_its_limit() -> None:
    object = BpfObject(object_bytes("network_policy", MACHINE), "network_policy", [])
    map = object.map("gadget_table_pods")
    assert map is not None
    map.resize(3)
    object.load()
    node = Node()
    table = {"table": "pods", "pods": {}, "other": OTHER.hex(), "host": HOST.hex()}
    try:
        with pytest.raises(AgentError, match="gadget g: the table pods is full: it holds 3 entries"):
            ClientTables("g", object, node).update(update_of({"gadget": 0, "containers": table}))  # type: ignore[arg-type]
    finally:
        object.close()
