"""Leaves out of a recording what was not selected: names of other containers, their events, and the objects of others.

Agents announce every container of their node, and the informer delivers the whole cluster, since a run does not know
ahead whom it will meet. A file travels further than a run, so it gets less: the selected containers, the objects of
their pods, and those objects whose addresses occur in recorded events. Cgroups of other containers stay, as those of
one container without names: a replay has to know that their events were not wanted.

A replay must show the same rows. So what becomes selected later, or is met for the first time, is written
before the frames of that step.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.errors import FrameError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.kube.inventory import SLICE_OF
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES, Object
from kubectl_gadget.recording.recorded_frames import to_frame
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.rows.batch import Batch, blanked, decode
from kubectl_gadget.rows.containers import Container, ContainerFilter
from kubectl_gadget.run.backlog import Events, Item, Selected
from kubectl_gadget.run.run_options import RunOptions
from kubectl_gadget.wire.agent_messages import ContainerChanges, ContainerNames, Loser, Stats
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import split_events

Wants = Callable[[str, str], bool | None]
OTHER = ContainerNames(id="unselected", pod_uid="unselected", kind="sandbox", earlier=True)
"""A recording's data about a container that was not selected. No view shows a sandbox without a name."""
OTHER_POD = "unselected\n"
"""Its key in ANSWERS"""
_UNNAMED = "unnamed"
"""The container of cgroups whose names the agent has not sent"""
_SCANNED_NS = 30_000_000_000
"""The kernel drops events of containers that were not selected, but not those of the first moments, before the agent
knows the container. So events are looked through for so long after an unselected container was announced."""
_ELSEWHERE = np.uint64(1 << 63)
_MOST_ADDRESSES = 100_000


def selects_all(options: RunOptions) -> bool:
    """Return True if a run selects every container of the nodes, so that nothing has to be left out."""
    chosen = options.selection
    everyone = chosen.all_namespaces or (options.local and not chosen.namespace)
    narrowed = chosen.pods or chosen.containers or chosen.selector or chosen.workloads
    return bool(everyone and not narrowed and not of_processes(options))


def of_processes(options: RunOptions) -> bool:
    """Return True if only some processes are traced, in whatever container they are."""
    return all("pid" in run.parameters for run in options.gadgets if run.policies is None)


@dataclass
class _NodeNames:
    """The names of one node's containers: written, and held back."""

    filter: ContainerFilter = field(default_factory=lambda: ContainerFilter(FilterSpec()))
    shown: dict[str, ContainerNames] = field(default_factory=dict)
    hidden: dict[str, ContainerNames] = field(default_factory=dict)
    owner: dict[int, str] = field(default_factory=dict)
    """by cgroup, the id of its container, where that is not shown"""
    until_ns: int = 0
    """until when events are looked through"""
    has_other: bool = False


