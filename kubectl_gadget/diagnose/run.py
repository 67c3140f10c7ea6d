"""A run of `diagnose`: its gadgets, the lists of the API, what is said while it runs, and its result."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from kubectl_gadget import gadgets
from kubectl_gadget.agents.manifests import second_namespace
from kubectl_gadget.background_tasks import cancel
from kubectl_gadget.diagnose.cluster import KINDS, Cluster, Listener, Name, Places
from kubectl_gadget.diagnose.findings import Diagnosis, Found, RunFacts
from kubectl_gadget.diagnose.observations import Observations
from kubectl_gadget.diagnose.rules import OBJECTS, Rule
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES, Object, Resource
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.output.sink import Sink, TakingSink, WholeSink
from kubectl_gadget.recording.recorded_run import RecordedRun
from kubectl_gadget.recording.replay_run import Replayed, replayed
from kubectl_gadget.reports.model import Finding
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.backlog import StepMark
from kubectl_gadget.run.coverage import Coverage, doubts, texts
from kubectl_gadget.run.live_run import begin
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.run.services import Surroundings
from kubectl_gadget.yaml_files import own_data

_GADGETS = Path(__file__).parent / "gadgets.yaml"
SOCKETS = "snapshot_socket"
_LOOK_SECONDS = 2.0
"""Time between two looks at what was seen so far."""
_LISTENING = ("LISTEN", "UNCONN")
_OF_ADDRESSES = (PODS, SERVICES, ENDPOINT_SLICES, NODES)
_RECORDED = "diagnose"
"""The member of a recording's END with the records of the API."""
_MOST_RECORDS = 100_000
_MOST_TIMES, _LATEST_NS = 1 << 40, 1 << 62


@dataclass(frozen=True)
class Report:
    """The result of a run."""

    findings: tuple[Finding, ...]
    """the roots, the worst first"""
    coverage: Coverage
    looked_at: tuple[Name, ...]
    """the selected pods, where a cluster is known"""
    events: int = 0
    seconds: float = 0.0
    gadgets: tuple[str, ...] = ()
    rules: int = 0
    unseen: tuple[str, ...] = ()
    """why something may not have been seen"""
    without_agents: bool = False
    """no selected pod runs, so nothing was traced"""
    began_ns: int = 0
    """when everything was attached (wall time)"""

    @property
    def is_inconclusive(self) -> bool:
        """True if the absence of findings proves nothing."""
        return bool(self.unseen) and not self.without_agents


def runs(rules: Iterable[Rule]) -> tuple[GadgetRun, ...]:
    """Return the gadgets that these rules need; the first one is a stream."""
    wanted = {name for rule in rules for name in rule.gadgets} | {SOCKETS}
    found = []
    for name, given in own_data(_GADGETS)["gadgets"].items():
        if name in wanted:
            parameters = {key: value for key, value in given.items() if key != "again"}
            found.append(GadgetRun(gadgets.load_gadget(name), parameters, again_seconds=given.get("again", 0)))
    return tuple(found)


class _NothingRuns(GadgetError):
    """No selected pod has a running container, so there is nothing to trace."""


@dataclass
class _Listed:
    objects: dict[str, Sequence[Object]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)


def trusted(found: object) -> Iterator[dict[str, object]]:
    """Yield the records of a recording, which may come from anybody, with numbers where numbers are read."""
    for record in found[:_MOST_RECORDS] if isinstance(found, list) else ():
        if isinstance(record, dict):
            kept = {str(name): value for name, value in record.items()}
            for name, most in (("times", _MOST_TIMES), ("first_ns", _LATEST_NS)):
                if type(value := kept.get(name)) is not int or not 0 < value < most:
                    kept.pop(name, None)
            yield kept


@dataclass(frozen=True)
class Beside:
    """What else looks at a replay, so that recordings are read only once."""

    sink: WholeSink
    """gets all rows"""
    marked: Callable[[StepMark], object]
    ended: Callable[[Replayed], object]
    """called after the last row, while the files are open"""


