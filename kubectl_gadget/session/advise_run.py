"""A run whose rows are not shown: an advisor turns them into uses, beside a watch of the cluster's objects. A replay
of a recording does the same with what is in it.

The trap: the first Ctrl-C ends the watching, but what was seen until then is still wanted, so it is not a failure.
"""

import asyncio
import io
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TextIO

from kubectl_gadget.advise.recipe import UsesOf
from kubectl_gadget.advise.uses import Recording, Use, WatchPeriod
from kubectl_gadget.cluster.api import kubeconfig
from kubectl_gadget.cluster.api.resources import ENDPOINT_SLICES, NAMESPACES, NODES, PODS, SERVICES, Object, Resource
from kubectl_gadget.cluster.informer import Follower, Objects
from kubectl_gadget.cluster.seen_objects import Keep, SeenObjects
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.events.container_lookup import Container
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.kube.inventory import Inventory, Node, Pod, Service
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.session import summary
from kubectl_gadget.session.live_run import LiveRun, begin
from kubectl_gadget.session.nodes.node_state import NodeState
from kubectl_gadget.session.pipeline import Pipeline
from kubectl_gadget.session.progress import Progress
from kubectl_gadget.session.recordings.recorded_frames import RecordedFrames
from kubectl_gadget.session.recordings.recorded_objects import KINDS
from kubectl_gadget.session.recordings.replay_run import replay, seconds_of
from kubectl_gadget.session.run_options import RunOptions
from kubectl_gadget.session.silent_sink import SilentSink
from kubectl_gadget.views.row_texts import MemberRows

INTERVAL = 5.0
"""Seconds between two readings of sums. Each row costs the client the same, no matter how many events it sums up."""


class UsesSink(SilentSink):
    """Passes the uses that an advisor derives from rows to a recording. Rows also carry their node's architecture."""

    def __init__(self, recording: Recording, uses_of: UsesOf, several: bool) -> None:
        self._recording = recording
        self._uses_of = uses_of
        self._members = MemberRows(event=several)

    def write(self, rows: Rows) -> None:
        """Accepts all rows; their order does not matter here."""
        for part in rows.parts:
            for record in self._members.records(Rows([part])):
                self._recording.add(self._uses_of({**record, "architecture": part.architecture}))


@dataclass(frozen=True)
class Order:
    """What to watch for an advisor."""

    recording: Recording
    uses_of: UsesOf
    whole_cluster: bool = False
    """whether it refers to other pods than those watched, and to services and nodes"""


def observe(options: RunOptions, order: Order, stderr: TextIO) -> int:
    """Watches until the time is over or Ctrl-C, and adds what was seen to the recording. Returns the run's exit code, 0
    for Ctrl-C. Raises GadgetError."""
    progress = Progress(stderr, options.quiet, options.verbose)
    seen = None if options.local else _seen_objects(options, order.whole_cluster)
    if seen is not None:
        options = replace(options, subscribers=(seen.subscribe,))
    sink = UsesSink(order.recording, order.uses_of, len(options.gadgets) > 1)
    options = replace(options, make_sink=lambda *_: sink)
    try:
        code = asyncio.run(_observe(options, order, progress))
    finally:
        if seen is not None:
            _add(order.recording.inventory, {kind: seen.found(kind) for kind in seen.kinds}, order.whole_cluster)
    return 0 if code == 128 + signal.SIGINT else code


