"""A run of `diagnose`, live or recorded, and its result."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import TextIO

from kubectl_gadget.diagnose.cluster import Cluster
from kubectl_gadget.diagnose.rules import Rule
from kubectl_gadget.diagnose.search import NothingRuns, Report, Search, lacking
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.kube.addresses import KINDS
from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.resources import Object, Resource
from kubectl_gadget.output.sink import Sink, TakingSink, WholeSink
from kubectl_gadget.recording.recorded_run import RecordedRun
from kubectl_gadget.recording.replay_run import Replayed, replayed
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.backlog import StepMark
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.run.live_run import begin
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import RunOptions
from kubectl_gadget.run.services import Surroundings
from kubectl_gadget.wording import count


@dataclass(frozen=True)
class Beside:
    """Other readers of a replay, so that recordings are read only once."""

    sink: WholeSink
    """gets all rows"""
    marked: Callable[[StepMark], object]
    ended: Callable[[Replayed], object]
    """called after the last row, while the files are open"""


class DiagnoseRun:
    """One run. `main` is called once."""

    def __init__(
        self,
        options: RunOptions,
        rules: Sequence[Rule],
        stderr: TextIO,
        beside: Beside | None = None,
        until: float | None = None,
        objects: Mapping[Resource, Sequence[Object]] | None = None,
    ) -> None:
        """`until`: seconds after which it ends, or later if pods that crash start then; None: as `options` say.
        `objects`: what the API server has, for a run without a cluster."""
        self._progress = Progress(stderr, options.quiet, options.verbose)
        self._rules = rules
        self._beside = beside
        self._search = Search(rules, options, self._progress)
        self._until = until
        if objects is not None:
            self._search.take_cluster(Cluster({kind.plural: found for kind, found in objects.items()}))
        is_replay = options.replay is not None
        self._options = replace(
            options,
            services=() if is_replay else (self._serve,),
            followers=(
                *options.followers,
                *((self._follower(is_replay),) if is_replay or (options.record and not options.local) else ()),
            ),
            ending=self._search.ending,
            make_sink=lambda gadgets, *_: self._sink(),
            doing=f"looking for causes with {count(len(options.gadgets), 'gadget')}",
            command=("diagnose",),
        )

    async def main(self) -> Report:
        """Run until the time is over or Ctrl-C. Without any agent, what the API knows is the answer. Raises GadgetError
        if nothing can be said."""
        try:
            async with begin(self._options, self._progress, None) as run:
                try:
                    await run.main()
                except NothingRuns:
                    raise
                except GadgetError as error:
                    why = "the run ended early" if run.coverage.traced else "nothing was traced"
                    found = self._search.report(run.coverage, (f"{why}: {error}",))
                    if not run.coverage.traced and not found.findings:
                        raise
                    return found
                return self._search.report(run.coverage)
        except NothingRuns:
            return self._search.report(Coverage(), without_agents=True)

    def _serve(self, surroundings: Surroundings) -> AbstractAsyncContextManager[None]:
        return self._search.serve(surroundings, until=self._until)

    def replay(self, stdout: TextIO, stderr: TextIO) -> Report:
        """Look at recordings instead. Raises GadgetError."""
        marked = None if self._beside is None else self._beside.marked
        with replayed(self._options, stdout, stderr, marked) as run:
            missing = self._search.take_replayed(run)
            recorded = set[str]()
            for reader in run.readers:
                meta = RecordedRun.from_meta(reader.meta, str(reader.path))
                recorded |= {item.gadget.name for item in meta.gadgets}
            unseen = [*run.without_coverage(), *run.damages(), *missing]
            if without := lacking(self._rules, recorded):
                unseen.append(f"the recording has no events of {', '.join(without)}")
            if self._beside is not None:
                self._beside.ended(run)
            return self._search.report(run.covered(), unseen)

    def _sink(self) -> Sink:
        take = self._search.take
        return TakingSink(take) if self._beside is None else _Both(self._beside.sink, take)

    def _follower(self, is_replay: bool) -> Follower:
        """Return what has the objects recorded by which addresses get names, and reads them from a recording."""

        def take(found: Objects) -> Callable[[], object] | None:
            if not is_replay:
                return None
            return partial(self._search.take_names, found)

        return Follower(KINDS, take, 5.0, 60.0, missing="some addresses have no names in the recording")


class _Both(WholeSink):
    """Passes everything on to a sink, and rows to a function."""

    def __init__(self, sink: WholeSink, take: Callable[[Rows], object]) -> None:
        self._sink = sink
        self._take = take

    def write(self, rows: Rows) -> None:
        self._take(rows)
        self._sink.write(rows)

    def write_block(self, rows: Rows) -> None:
        self._take(rows)
        self._sink.write_block(rows)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        self._sink.gap(node, seconds, until_ns)
