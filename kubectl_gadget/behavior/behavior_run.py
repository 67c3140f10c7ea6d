"""Facts of a live run, and facts of recordings.

The trap: whatever is missing in a run makes every container of it incomplete, because a lost event does not say whose
it was. That is kept with the facts, so that no comparison takes what was missed for what did not happen.
"""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TextIO

from kubectl_gadget.advise.advise_run import run_to_end
from kubectl_gadget.behavior.behavior_gadgets import SYSCALLS, behavior_runs
from kubectl_gadget.behavior.facts import Behavior, WatchedRun
from kubectl_gadget.behavior.from_rows.collection import Collection, RunEnd, Watched
from kubectl_gadget.behavior.from_rows.generalization import Generalizer
from kubectl_gadget.behavior.from_rows.programs import PodContainer
from kubectl_gadget.behavior.from_rows.row_facts import COLUMNS
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.kube.label_selectors import LabelSelector
from kubectl_gadget.kube.seen_inventory import SeenInventory
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.output.sink import Sink, TakingSink
from kubectl_gadget.recording import recording_places
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorded_run import RecordedRun
from kubectl_gadget.recording.replay_run import open_recordings, replayed
from kubectl_gadget.rows.container_lookup import Container
from kubectl_gadget.run.coverage import CAUSES, Coverage, Doubt, doubts
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import Replay, RunOptions

MISSING = "some workloads and other ends of connections are not known by name"
"""what is missing where the cluster's objects may not be listed"""


def containers_of(watched: Sequence[Container]) -> list[Watched]:
    """A run's containers, for its collection."""
    return [Watched((item.namespace, item.pod, item.container), item.image, item.earlier) for item in watched]


@dataclass
class _Collecting:
    """One run that is being collected."""

    generalizer: Generalizer
    seen: SeenInventory = field(default_factory=SeenInventory)
    collection: Collection | None = None

    def applied(self, options: RunOptions) -> RunOptions:
        def make_sink(gadgets: Sequence[Gadget], *_: object) -> Sink:
            collection = self.collection = Collection(self.generalizer, [gadget.event for gadget in gadgets])
            members = MemberRows(COLUMNS, event=True)
            return TakingSink(lambda rows: collection.add(members.records(rows)))

        return replace(
            options, make_sink=make_sink, followers=(self.seen.follower(MISSING),), doing="collecting behavior"
        )

    def behaviors(
        self,
        watched: Sequence[Container],
        run: WatchedRun,
        incomplete: Sequence[str],
        missing: Sequence[str],
        sides: Sequence[LabelSelector | None] = (None,),
    ) -> list[Behavior]:
        """One for each selector; None selects all pods."""
        assert self.collection is not None
        inventory = self.seen.inventory()
        end = RunEnd(inventory, containers_of(watched), run, tuple(incomplete), tuple(missing))

        def is_selected(selector: LabelSelector | None, place: PodContainer) -> bool:
            pod = inventory.pod(*place[:2])
            return selector is None or (pod is not None and selector.accepts(pod.labels))

        return [self.collection.behavior(end, partial(is_selected, side)) for side in sides]


def collect_live(
    options: RunOptions, generalizer: Generalizer, stderr: TextIO, sides: Sequence[LabelSelector | None] = (None,)
) -> tuple[list[Behavior], int]:
    """Watches until the time is over or Ctrl-C. Returns the behavior of the pods of each selector, and the run's exit
    code: 0 for Ctrl-C. Raises GadgetError."""
    collecting = _Collecting(generalizer)
    progress = Progress(stderr, options.quiet, options.verbose)
    began = datetime.now(UTC)
    run, code, early = run_to_end(collecting.applied(options), progress, lambda run: bool(run.watched))
    lost = run.lost - (run.unnamed if _is_restricted(options) else 0)
    covered = run.coverage
    incomplete = [*_incomplete(covered, lost), *filter(None, (early,))]
    watched_run = WatchedRun(_time(began.timestamp()), round(covered.seconds, 1), lost, max(1, len(covered.traced)))
    return collecting.behaviors(run.watched, watched_run, incomplete, _missing(covered), sides), code


def collect_recordings(
    files: Sequence[recording_places.PathOrUrl], options: RunOptions, generalizer: Generalizer, stderr: TextIO
) -> list[Behavior]:
    """The behavior of each recorded run. `options` has the selection. Raises GadgetError."""
    with ExitStack() as stack:
        runs = [(reader.paths, _has_syscalls(reader)) for reader in open_recordings(stack, files)]
    return [
        _of_recording(paths, replace(options, gadgets=behavior_runs(has)), generalizer, stderr) for paths, has in runs
    ]


def _has_syscalls(reader: RecordingReader) -> bool:
    recorded = RecordedRun.from_meta(reader.meta, str(reader.path)).gadgets
    return any(item.gadget.name in SYSCALLS for item in recorded)


def _of_recording(
    files: Sequence[recording_places.PathOrUrl], options: RunOptions, generalizer: Generalizer, stderr: TextIO
) -> Behavior:
    collecting = _Collecting(generalizer)
    asked = replace(options, replay=Replay(tuple(files)), quiet=True)
    with replayed(collecting.applied(asked), io.StringIO(), stderr) as run:
        covered, lost = run.covered(), run.lost(with_unnamed=not _is_restricted(options))
        meta = RecordedRun.from_meta(run.readers[0].meta, str(run.readers[0].path))
        seconds = sum(float((reader.end or {}).get("seconds") or 0) for reader in run.readers)
        watched_run = WatchedRun(_time(meta.began_ns / 1e9), round(seconds, 1), lost, max(1, len(covered.traced)))
        incomplete = [*_incomplete(covered, lost), *run.damages()]
        found = collecting.behaviors(run.pipeline.watched(), watched_run, incomplete, _missing(covered))
    if run.code > 128:
        raise KeyboardInterrupt
    return found[0]


def _is_restricted(options: RunOptions) -> bool:
    """Whether only pods with a name are watched. Events of cgroups without one, which belong to no pod of any runtime
    that is known, are then not among those that are missing."""
    chosen = options.selection
    named = bool(chosen.namespace or chosen.pods or chosen.workloads or chosen.selector)
    return named or not (chosen.all_namespaces or options.local or options.replay)


def _incomplete(coverage: Coverage, lost: int) -> Iterator[str]:
    """Yield why every container of a run is incomplete. The texts have no numbers that differ from run to run.

    A node that joined later is no reason: its containers are known to have run before they were watched."""
    if lost:
        causes: Counter[str] = sum((Counter(node.lost) for node in coverage.nodes), Counter())
        named = [CAUSES.get(cause, cause) for cause in sorted(causes) if causes[cause] and cause != "cut_strings"]
        yield f"events were lost ({', '.join(named) or 'of unknown containers'})"
    found = {reason.doubt for reason in doubts(coverage)}
    yield from (str(doubt) for doubt in (Doubt.GAP, Doubt.LATE, Doubt.ENDED) if doubt in found)


def _missing(coverage: Coverage) -> list[str]:
    """Return what was not watched at all, so that whole workloads may be absent."""
    missing = (Doubt.NOT_TRACED, Doubt.ABSENT)
    return [reason.text for reason in doubts(coverage) if reason.doubt in missing]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