class DiagnoseRun:
    """One run. `main` is called once."""

    def __init__(
        self, options: RunOptions, rules: Sequence[Rule], stderr: TextIO, beside: Beside | None = None
    ) -> None:
        self._rules = rules
        self._beside = beside
        self._progress = Progress(stderr, options.quiet, options.verbose)
        self._observations = Observations(rules)
        self._places = Places()
        self._diagnosis = Diagnosis(rules, self._observations, self._places)
        self._sockets = MemberRows(())
        self._selected: set[Name] = set()
        self._listed = _Listed()
        self._began_ns = 0
        self._said: set[str] = set()
        self._using = threading.Lock()
        """rows come in one thread, objects and looks at both in others"""
        is_replay = options.replay is not None
        self._options = replace(
            options,
            services=() if is_replay else (self._serve,),
            followers=(
                *options.followers,
                *((self._follower(is_replay),) if is_replay or (options.record and not options.local) else ()),
            ),
            ending=self._ending,
            make_sink=lambda gadgets, *_: self._sink(),
            doing="looking for causes",
            command=("diagnose",),
        )

    async def main(self) -> Report:
        """Run until the time is over or Ctrl-C. Raises GadgetError if nothing can be said."""
        try:
            async with begin(self._options, self._progress, None) as run:
                try:
                    await run.main()
                except GadgetError as error:
                    if not run.coverage.traced:
                        raise
                    return self._report(run.coverage, (f"the run ended early: {error}",))
                return self._report(run.coverage)
        except _NothingRuns:
            return self._report(Coverage(), without_agents=True)

    def replay(self, stdout: TextIO, stderr: TextIO) -> Report:
        """Look at recordings instead. Raises GadgetError."""
        marked = None if self._beside is None else self._beside.marked
        with replayed(self._options, stdout, stderr, marked) as run:
            self._began_ns = min((end.began_ns for end in run.ends), default=0)
            recorded = set[str]()
            for reader in run.readers:
                meta = RecordedRun.from_meta(reader.meta, str(reader.path))
                recorded |= {item.gadget.name for item in meta.gadgets}
                records: object = reader.find_end().end.get(_RECORDED)
                if isinstance(records, dict):
                    self._take_objects({kind: trusted(records.get(kind)) for kind in OBJECTS}, self._began_ns)
            lacking = dict.fromkeys(item.gadget.event for item in runs(self._rules) if item.gadget.name not in recorded)
            unseen = [*run.without_coverage(), *run.damages()]
            unseen += [f"the recording has no events of {', '.join(lacking)}"] if lacking else []
            if self._beside is not None:
                self._beside.ended(run)
            return self._report(run.covered(), unseen)

    def _follower(self, is_replay: bool) -> Follower:
        """Return what has the objects recorded by which addresses get names, and reads them from a recording."""

        def take(found: Objects) -> Callable[[], object] | None:
            if not is_replay:
                return None
            return partial(self._set_cluster, {kind.plural: objects for kind, objects in found.items()})

        return Follower(_OF_ADDRESSES, take, 5.0, 60.0, missing="some addresses have no names in the recording")

    def _set_cluster(self, objects: Mapping[str, Sequence[Object]]) -> None:
        self._diagnosis.cluster = Cluster(objects)
        self._selected = set(self._diagnosis.cluster.pods)

    def _ending(self, _: Coverage) -> dict[str, object]:
        """Return the records of the API, for a replay."""
        cluster = self._diagnosis.cluster
        return {_RECORDED: {kind: list(cluster.records(kind, self._selected)) for kind in OBJECTS}}

    def _report(self, coverage: Coverage, also: Sequence[str] = (), without_agents: bool = False) -> Report:
        unseen = list(also) if without_agents else [*texts(doubts(coverage)), *also]
        if not self._observations.is_whole:
            unseen.append("more happened than there was room for")
        if self._listed.refused:
            unseen.append(f"you may not list {', '.join(sorted(self._listed.refused))}")
        return Report(
            tuple(each.finding() for each in self._findings(RunFacts(coverage.seconds, self._began_ns, not unseen))),
            coverage,
            tuple(sorted(self._selected)),
            self._observations.rows,
            coverage.seconds,
            tuple(run.gadget.event for run in self._options.gadgets),
            len(self._rules),
            tuple(unseen),
            without_agents,
            self._began_ns or time.time_ns(),
        )

    def _findings(self, run: RunFacts) -> list[Found]:
        with self._using:
            return self._diagnosis.findings(run)

    def _take_objects(self, records: Mapping[str, Iterable[Mapping[str, object]]], wall_ns: int) -> None:
        with self._using:
            for kind, found in records.items():
                self._observations.take_objects(kind, found, wall_ns)

    # Rows, in the pipeline's thread.

    def _sink(self) -> Sink:
        return TakingSink(self._take) if self._beside is None else _Both(self._beside.sink, self._take)

    def _take(self, rows: Rows) -> None:
        with self._using:
            self._observations.take(rows)
            for batch in rows.parts:
                if batch.gadget.name == SOCKETS:
                    self._take_sockets(batch)
                elif batch.gadget.name in ("trace_tcp", "trace_dns"):
                    self._take_addresses(batch)

    def _take_sockets(self, batch: Batch) -> None:
        found: dict[Name, set[Listener]] = {}
        for record in self._sockets.records_of(batch):
            pod = (str(record.get("namespace") or ""), str(record.get("pod") or ""))
            if not pod[1]:
                continue
            listeners = found.setdefault(pod, set())
            local = str(record.get("local") or "")
            self._places.saw(local, pod)
            if record.get("state") in _LISTENING:
                port, protocol = record.get("local_port"), str(record.get("protocol"))
                listeners.add(Listener(local, port if isinstance(port, int) else 0, protocol))
        for pod, listeners in found.items():
            self._places.saw_sockets(pod, listeners)

    def _take_addresses(self, batch: Batch) -> None:
        for record in self._sockets.records_of(batch):
            pod = (str(record.get("namespace") or ""), str(record.get("pod") or ""))
            if pod[1] and (local := record.get("local")):
                self._places.saw(str(local), pod)

    # The API, and what is said while it runs, in the event loop.

    @asynccontextmanager
    async def _serve(self, surroundings: Surroundings) -> AsyncIterator[None]:
        api = surroundings.api
        if api is not None:
            await self._list(api)
            if self._selected and not any(self._has_run(name) for name in self._selected):
                raise _NothingRuns("no selected pod has a running container")
        watching = surroundings.tasks.start(self._watch(surroundings), "the search for causes")
        try:
            yield
        finally:
            await cancel(watching)
            if api is not None:
                await self._list(api)

    async def _watch(self, surroundings: Surroundings) -> None:
        await surroundings.attached.wait()
        self._began_ns = began = surroundings.complete_ns() or time.time_ns()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            run = RunFacts((time.time_ns() - began) / 1e9, began)
            for each in await asyncio.to_thread(self._findings, run):
                if each.id not in self._said:
                    self._said.add(each.id)
                    self._progress.say(f"found: {each.words.title}")

    async def _list(self, api: Api) -> None:
        """Read the objects of the API that rules need. Kinds that the user may not list are left out."""
        selection = self._options.selection
        namespace = None if selection.all_namespaces else selection.namespace or api.cluster.namespace

        async def find(resource: Resource) -> None:
            of = namespace if resource.namespaced else None
            name = resource.plural
            try:
                self._listed.objects[name] = (await api.find(resource, of)).items
            except GadgetError as error:
                if resource is PODS:
                    raise
                self._progress.debug(f"{name}: {error}")
                self._listed.refused.add(name)

        await asyncio.gather(*map(find, KINDS))
        own = self._options.agent.namespace
        cluster = await asyncio.to_thread(Cluster, dict(self._listed.objects))
        selected = self._selected = cluster.selected(selection, namespace, (own, second_namespace(own)))
        self._diagnosis.cluster = cluster
        records = {kind: cluster.records(kind, selected) for kind in OBJECTS}
        await asyncio.to_thread(self._take_objects, records, time.time_ns())

    def _has_run(self, name: Name) -> bool:
        found = self._diagnosis.cluster.raw_pods.get(name) or {}
        status = found.get("status") or {}
        return any(
            "running" in (each.get("state") or {}) or each.get("restartCount")
            for kind in ("initContainerStatuses", "containerStatuses")
            for each in status.get(kind) or ()
        )


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
