"""A run whose rows are not shown: an advisor turns them into uses, beside a watch of the cluster's objects. A replay
of a recording does the same with what is in it.

The first Ctrl-C ends the watching, but what was seen until then is still wanted, so it is not a failure.
"""

import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TextIO

from kubectl_gadget.advise.uses import Instead, SeenUses, UsesOf, WatchPeriod
from kubectl_gadget.kube import kubeconfig
from kubectl_gadget.kube.inventory import WITH_ADDRESSES, SeenInventory
from kubectl_gadget.kube.resources import NAMESPACES, PODS, Resource
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.output.sink import TakingSink
from kubectl_gadget.recording.recorded_run import RecordedRun
from kubectl_gadget.recording.replay_run import open_recordings, replayed
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import Coverage, Doubt, doubts
from kubectl_gadget.run.live_run import run_to_end
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.policy_events import rfc3339

_MISSING = "the names of some peers are unknown"
INTERVAL = 5.0
"""Seconds between two readings of sums. Each row costs the client the same, no matter how many events it sums up."""


def _records(members: MemberRows, batch: Batch) -> list[dict[str, object]]:
    return [{**record, "architecture": batch.architecture} for record in members.records_of(batch)]


@dataclass(frozen=True)
class AdviceOrder:
    """The things to watch for an advisor."""

    recording: SeenUses
    uses_of: UsesOf
    whole_cluster: bool = False
    """True if it refers to other pods than those watched, and to services and nodes"""
    instead: Instead | None = None
    """for recordings without its gadgets"""

    def sink(self, several: bool) -> TakingSink:
        """Passes the uses that the advisor derives from rows, which also have their node's architecture, to the
        recording. `several`: the rows are of several gadgets."""
        members = MemberRows(event=several)

        def take(rows: Rows) -> None:
            for record in rows.collect(lambda part: _records(members, part)):
                self.recording.add(self.uses_of(record))

        return TakingSink(take)


def observe(options: RunOptions, order: AdviceOrder, stderr: TextIO) -> int:
    """Watches until the time is over or Ctrl-C, and adds what was seen to the recording. Returns the run's exit code, 0
    for Ctrl-C. Raises GadgetError."""
    progress = Progress(stderr, options.quiet, options.verbose)
    recording, seen = order.recording, _seen(options, order.whole_cluster)
    sink = order.sink(len(options.gadgets) > 1)
    followers = () if options.local else (seen.follower(_MISSING),)
    options = replace(options, make_sink=lambda *_: sink, followers=followers)
    try:
        run, code, _ = run_to_end(options, progress, lambda run: bool(recording.uses))
    finally:
        recording.inventory.add(seen.inventory())
    _note_watched(recording, run.watched)
    if options.local:
        _add_local(recording)
    recording.runs.append(_period(run.coverage.since_ns, run.seconds, run.coverage, run.lost))
    return code


def add_recordings(options: RunOptions, order: AdviceOrder, stderr: TextIO) -> int:
    """Adds what the recordings of `options.replay` hold, as if it had been watched. Returns the exit code. Raises
    GadgetError."""
    options, order = _recorded_instead(options, order)
    recording, seen = order.recording, SeenInventory(_kinds(order.whole_cluster))
    sink = order.sink(len(options.gadgets) > 1)
    shown = replace(options, make_sink=lambda *_: sink, followers=(seen.follower(_MISSING),))
    with replayed(shown, io.StringIO(), stderr) as run:
        _note_watched(recording, run.pipeline.watched())
        if any(reader.meta.get("local", True) for reader in run.readers):
            _add_local(recording)
        lost = run.lost()
        covered = run.covered()
        for end in run.ends:
            # What was lost is known for all of them together.
            recording.runs.append(_period(end.began_ns, end.seconds, end.coverage or covered, lost))
            lost = 0
    recording.inventory.add(seen.inventory())
    return run.code


def _recorded_instead(options: RunOptions, order: AdviceOrder) -> tuple[RunOptions, AdviceOrder]:
    """Replace the gadgets by those that the recordings have in their place, if they have only these."""
    assert options.replay is not None
    if order.instead is None:
        return options, order
    with ExitStack() as stack:
        reader = open_recordings(stack, options.replay.files)[0]
        known = [item.gadget for item in RecordedRun.from_meta(reader.meta, str(reader.path)).gadgets]
    found = [gadget for gadget in known if gadget.name in order.instead.gadgets]
    if not found or {run.gadget.name for run in options.gadgets} & {gadget.name for gadget in known}:
        return options, order
    names = " and ".join(" ".join(gadget.command) for gadget in found)
    asked = ", ".join(" ".join(run.gadget.command) for run in options.gadgets)
    without = sorted({*order.instead.gadgets} - {gadget.name for gadget in found})
    lacks = " and ".join([order.instead.lacks, *(name.replace("_", " ") for name in without)])
    order.recording.lacking.append(f"the recording has {names} instead of {asked}, and so lacks {lacks}")
    options = replace(options, gadgets=tuple(GadgetRun(gadget) for gadget in found))
    return options, replace(order, uses_of=order.instead.uses_of(order.recording))


def _note_watched(recording: SeenUses, containers: Iterable[Container]) -> None:
    for item in containers:
        recording.watch((item.namespace, item.pod, item.container), item.earlier)


def _period(began_ns: int, seconds: float, covered: Coverage, lost: int) -> WatchPeriod:
    return WatchPeriod(
        began=f"{rfc3339(began_ns)[:19]}Z",
        seconds=round(seconds, 1),
        nodes=tuple(node.name for node in covered.nodes),
        lost=lost,
        doubts=tuple(reason.text for reason in doubts(covered, began_ns) if reason.doubt is not Doubt.LOST),
    )


def _seen(options: RunOptions, whole_cluster: bool) -> SeenInventory:
    chosen, namespace = options.selection, None
    if not (whole_cluster or options.local or chosen.all_namespaces):
        namespace = chosen.namespace or kubeconfig.load(options.kube).namespace
    return SeenInventory(_kinds(whole_cluster), namespace)


def _kinds(whole_cluster: bool) -> Sequence[Resource]:
    return (*WITH_ADDRESSES, NAMESPACES) if whole_cluster else (PODS,)


def _add_local(recording: SeenUses) -> None:
    """Adds pods from the names in rows, when there is no cluster."""
    for namespace, pod, _ in recording.watched:
        if pod:
            recording.inventory.add_local(namespace, pod)
    for use in recording.uses:
        if use["pod"]:
            recording.inventory.add_local(use["namespace"], use["pod"], use.get("local"))
