"""Facts of a live run, and facts of recordings; and the gadgets that give them.

Whatever is missing in a run makes every container of it incomplete, because a lost event does not say whose it was.
This is kept with the facts, so that no comparison takes a missed event for one that did not happen.
"""

import io
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TextIO

from kubectl_gadget import gadgets
from kubectl_gadget.behavior.collection import Collection, RunEnd, Watched
from kubectl_gadget.behavior.facts import Behavior, WatchedRun
from kubectl_gadget.behavior.generalization import Generalizer
from kubectl_gadget.behavior.programs import PodContainer
from kubectl_gadget.behavior.row_facts import COLUMNS, Began
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.kube.inventory import SeenInventory
from kubectl_gadget.kube.selectors import LabelSelector
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.output.sink import Sink, TakingSink
from kubectl_gadget.recording import places
from kubectl_gadget.recording.recorded_run import RecordedEnd, RecordedRun, recorded_end
from kubectl_gadget.recording.replay_run import open_recordings, replayed
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import CAUSES, UNATTRIBUTED, Coverage, Doubt, doubts
from kubectl_gadget.run.live_run import run_to_end
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, Replay, RunOptions
from kubectl_gadget.run.services import Surroundings
from kubectl_gadget.wire.policy_events import rfc3339

# The gadgets of `behavior`, `record --for behavior` and `ci`. A fact names its program by the exec before it, so
# processes are part of every set; they come last, since what closes at the end of a process has to be reported before
# that end.

_LAST = "trace_process"
PARAMETERS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "trace_tcp": {},
        "trace_udp": {"interval": 0},
        "trace_dns": {},
        "trace_bind": {},
        "trace_open": {"resolve": True, "unique": True, "hash": True},
        "trace_file": {},
        "trace_capabilities": {"unique": True},
        "trace_privilege": {},
        _LAST: {},
    }
)
SYSCALLS: Mapping[str, Mapping[str, object]] = MappingProxyType({"trace_syscalls": {"unique": True}})
"""System calls, which cost all calls of the selected containers something; so only those who ask for them have them"""
_OF_CI = ("trace_open", "trace_tcp", "trace_dns", "trace_bind")
"""what a build or a release does, at a cost that does not slow it down"""


def behavior_runs(syscalls: bool = False) -> tuple[GadgetRun, ...]:
    """The gadgets, in the order in which agents are asked to run them."""
    chosen = {**(SYSCALLS if syscalls else {}), **PARAMETERS}
    return tuple(GadgetRun(gadgets.load_gadget(name), dict(values)) for name, values in chosen.items())


def ci_gadgets(further: Iterable[str] = (), facts: bool = False) -> tuple[GadgetRun, ...]:
    """The gadgets that always run in CI, and further ones by name. `facts`: also those that only facts need."""
    names = dict.fromkeys((*(PARAMETERS if facts else _OF_CI), *further))
    ordered = [name for name in names if name != _LAST]
    parameters = {**PARAMETERS, **SYSCALLS} if facts else {}
    return tuple(GadgetRun(gadgets.load_gadget(name), dict(parameters.get(name, {}))) for name in (*ordered, _LAST))


# Whose rows become facts

OF_COMMAND = frozenset({"pid", "descendants"})
"""Parameters with which a CI run traces only what COMMAND starts"""
MISSING = "the names of some workloads and peers are unknown"
"""what is missing where the cluster's objects may not be listed"""


COMMAND = "command"
"""The name of the container in facts of a CI job's own processes, which have none"""
HOST = "(host)"
"""The same for processes of the machine; no real container can have this name"""


@dataclass(frozen=True)
class Subject:
    """The rows that become facts, besides the rows of named containers."""

    of_command: bool = False
    """the rows are of a process and its descendants"""
    with_host: bool = False
    """there are also rows of processes that are in no container"""

    @property
    def needs_names(self) -> bool:
        """Return True if only rows with the name of a container become facts."""
        return not (self.of_command or self.with_host)

    def name(self, records: Sequence[dict[str, Any]]) -> None:
        """Put rows into the container that their facts belong to."""
        if self.of_command:
            for record in records:
                record.update(namespace="", pod="", container=record["container"] or COMMAND)
        elif self.with_host:
            for record in records:
                record["container"] = record["container"] or HOST

    def containers(self, watched: Sequence[Container]) -> list[Watched]:
        """Return the containers of a run, for its collection."""
        if self.of_command:
            return [Watched(("", "", COMMAND), "", False, of_run=True)]
        found = [Watched((item.namespace, item.pod, item.container), item.image, item.earlier) for item in watched]
        return [*found, Watched(("", "", HOST), "", True)] if self.with_host else found