class SelectedFrames:
    """The frames of a run as its recording gets them."""

    def __init__(self, gadgets: Sequence[Gadget], wants: Wants, by_processes: bool) -> None:
        """`wants` is the label selector's answer. `by_processes`: a container counts once it has an event."""
        self._gadgets = [gadget.as_sent() for gadget in gadgets]
        self._wants = wants
        self._by_processes = by_processes
        self._nodes: dict[str, _NodeNames] = {}
        self._undecided: set[str] = set()
        """pods that are in the file, since nothing was known of them"""

    def frames(self, items: Iterable[Item], now_ns: int, answers: Mapping[str, bool | None]) -> list[RecordedFrame]:
        """Return the frames of one step, after the pipeline has taken it, with its `answers`."""
        late = [] if self._by_processes else list(self._selected_late(answers))
        return [*late, *self._step(items, now_ns)]

    def answers(self, answers: Mapping[str, bool | None]) -> dict[str, bool | None]:
        """Return the answers about pods that are in the file."""
        self._undecided |= {key for key, value in answers.items() if value is None}
        kept = {key: value for key, value in answers.items() if value is not False or key in self._undecided}
        return {**kept, OTHER_POD: False}

    def stats(self, node: str, stats: Stats) -> Stats:
        """Return statistics that name only selected containers."""
        state = self._nodes.get(node) or _NodeNames()
        known = {(item.namespace, item.pod, item.container) for item in state.shown.values()}

        def is_shown(loser: Loser) -> bool:
            return loser.host or (loser.namespace, loser.pod, loser.container) in known

        return stats.replace(
            gadgets=tuple(
                gadget.replace(lost_by=tuple(filter(is_shown, gadget.lost_by))) if gadget.lost_by else gadget
                for gadget in stats.gadgets
            )
        )

    def _step(self, items: Iterable[Item], now_ns: int) -> Iterator[RecordedFrame]:
        for item in items:
            node, content = item.node, item.content
            state = self._nodes.get(node)
            if state is None:
                state = self._nodes[node] = _NodeNames()
            match content:
                case Selected(filter):
                    state.filter = ContainerFilter(filter)
                    # The others are known as `unselected`, and no further names are needed.
                    yield RecordedFrame(node, *to_frame(Selected(filter.replace(exclude_pods=()))))
                    if not self._by_processes:
                        yield from self._reveal(
                            node, [id for id, found in state.hidden.items() if self._is(state, found)]
                        )
                case ContainerChanges():
                    yield from self._containers(node, state, content, now_ns)
                case Events(payload):
                    yield from self._events(node, state, payload, now_ns)
                case Stats():
                    yield RecordedFrame(node, *to_frame(self.stats(node, content)))
                case _:
                    yield RecordedFrame(node, *to_frame(content))

    def _is(self, state: _NodeNames, item: ContainerNames) -> bool:
        """Return True if a container is selected, or may be."""
        found = Container(
            "sandbox" if item.kind == "sandbox" else "container",
            item.namespace,
            item.pod,
            item.container,
            pod_uid=item.pod_uid,
        )
        return state.filter.wanted(found) and self._wants(item.pod_uid, found.pod_name) is not False

    def _containers(
        self, node: str, state: _NodeNames, changes: ContainerChanges, now_ns: int
    ) -> Iterator[RecordedFrame]:
        shown = []
        for item in changes.containers:
            if item.id in state.shown or (not self._by_processes and self._is(state, item)):
                shown.append(item)
            else:
                state.hidden[item.id] = item
        cgroups: dict[int, str | None] = {}
        for item in shown:
            state.shown[item.id] = item
            state.hidden.pop(item.id, None)
            for cgroup in [cgroup for cgroup, id in state.owner.items() if id == item.id]:
                cgroups[cgroup] = item.id
                del state.owner[cgroup]
        is_other = False
        for cgroup, id in changes.cgroups.items():
            if id is None or id in state.shown:
                cgroups[cgroup] = id
                state.owner.pop(cgroup, None)
                continue
            state.owner[cgroup] = id
            is_hidden = id in state.hidden
            cgroups[cgroup] = OTHER.id if is_hidden else _UNNAMED
            is_other |= is_hidden
        # Cgroups that came before the names of their container.
        for item in changes.containers if not is_other and state.hidden else ():
            if item.id in state.hidden:
                late = {cgroup: OTHER.id for cgroup, id in state.owner.items() if id == item.id}
                cgroups |= late
                is_other |= bool(late)
        if is_other:
            state.until_ns = now_ns + _SCANNED_NS
            if not state.has_other:
                state.has_other = True
                shown.append(OTHER)
        if changes.removed and now_ns > state.until_ns:
            for cgroup in changes.removed:
                if (id := state.owner.pop(cgroup, None)) is not None and id not in state.owner.values():
                    state.hidden.pop(id, None)
        kept = ContainerChanges(containers=tuple(shown), cgroups=cgroups, removed=changes.removed)
        yield RecordedFrame(node, *to_frame(kept))

    def _reveal(self, node: str, ids: Sequence[str]) -> Iterator[RecordedFrame]:
        """Yield the names of containers that were held back."""
        if not ids:
            return
        state, wanted = self._nodes[node], frozenset(ids)
        named = tuple(state.hidden.pop(id) for id in ids)
        state.shown |= {item.id: item for item in named}
        cgroups: dict[int, str | None] = {cgroup: id for cgroup, id in state.owner.items() if id in wanted}
        for cgroup in cgroups:
            del state.owner[cgroup]
        yield RecordedFrame(node, *to_frame(ContainerChanges(containers=named, cgroups=cgroups, removed=())))

    def _selected_late(self, answers: Mapping[str, bool | None]) -> Iterator[RecordedFrame]:
        """Yield the names of containers that the label selector selects by now, if a row asked for them."""
        asked = {key for key, value in answers.items() if value is not False}
        for node, state in self._nodes.items() if asked else ():
            found = [
                id
                for id, item in state.hidden.items()
                if f"{item.pod_uid}\n{item.namespace}/{item.pod}" in asked and self._is(state, item)
            ]
            yield from self._reveal(node, found)

    def _events(self, node: str, state: _NodeNames, payload: bytes, now_ns: int) -> Iterator[RecordedFrame]:
        frame = RecordedFrame(node, *to_frame(Events(payload)))
        try:
            head, data = split_events(payload)
            gadget = self._gadgets[head.gadget] if head.gadget < len(self._gadgets) else None
            is_due = self._by_processes or now_ns <= state.until_ns or (gadget and gadget.kind != "stream")
            if gadget is None or not state.owner or not is_due:
                yield frame
                return
            batch = decode(gadget, node, data)
            owners = _cgroups(batch)
        except (FrameError, KeyError):
            yield frame  # a replay says what is wrong with it
            return
        if self._by_processes:
            met = {state.owner.get(cgroup) for row in owners for cgroup in np.unique(row).tolist()}
            yield from self._reveal(node, [id for id in state.hidden if id in met])
            yield frame
            return
        hidden = np.array([cgroup for cgroup, id in state.owner.items() if id in state.hidden], np.uint64)
        of_others = np.all(np.stack([np.isin(row, hidden) | (row == 0) for row in owners]), axis=0)
        if of_others.any():
            frame = RecordedFrame(node, *to_frame(Events(head.encode() + blanked(data, batch.select(of_others)))))
        yield frame


