"""A run whose rows are not shown: an advisor turns them into facts, beside a watch of the cluster's objects.

The trap: the first Ctrl-C ends the watching, but what was seen until then is still wanted, so it is not a failure.
"""

import asyncio
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TextIO

from kubectl_gadget.advise.fact_recording import Fact, Recording, WatchPeriod
from kubectl_gadget.advise.recipe import FactsOf
from kubectl_gadget.cluster.api import kubeconfig
from kubectl_gadget.cluster.api.resources import ENDPOINT_SLICES, NAMESPACES, NODES, PODS, SERVICES, Object, Resource
from kubectl_gadget.cluster.seen_objects import Keep, SeenObjects
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.kube.inventory import Inventory, Node, Pod, Service
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.session.nodes.participants import choose_nodes
from kubectl_gadget.session.preparation import prepare
from kubectl_gadget.session.progress import Progress
from kubectl_gadget.session.run import LiveRun
from kubectl_gadget.session.run_options import RunOptions
from kubectl_gadget.views.row_texts import MemberRows

INTERVAL = 5.0
"""Seconds between two readings of sums. Each row costs the client the same, no matter how many events it sums up."""


class FactSink(Sink):
    """Passes the facts that an advisor derives from rows to a recording. Rows also carry their node's architecture."""

    def __init__(self, recording: Recording, facts_of: FactsOf, several: bool) -> None:
        self._recording = recording
        self._facts_of = facts_of
        self._members = MemberRows(event=several)

    def write(self, rows: Rows) -> None:
        """Accepts all rows; their order does not matter here."""
        for part in rows.parts:
            for record in self._members.records(Rows([part])):
                self._recording.add(self._facts_of({**record, "architecture": part.architecture}))

    def write_chunk(self, rows: Rows) -> None:
        self.write(rows)

    def flush(self) -> None:
        """Does nothing: no row is buffered."""

    def close(self) -> None:
        """Does nothing: no row is buffered."""


@dataclass(frozen=True)
class Order:
    """What to watch for an advisor."""

    recording: Recording
    facts_of: FactsOf
    whole_cluster: bool = False
    """whether it refers to other pods than those watched, and to services and nodes"""


def observe(options: RunOptions, order: Order, stderr: TextIO) -> int:
    """Watches until the time is over or Ctrl-C, and adds what was seen to the recording. Returns the run's exit code, 0
    for Ctrl-C. Raises GadgetError."""
    progress = Progress(stderr, options.quiet, options.verbose)
    seen = None if options.local else _seen_objects(options, order.whole_cluster)
    if seen is not None:
        options = replace(options, subscribers=(seen.subscribe,))
    sink = FactSink(order.recording, order.facts_of, len(options.gadgets) > 1)
    options = replace(options, make_sink=lambda *_: sink)
    try:
        code = asyncio.run(_observe(options, order, progress))
    finally:
        if seen is not None:
            _add(order.recording.inventory, seen, order.whole_cluster)
    return 0 if code == 128 + signal.SIGINT else code


async def run_to_end(options: RunOptions, progress: Progress) -> tuple[LiveRun, int, GadgetError | None]:
    """Runs until the time is over or a signal. Returns the run, its exit code, and what ended it early. Raises
    GadgetError when it could not begin."""
    nodes = choose_nodes(options, progress)
    await nodes.begin()
    try:
        run = LiveRun(options, nodes, prepare(options, sys.stdout), progress)
    except BaseException:
        await nodes.close()
        raise
    try:
        return run, await run.main(), None
    except GadgetError as error:
        return run, error.exit_code, error


async def _observe(options: RunOptions, order: Order, progress: Progress) -> int:
    recording = order.recording
    began = datetime.now(UTC)
    run, code, error = await run_to_end(options, progress)
    if error is not None:
        if not recording.facts:
            raise error
        # What was seen until then may be hours of work.
        progress.warn(f"watching ended early: {error}")
        code = error.exit_code
    for item in run.watched:
        recording.watch((item.namespace, item.pod, item.container), item.earlier)
    if options.local:
        _add_local(recording)
    recording.runs.append(
        WatchPeriod(
            began=began.strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=round(run.seconds, 1),
            nodes=tuple(run.states),
            lost=run.lost,
            failed=tuple(name for name, state in run.states.items() if state.error is not None or state.gaps),
        )
    )
    return code


def _seen_objects(options: RunOptions, whole_cluster: bool) -> SeenObjects:
    chosen = options.selection
    namespace = None if chosen.all_namespaces else chosen.namespace or kubeconfig.load(options.kube).namespace
    keep: dict[Resource, Keep] = {PODS: Pod.from_object}
    if whole_cluster:
        keep |= {SERVICES: _as_it_is, ENDPOINT_SLICES: _as_it_is, NODES: Node.from_object, NAMESPACES: _labels}
    return SeenObjects(keep, None if whole_cluster else namespace, "some peers are not known by name")


def _labels(namespace: Object) -> tuple[str, dict[str, str]]:
    return namespace["metadata"]["name"], dict(namespace["metadata"].get("labels") or {})


def _as_it_is(found: Object) -> Object:
    return found


def _add(to: Inventory, inventory: SeenObjects, whole_cluster: bool) -> None:
    to.pods += inventory.found(PODS)
    if whole_cluster:
        slices = inventory.found(ENDPOINT_SLICES)
        to.services += [Service.from_object(found, slices) for found in inventory.found(SERVICES)]
        to.nodes += inventory.found(NODES)
        to.namespaces.update(inventory.found(NAMESPACES))
    to.forget_doubles()


def _add_local(recording: Recording) -> None:
    """Adds pods from the names in rows, when there is no cluster."""
    for namespace, pod, _ in recording.watched:
        if pod:
            recording.inventory.add_local(namespace, pod)
    for namespace, pod, address in _local_pods(recording.facts):
        recording.inventory.add_local(namespace, pod, address)


def _local_pods(facts: Iterable[Fact]) -> Iterator[tuple[str, str, str | None]]:
    for fact in facts:
        if fact["pod"]:
            yield fact["namespace"], fact["pod"], fact.get("local")