class Beginning:
    """The beginning of a live run: each selected node is attached, or has failed."""

    def __init__(self) -> None:
        self.ns = 0
        """wall time; 0: not yet"""

    def text(self) -> str | None:
        """Return it as in rows; None: not yet."""
        return rfc3339(self.ns) if self.ns else None

    @asynccontextmanager
    async def noted(self, surroundings: Surroundings) -> AsyncIterator[None]:
        """Note it: a service of the run."""

        async def note() -> None:
            await surroundings.attached.wait()
            self.ns = surroundings.complete_ns()

        surroundings.tasks.start(note(), "beginning of the run")
        yield


def subject_of(runs: Iterable[RecordedRun]) -> Subject:
    """Return whose rows recordings of one job have."""
    every = list(runs)
    of_command = all(item.parameters.keys() >= OF_COMMAND for run in every for item in run.gadgets if item.is_traced)
    return Subject(of_command, any(run.host for run in every) and not of_command)


@dataclass
class _Collecting:
    """One run that is being collected."""

    generalizer: Generalizer
    subject: Subject
    began: Began
    seen: SeenInventory = field(default_factory=SeenInventory)
    collection: Collection | None = None

    def applied(self, options: RunOptions) -> RunOptions:
        def make_sink(gadgets: Sequence[Gadget], *_: object) -> Sink:
            events = [gadget.event for gadget in gadgets]
            collection = self.collection = Collection(self.generalizer, events, self.began)
            members = MemberRows(COLUMNS, event=True)

            def take(rows: Rows) -> None:
                records = members.records(rows)
                self.subject.name(records)
                collection.add(records)

            return TakingSink(take)

        return replace(
            options, make_sink=make_sink, followers=(self.seen.follower(MISSING),), doing="collecting behavior"
        )

    def behaviors(
        self,
        watched: Sequence[Container],
        run: WatchedRun,
        gaps: "Gaps",
        sides: Sequence[LabelSelector | None] = (None,),
    ) -> list[Behavior]:
        """One for each selector; None selects all pods."""
        assert self.collection is not None
        inventory = self.seen.inventory()
        end = RunEnd(inventory, self.subject.containers(watched), run, *gaps)

        def is_selected(selector: LabelSelector | None, place: PodContainer) -> bool:
            pod = inventory.pod(*place[:2])
            return selector is None or (pod is not None and selector.accepts(pod.labels))

        return [self.collection.behavior(end, partial(is_selected, side)) for side in sides]


def collect_live(
    options: RunOptions, generalizer: Generalizer, stderr: TextIO, sides: Sequence[LabelSelector | None] = (None,)
) -> tuple[list[Behavior], int]:
    """Watches until the time is over or Ctrl-C. Returns the behavior of the pods of each selector, and the run's exit
    code: 0 for Ctrl-C. Raises GadgetError."""
    beginning = Beginning()
    subject = Subject(with_host=options.selection.host)
    collecting = _Collecting(generalizer, subject, beginning.text)
    progress = Progress(stderr, options.quiet, options.verbose)
    asked = collecting.applied(replace(options, services=(*options.services, beginning.noted)))
    run, code, early = run_to_end(asked, progress, lambda run: bool(run.watched))
    lost = run.lost - (run.unnamed if _is_restricted(options) else 0)
    gaps = gaps_of(run.coverage, lost, 0, bool(early))
    watched_run = WatchedRun(
        _time(run.coverage.since_ns), round(run.seconds, 1), lost, max(1, len(run.coverage.traced))
    )
    return collecting.behaviors(run.watched, watched_run, gaps, sides), code