def _cgroups(batch: Batch) -> list[npt.NDArray[np.uint64]]:
    """Return the cgroups of each row: its own, and the cgroups of other parties. Raises KeyError if the record has
    none."""
    fields = [place for place in batch.gadget.record.fields if place.type == "gadget_cgroup"]
    if not fields:
        raise KeyError("gadget_cgroup")
    return [batch.raw(place).astype(np.uint64) & ~_ELSEWHERE for place in fields]


class MetObjects:
    """The cluster's objects that a recording gets: of selected pods, and objects that rows met by address."""

    def __init__(self, is_selected: Callable[[Object], bool]) -> None:
        self._is_selected = is_selected
        self._objects: dict[str, dict[str, Object]] = {}
        """by plural name and uid, objects that are held back"""
        self._written: dict[str, set[str]] = {}
        self._namespaces: set[str] = set()
        """UIDs of pods that were written"""
        self._addresses: dict[bytes, set[tuple[str, str]]] = {}
        """by address, objects that are held back, as kind and uid"""
        self._met: set[bytes] = set()
        self._search = _AddressSearch()

    def changes(
        self, changes: Iterable[Mapping[str, Any]], payloads: Iterable[bytes], has_new_filter: bool
    ) -> list[Mapping[str, Any]]:
        """Return what the recording gets at one step, with these changes and these events."""
        put: dict[str, dict[str, Object]] = {}
        gone: dict[str, list[str]] = {}
        for change in changes:
            for kind, found in change["kinds"].items():
                for uid in found["gone"]:
                    self._objects.get(kind, {}).pop(uid, None)
                    if uid in self._written.get(kind, ()):
                        gone.setdefault(kind, []).append(uid)
                for item in found["put"]:
                    self._take(kind, item, put)
        if has_new_filter:
            for item in list(self._objects.get(PODS.plural, {}).values()):
                self._take(PODS.plural, item, put)
        for payload in payloads:
            self._meet(payload, put)
        self._follow_namespaces(put)
        kinds = put.keys() | gone.keys()
        if not kinds:
            return []
        return [
            {"kinds": {kind: {"put": list(put.get(kind, {}).values()), "gone": gone.get(kind, [])} for kind in kinds}}
        ]

    def _take(self, kind: str, item: Object, put: dict[str, dict[str, Object]]) -> None:
        uid = item["metadata"]["uid"]
        own = [address for text in _addresses_of(kind, item) if (address := _packed(text))]
        is_kept = (
            kind == NODES.plural
            or uid in self._written.get(kind, ())
            or (kind == PODS.plural and self._is_selected(item))
            or not self._met.isdisjoint(own)
        )
        if is_kept:
            self._write(kind, uid, item, put)
            return
        self._objects.setdefault(kind, {})[uid] = item
        for address in own:
            self._addresses.setdefault(address, set()).add((kind, uid))
            self._search.add(address)

    def _write(self, kind: str, uid: str, item: Object, put: dict[str, dict[str, Object]]) -> None:
        self._objects.get(kind, {}).pop(uid, None)
        self._written.setdefault(kind, set()).add(uid)
        put.setdefault(kind, {})[uid] = item
        if kind == PODS.plural:
            self._namespaces.add(item["metadata"]["namespace"])

    def _meet(self, payload: bytes, put: dict[str, dict[str, Object]]) -> None:
        """Writes the objects whose address is in these bytes."""
        for address in self._search.found(payload):
            if len(self._met) < _MOST_ADDRESSES:
                self._met.add(address)
            for kind, uid in self._addresses.pop(address, ()):
                if (item := self._objects.get(kind, {}).get(uid)) is not None:
                    self._write(kind, uid, item, put)
                    self._write_service(_service_of(kind, item), put)

    def _write_service(self, service: tuple[str, str] | None, put: dict[str, dict[str, Object]]) -> None:
        """Writes a service and its slices, after a row met one of them."""
        for kind in (SERVICES.plural, ENDPOINT_SLICES.plural) if service else ():
            for uid, item in list(self._objects.get(kind, {}).items()):
                if _service_of(kind, item) == service:
                    self._write(kind, uid, item, put)

    def _follow_namespaces(self, put: dict[str, dict[str, Object]]) -> None:
        """Writes the namespaces of written pods, and the services in them."""
        for kind, items in self._objects.items():
            if kind == PODS.plural:
                continue
            for uid, item in list(items.items()):
                metadata = item["metadata"]
                if metadata.get("namespace", metadata["name"]) in self._namespaces:
                    self._write(kind, uid, item, put)


