"""A recording has what was selected, and what a replay of that needs."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from kubectl_gadget.recording.recorded_frames import from_frame
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.selected_parts import OTHER_POD, MetObjects, SelectedFrames
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.containers import ContainerFilter, Identity
from kubectl_gadget.run.backlog import Content, Events, Item, Selected
from kubectl_gadget.wire.agent_messages import ContainerChanges, ContainerNames, GadgetStats, Loser, Stats
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import EventsHeader, Frame, split_events
from tests.rows.records import OPEN, record, ring

SHOP = FilterSpec(namespaces=("shop",))
SECOND = 1_000_000_000


def names(id: str, namespace: str, pod: str) -> ContainerNames:
    return ContainerNames(
        id=id * 64, namespace=namespace, pod=pod, pod_uid=f"uid-{pod}", container="c", image=f"{pod}:1"
    )


CART, SECRET = names("a", "shop", "cart-1"), names("b", "bank", "innocent-1")
BOTH = ContainerChanges(containers=(CART, SECRET), cgroups={1: CART.id, 2: SECRET.id, 3: None})


def events(*cgroups: int) -> Events:
    made = (record(cgroup=cgroup, path=f"/of-{cgroup}".encode()) for cgroup in cgroups)
    return Events(EventsHeader(0, 0, 0).encode() + ring(*made))


def step(
    frames: SelectedFrames, *contents: Content, now_ns: int = 0, answers: dict[str, bool | None] | None = None
) -> list[RecordedFrame]:
    return frames.frames([Item("n", content) for content in contents], now_ns, answers or {})


def replayed(*steps: Iterable[RecordedFrame]) -> tuple[ContainerFilter, Identity]:
    """What a replay knows after these steps."""
    identity, selects = Identity("n"), ContainerFilter(FilterSpec())
    for frame in (frame for frames in steps for frame in frames):
        match from_frame(Frame(frame.type, frame.payload)):
            case Selected(filter):
                selects = ContainerFilter(filter)
            case ContainerChanges() as changes:
                identity.apply(changes, 0)
    return selects, identity


def text(*steps: Iterable[RecordedFrame]) -> str:
    return b"\n".join(frame.payload for frames in steps for frame in frames).decode("latin-1")


def everyone(*_: str) -> bool:
    return True


def test_of_other_containers_only_their_cgroups_are_recorded() -> None:
    made = step(SelectedFrames([OPEN], everyone, False), Selected(SHOP), BOTH)

    for secret in ("innocent", "bank", SECRET.id):
        assert secret not in text(made)
    selects, identity = replayed(made)
    assert identity.owner(1).pod == "cart-1"
    assert not selects.wanted(identity.owner(2))
    assert identity.owner(2).kind != "unknown", "its events are unwanted, and not events of nobody"
    assert identity.owner(3).kind == "host"


def test_events_of_other_containers_are_blanked_while_the_kernel_may_still_send_them() -> None:
    frames = SelectedFrames([OPEN], everyone, False)

    made = step(frames, Selected(SHOP), BOTH, events(1, 2, 3, 1))

    assert "/of-2" not in text(made)
    assert text(made).count("/of-1") == 2
    assert "/of-3" in text(made)
    assert len(decode(OPEN, "n", split_events(made[-1].payload)[1])) == 3
    assert len(made[-1].payload) == len(events(1, 2, 3, 1).payload)


def test_a_container_that_is_selected_later_gets_its_names_before_its_events() -> None:
    frames = SelectedFrames([OPEN], everyone, False)
    first = step(frames, Selected(SHOP), BOTH)

    second = step(frames, Selected(FilterSpec(namespaces=("shop", "bank"))), events(2))

    selects, identity = replayed(first, second)
    assert identity.owner(2).pod == "innocent-1"
    assert selects.wanted(identity.owner(2))
    assert "/of-2" in text(second)


def test_labels_decide_and_pods_that_they_leave_out_are_not_named() -> None:
    answers: dict[str, bool | None] = {"shop/cart-1": True, "bank/innocent-1": False}
    frames = SelectedFrames([OPEN], lambda _uid, pod: answers.get(pod), False)
    excluding = Selected(FilterSpec(exclude_pods=("bank/innocent-1", SECRET.pod_uid)))

    first = step(frames, excluding, BOTH)
    answers["bank/innocent-1"] = True
    second = step(frames, Selected(FilterSpec()), events(2))

    assert "innocent" not in text(first)
    assert frames.answers({f"{SECRET.pod_uid}\nbank/innocent-1": False}) == {OTHER_POD: False}
    assert replayed(first, second)[1].owner(2).pod == "innocent-1"


def test_a_pod_of_which_nothing_is_known_yet_stays_until_it_is_decided() -> None:
    frames = SelectedFrames([OPEN], lambda *_: None, False)
    key = f"{CART.pod_uid}\nshop/cart-1"

    assert "cart-1" in text(step(frames, BOTH))
    assert frames.answers({key: None}) == {key: None, OTHER_POD: False}
    assert frames.answers({key: False}) == {key: False, OTHER_POD: False}


def test_where_processes_are_selected_only_their_containers_are_named() -> None:
    frames = SelectedFrames([OPEN], everyone, True)

    first, second = step(frames, Selected(FilterSpec()), BOTH), step(frames, events(2, 3))

    assert "cart-1" not in text(first, second)
    assert "innocent" not in text(first)
    assert replayed(first, second)[1].owner(2).pod == "innocent-1"


def test_names_that_come_after_their_cgroup_are_found() -> None:
    frames = SelectedFrames([OPEN], everyone, False)
    first = step(frames, Selected(SHOP), ContainerChanges(cgroups={1: CART.id, 2: SECRET.id}))
    second = step(frames, ContainerChanges(containers=(CART, SECRET)))

    assert SECRET.id not in text(first, second)
    _, identity = replayed(first, second)
    assert identity.owner(1).pod == "cart-1"
    assert identity.owner(2).kind != "unknown"


def test_losses_of_other_containers_are_counted_without_their_names() -> None:
    frames = SelectedFrames([OPEN], everyone, False)
    losers = (Loser(namespace="shop", pod="cart-1", container="c", lost=1), Loser(namespace="bank", pod="x", lost=2))
    stats = Stats(gadgets=(GadgetStats(lost={"ring_full": {"0": 3}}, lost_by=losers),))

    made = step(frames, Selected(SHOP), BOTH, stats)

    assert "bank" not in text(made)
    assert from_frame(Frame(made[-1].type, made[-1].payload)) == stats.replace(
        gadgets=(stats.gadgets[0].replace(lost_by=losers[:1]),)
    )


def pod(name: str, address: str, namespace: str = "bank", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    return {"metadata": metadata, "spec": {"nodeName": "n", **spec}, "status": {"podIP": address}}


def service(name: str, address: str, namespace: str = "bank") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}"},
        "spec": {"clusterIP": address, "clusterIPs": [address]},
    }


def put(**kinds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"kinds": {kind: {"put": list(items), "gone": []} for kind, items in kinds.items()}}]


def written(changes: Iterable[Any]) -> set[str]:
    return {item["metadata"]["name"] for each in changes for kind in each["kinds"].values() for item in kind["put"]}


def in_shop(found: Any) -> bool:
    return bool(found["metadata"]["namespace"] == "shop")


@pytest.mark.parametrize("padding", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1:2"])
def test_objects_are_recorded_once_an_event_has_their_address(address: str, padding: int) -> None:
    met = MetObjects(in_shop)
    packed = ipaddress.ip_address(address).packed
    first = met.changes(
        put(pods=[pod("cart-1", "10.1.0.1", "shop"), pod("peer", address), pod("innocent", "10.1.2.4")]), [], False
    )

    second = met.changes([], [b"\0" * padding + packed + b"\xff" * 8], False)

    assert written(first) == {"cart-1"}
    assert written(second) == {"peer"}
    assert written(met.changes(put(pods=[pod("new", address)]), [], False)) == {"new"}, "it has the same address"
    gone = met.changes([{"kinds": {"pods": {"put": [], "gone": ["uid-peer", "uid-innocent"]}}}], [], False)
    assert gone == [{"kinds": {"pods": {"put": [], "gone": ["uid-peer"]}}}]


def test_a_service_is_recorded_with_its_slices_and_those_of_selected_pods_namespaces_too() -> None:
    met = MetObjects(in_shop)
    labels = {"kubernetes.io/service-name": "db"}
    piece = {
        "metadata": {"name": "db-x", "namespace": "bank", "uid": "uid-db-x", "labels": labels},
        "endpoints": [{"addresses": ["10.1.9.9"]}],
    }
    known = put(
        pods=[pod("cart-1", "10.1.0.1", "shop"), pod("db-0", "10.1.9.9"), pod("host", "10.1.0.9", hostNetwork=True)],
        services=[service("db", "10.2.0.1"), service("cart", "10.2.0.2", "shop"), service("vault", "10.2.0.3")],
        endpointslices=[piece],
        nodes=[{"metadata": {"name": "n", "uid": "uid-n"}}],
        namespaces=[{"metadata": {"name": name, "uid": f"uid-ns-{name}"}} for name in ("shop", "bank", "other")],
    )

    assert written(met.changes(known, [], False)) == {"cart-1", "cart", "n", "shop"}
    assert written(met.changes([], [ipaddress.ip_address("10.2.0.1").packed + bytes(4)], False)) == {"db", "db-x"}
    assert written(met.changes([], [ipaddress.ip_address("10.1.9.9").packed + bytes(4)], False)) >= {"db-0", "bank"}


def test_pods_that_are_selected_when_their_node_gets_its_filter_are_recorded_then() -> None:
    chosen: set[str] = set()
    met = MetObjects(lambda found: found["metadata"]["name"] in chosen)

    assert not met.changes(put(pods=[pod("cart-1", "10.1.0.1")]), [], False)
    chosen.add("cart-1")
    assert written(met.changes([], [], True)) == {"cart-1"}


def test_a_pod_that_the_selector_selects_without_a_new_filter_gets_its_names() -> None:
    answers: dict[str, bool | None] = {"bank/innocent-1": False}
    frames = SelectedFrames([OPEN], lambda _uid, pod: answers.get(pod, True), False)
    first = step(frames, Selected(FilterSpec()), BOTH)
    answers.clear()

    second = step(frames, events(2), answers={f"{SECRET.pod_uid}\nbank/innocent-1": True})

    assert "innocent" not in text(first)
    assert replayed(first, second)[1].owner(2).pod == "innocent-1"
    assert "/of-2" in text(second)