def add_recordings(options: RunOptions, order: Order, stderr: TextIO) -> int:
    """Adds what the recordings of `options.replay` hold, as if it had been watched. Returns the exit code. Raises
    GadgetError."""
    kept, recording = _kept(order.whole_cluster), order.recording
    found: dict[Resource, dict[str, Any]] = {kind: {} for kind in kept}

    def take(objects: Objects) -> None:
        for kind, keep in kept.items():
            found[kind].update({item["metadata"]["uid"]: keep(item) for item in objects[kind]})

    def ended(frames: RecordedFrames, readers: Sequence[RecordingReader], pipeline: Pipeline) -> None:
        _note_watched(recording, pipeline.watched())
        if any(reader.meta.get("local", True) for reader in readers):
            _add_local(recording)
        lost = summary.missing(frames.states, pipeline.unattributed)
        for reader in readers:
            began = datetime.fromtimestamp(next((item.first_ns for item in reader.segments()), 0) / 1e9, UTC)
            # What was lost is known for all of them together.
            recording.runs.append(_period(began, seconds_of(reader), frames.states, lost))
            lost = 0

    sink = UsesSink(recording, order.uses_of, len(options.gadgets) > 1)
    follower = Follower(KINDS, take, 0.0)
    shown = replace(options, make_sink=lambda *_: sink, followers=(follower,))
    code = replay(shown, io.StringIO(), stderr, ended)
    _add(recording.inventory, {kind: list(items.values()) for kind, items in found.items()}, order.whole_cluster)
    return code


async def run_to_end(options: RunOptions, progress: Progress) -> tuple[LiveRun, int, GadgetError | None]:
    """Runs until the time is over or a signal. Returns the run, its exit code, and what ended it early. Raises
    GadgetError when it could not begin."""
    run = await begin(options, progress)
    try:
        return run, await run.main(), None
    except GadgetError as error:
        return run, error.exit_code, error


async def _observe(options: RunOptions, order: Order, progress: Progress) -> int:
    recording = order.recording
    began = datetime.now(UTC)
    run, code, error = await run_to_end(options, progress)
    if error is not None:
        if not recording.uses:
            raise error
        # What was seen until then may be hours of work.
        progress.warn(f"watching ended early: {error}")
        code = error.exit_code
    _note_watched(recording, run.watched)
    if options.local:
        _add_local(recording)
    recording.runs.append(_period(began, run.seconds, run.states, run.lost))
    return code


def _note_watched(recording: Recording, containers: Iterable[Container]) -> None:
    for item in containers:
        recording.watch((item.namespace, item.pod, item.container), item.earlier)


def _period(began: datetime, seconds: float, states: Mapping[str, NodeState], lost: int) -> WatchPeriod:
    return WatchPeriod(
        began=began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=round(seconds, 1),
        nodes=tuple(states),
        lost=lost,
        failed=tuple(name for name, state in states.items() if state.error is not None or state.gaps),
    )


def _seen_objects(options: RunOptions, whole_cluster: bool) -> SeenObjects:
    chosen = options.selection
    namespace = None if chosen.all_namespaces else chosen.namespace or kubeconfig.load(options.kube).namespace
    return SeenObjects(_kept(whole_cluster), None if whole_cluster else namespace, "some peers are not known by name")


def _kept(whole_cluster: bool) -> dict[Resource, Keep]:
    keep: dict[Resource, Keep] = {PODS: Pod.from_object}
    if whole_cluster:
        keep |= {SERVICES: _as_it_is, ENDPOINT_SLICES: _as_it_is, NODES: Node.from_object, NAMESPACES: _labels}
    return keep


def _labels(namespace: Object) -> tuple[str, dict[str, str]]:
    return namespace["metadata"]["name"], dict(namespace["metadata"].get("labels") or {})


def _as_it_is(found: Object) -> Object:
    return found


def _add(to: Inventory, found: Mapping[Resource, list[Any]], whole_cluster: bool) -> None:
    to.pods += found[PODS]
    if whole_cluster:
        to.services += [Service.from_object(item, found[ENDPOINT_SLICES]) for item in found[SERVICES]]
        to.nodes += found[NODES]
        to.namespaces.update(found[NAMESPACES])
    to.forget_doubles()


def _add_local(recording: Recording) -> None:
    """Adds pods from the names in rows, when there is no cluster."""
    for namespace, pod, _ in recording.watched:
        if pod:
            recording.inventory.add_local(namespace, pod)
    for namespace, pod, address in _local_pods(recording.uses):
        recording.inventory.add_local(namespace, pod, address)


def _local_pods(uses: Iterable[Use]) -> Iterator[tuple[str, str, str | None]]:
    for use in uses:
        if use["pod"]:
            yield use["namespace"], use["pod"], use.get("local")