def _addresses_of(kind: str, item: Object) -> Iterator[str]:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    if kind == PODS.plural and not spec.get("hostNetwork"):
        yield from (each["ip"] for each in status.get("podIPs") or () if each.get("ip"))
        yield status.get("podIP") or ""
    elif kind == SERVICES.plural:
        yield from (*(spec.get("clusterIPs") or ()), spec.get("clusterIP") or "", *(spec.get("externalIPs") or ()))
        yield from (each.get("ip") or "" for each in (status.get("loadBalancer") or {}).get("ingress") or ())
    elif kind == ENDPOINT_SLICES.plural:
        yield from (address for each in item.get("endpoints") or () for address in each.get("addresses") or ())


def _packed(text: str) -> bytes:
    """Return an address as it is in records and packets; empty: it is none."""
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        return b""


def _service_of(kind: str, item: Object) -> tuple[str, str] | None:
    """Return the namespace and name of the service that an object is, or belongs to."""
    metadata = item["metadata"]
    name = metadata["name"] if kind == SERVICES.plural else (metadata.get("labels") or {}).get(SLICE_OF)
    return (metadata["namespace"], name) if name and kind in (SERVICES.plural, ENDPOINT_SLICES.plural) else None


class _AddressSearch:
    """Finds addresses in events, wherever they are in a record or packet. A cluster's addresses begin with few pairs of
    bytes, so nearly all places are sorted out by one look into a table."""

    def __init__(self) -> None:
        self._heads = np.zeros(1 << 16, np.bool_)
        self._known: dict[int, set[bytes]] = {}
        """addresses by their first four bytes"""

    def add(self, address: bytes) -> None:
        self._heads[int.from_bytes(address[:2], "little")] = True
        self._known.setdefault(int.from_bytes(address[:4], "little"), set()).add(address)

    def found(self, payload: bytes) -> set[bytes]:
        """Return the addresses in these bytes; each is returned once and then forgotten."""
        begins: set[int] = set()
        for offset in (0, 1) if self._known and len(payload) > 4 else ():
            pairs = np.frombuffer(payload, "<u2", (len(payload) - offset) // 2, offset)
            places = np.flatnonzero(self._heads[pairs[:-1]])
            words = pairs[places].astype(np.uint32) | (pairs[places + 1].astype(np.uint32) << 16)
            begins.update(np.unique(words).tolist())
        found = {
            address
            for begin in begins & self._known.keys()
            for address in self._known[begin]
            if len(address) == 4 or address in payload
        }
        for address in found:
            self._known[int.from_bytes(address[:4], "little")].discard(address)
        return found