def collect_recordings(
    files: Sequence[places.PathOrUrl], options: RunOptions, generalizer: Generalizer, stderr: TextIO
) -> list[Behavior]:
    """The behavior of each recorded run. `options` has the selection. Raises GadgetError."""
    with ExitStack() as stack:
        runs = [
            _Recorded(tuple(reader.paths), RecordedRun.from_meta(reader.meta, str(reader.path)), recorded_end(reader))
            for reader in open_recordings(stack, files)
        ]
    return [_of_recording(run, options, generalizer, stderr) for run in runs]


class _Recorded(NamedTuple):
    """One recorded run, as its file says at its beginning and at its end."""

    files: tuple[places.PathOrUrl, ...]
    run: RecordedRun
    end: RecordedEnd


def _of_recording(recorded: _Recorded, options: RunOptions, generalizer: Generalizer, stderr: TextIO) -> Behavior:
    end, job, subject = recorded.end, recorded.end.job, subject_of([recorded.run])
    # Without coverage, nothing says when all nodes were attached, so everything counts.
    began = rfc3339(end.began_ns) if job is not None or end.coverage is not None else ""
    collecting = _Collecting(generalizer, subject, lambda: began)
    gadgets = behavior_runs(any(item.gadget.name in SYSCALLS for item in recorded.run.gadgets))
    asked = replace(options, gadgets=gadgets, replay=Replay(recorded.files), quiet=True)
    with replayed(collecting.applied(asked), io.StringIO(), stderr) as run:
        covered = run.covered()
        named_only = subject.needs_names or not job.has_unnamed if job is not None else not _is_restricted(options)
        lost = run.lost(with_unnamed=named_only)
        watched_run = WatchedRun(_time(end.began_ns), round(end.seconds, 1), lost, max(1, len(covered.traced)))
        counted = {reason.text for reason in doubts(covered, end.began_ns)}
        further = [*(() if job is None else job.incomplete), *run.damages(), *run.without_coverage()]
        gaps = gaps_of(covered, lost, end.began_ns, not counted.issuperset(further))
        found = collecting.behaviors(run.pipeline.watched(), watched_run, gaps)
    if run.code > 128:
        raise KeyboardInterrupt
    return found[0]


def _is_restricted(options: RunOptions) -> bool:
    """True if only pods with a name are watched. Events of cgroups without one, which belong to no pod of any runtime
    that is known, are then not among those that are missing."""
    chosen = options.selection
    named = bool(chosen.namespace or chosen.pods or chosen.workloads or chosen.selector)
    return named or not (chosen.all_namespaces or options.local or options.replay)


class Gaps(NamedTuple):
    """Reasons why a run did not see all of its containers. The texts have no numbers that differ from run to run."""

    incomplete: tuple[str, ...] = ()
    """why each container of the run is incomplete"""
    missing: tuple[str, ...] = ()
    """what was not watched at all"""


def gaps_of(covered: Coverage, lost: int, since_ns: int, further: bool) -> Gaps:
    """Return what a run did not see since `since_ns`, with `lost` events. `further`: there is more.

    A node that joined later is no reason: its containers are known to have run before they were watched."""
    incomplete, missing = dict[str, None](), dict[str, None]()
    if lost:
        causes = sorted({cause for node in covered.nodes for cause in node.lost if cause != "cut_strings"})
        named = ", ".join(CAUSES.get(cause, cause) for cause in causes)
        incomplete[f"events were lost ({named or 'of unknown containers'})"] = None
    for reason in doubts(covered, since_ns):
        if reason.doubt in (Doubt.NOTHING, Doubt.NOT_TRACED, Doubt.ABSENT):
            missing[reason.text] = None
        elif reason.doubt not in (Doubt.LOST, Doubt.JOINED):
            incomplete[str(reason.doubt)] = None
        elif reason.doubt is Doubt.LOST and not lost and reason.cause != UNATTRIBUTED:  # not of pods with a name
            incomplete[reason.text] = None
    if further:
        incomplete["something is missing in this run"] = None
    return Gaps(tuple(incomplete), tuple(missing))


def _time(wall_ns: int) -> str:
    return f"{rfc3339(wall_ns)[:19]}Z"
