"""The search for causes beside a run: takes its rows, asks the API, follows chains to other pods, says what it finds.

`diagnose` is such a run, and `ci run --diagnose` has the search beside its checks.
"""

import asyncio
import io
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from kubectl_gadget import gadgets
from kubectl_gadget.agents.manifests import second_namespace
from kubectl_gadget.background_tasks import cancel
from kubectl_gadget.diagnose import last_words
from kubectl_gadget.diagnose.cluster import KINDS, Cluster, Listener, Name, Places
from kubectl_gadget.diagnose.findings import Diagnosis, Found, RunFacts
from kubectl_gadget.diagnose.observations import Observations, Owner, Record
from kubectl_gadget.diagnose.recorded import MOST_OBJECTS, PeerRow, cluster_of, facts, names, peer_rows
from kubectl_gadget.diagnose.rules import OBJECTS, Confidence, Rule
from kubectl_gadget.errors import ForbiddenError, GadgetError
from kubectl_gadget.kube.addresses import wall_ns
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, PODS, SERVICES, Object, Resource
from kubectl_gadget.output.escape import printable
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.output.sink import TakingSink
from kubectl_gadget.recording.replay_run import Replayed
from kubectl_gadget.reports.model import Finding
from kubectl_gadget.rows.batch import Batch, join
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import Coverage, doubts, texts
from kubectl_gadget.run.live_run import begin
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.run.services import Surroundings
from kubectl_gadget.wording import count, some
from kubectl_gadget.yaml_files import own_data

_GADGETS = Path(__file__).parent / "gadgets.yaml"
SOCKETS = "snapshot_socket"
RECORDED = "diagnose"
"""The member of a recording's END with what recorded.py keeps."""
_NO_API = "it has nothing of the API server: no status of pods, no events, services, policies or last words of logs"
_NO_RECORDS = "an earlier version recorded it, without services, policies and the pods that addresses belong to"
_OF_PEERS = (SOCKETS, "snapshot_process")
"""Gadgets for pods at the other end, which were not selected."""
_WIDE = (PODS, SERVICES, ENDPOINT_SLICES)
"""Listed in all namespaces once an address is not known."""
_MOST_PEERS = 50
_MOST_LISTED_AGAIN = 500
"""Pods: the objects of more are listed at the start and at the end only."""
_LOOK_SECONDS = 2.0
"""Time between two looks at what was seen so far."""
_TAKE_SECONDS, _MOST_WAITING = 0.5, 10_000
"""The time that rows wait for others, and the number that may wait."""
_NEWS_SECONDS = 10.0
"""Time between two lines about how far the search is, and between two lists of the API."""
_PEER_SECONDS = 20.0
"""Time limit of a look at other pods."""
_LAST_PEER_SECONDS = 5.0
"""The same when the run is over."""
_LISTENING = ("LISTEN", "UNCONN")
_MOST_RECORDS = 100_000
_MOST_TIMES, _LATEST_NS = 1 << 40, 1 << 62
_BACK_OFF = re.compile(r"back-off (?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?")
_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 10.0, 300.0
"""Seconds that the kubelet waits before it starts a container again: twice as long each time."""
_AFTER_START_SECONDS = 8.0
"""Seconds for which a container that ends soon is watched after its start."""
_MOST_NAMED = 3
_LONGEST_REASON = 300
_AGAIN_SECONDS = 0.5
"""before a log that could not be read is asked for again"""
_MOST_LOGS = 100
"""Ended containers whose last words are read."""


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
    peers: tuple[Name, ...] = ()
    """pods at the other end whose sockets and processes were looked at"""
    events_of: Mapping[str, int] = field(default_factory=dict)
    """by gadget"""
    without_cluster: bool = False
    """no API server was asked"""
    aside: tuple[str, ...] = ()
    """what was not looked at, though the absence of findings is believable without it"""

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


def lacking(rules: Iterable[Rule], names: Collection[str]) -> list[str]:
    """Return, in words, the gadgets that these rules need and that are not among `names`."""
    missing = [run.gadget for run in runs(rules) if run.gadget.name not in names]
    return [gadget.event if gadget.kind == "stream" else " ".join(gadget.command) for gadget in missing]


class NothingRuns(GadgetError):
    """No selected pod has a running container, so there is nothing to trace."""


@dataclass
class _Listed:
    objects: dict[str, Sequence[Object]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    is_wide: bool = False
    """the pods of all namespaces were listed"""
    why_not_wide: str = ""


def trusted(found: object) -> Iterator[dict[str, object]]:
    """Yield the records of a recording, which may come from anybody, with numbers where numbers are read."""
    for record in found[:_MOST_RECORDS] if isinstance(found, list) else ():
        if isinstance(record, dict):
            kept = {str(name): value for name, value in record.items()}
            for name, most in (("times", _MOST_TIMES), ("first_ns", _LATEST_NS)):
                if type(value := kept.get(name)) is not int or not 0 < value < most:
                    kept.pop(name, None)
            yield kept


class Search:
    """The search of one run. `take` is called from the pipeline's thread, and all else from the event loop."""

    def __init__(self, rules: Sequence[Rule], options: RunOptions, progress: Progress) -> None:
        self._rules = rules
        self._options = options
        self._progress = progress
        self._observations = Observations(rules, self._mark)
        self._places = Places()
        self._diagnosis = Diagnosis(rules, self._observations, self._places)
        self._sockets = MemberRows(())
        self.selected: set[Name] = set()
        self._controllers: set[Name] = set()
        """with events, also those without a pod"""
        self._listed = _Listed()
        self._peers: dict[Name, str] = {}
        """pods at the other end that were looked at, and why that failed; "": it did not"""
        self.began_ns = 0
        self._events: Counter[str] = Counter()
        self._seen_once: set[str] = set()
        self._said: set[str] = set()
        self._noticed: set[str] = set()
        self._starts: dict[Name, tuple[float, int]] = {}
        """of pods that crash again and again: when (wall time) the kubelet will start them, and how often it has"""
        self._last_words: dict[Name, dict[str, Object]] = {}
        self._read_logs: set[str] = set()
        """IDs of ended containers whose logs were read"""
        self._unread_logs: set[tuple[Name, str]] = set()
        """ended containers beyond _MOST_LOGS"""
        self._may_not_read_logs = False
        self._failed_logs: dict[str, str] = {}
        """why logs were not read, by what they are of"""
        self._peer_rows: list[PeerRow] = []
        """for a recording, which has no other rows of pods at the other end"""
        self._replayed_unseen: list[str] = []
        self._replayed_aside: list[str] = []
        self._waiting: list[Batch] = []
        """rows that were not looked at"""
        self._waiting_rows = 0
        self._take_at = 0.0
        self._using = threading.Lock()
        """rows come in one thread, objects and looks at both in others"""

    # What was seen, and the result.

    @property
    def cluster(self) -> Cluster:
        """Return the objects of the API as last listed."""
        return self._diagnosis.cluster

    @cluster.setter
    def cluster(self, found: Cluster) -> None:
        self._diagnosis.cluster = found

    def take(self, rows: Rows) -> None:
        """Take rows of the run. They are looked at together: a hundred nodes send small batches."""
        with self._using:
            self._waiting += rows.parts
            self._waiting_rows += len(rows)
            if self._waiting_rows >= _MOST_WAITING or time.monotonic() >= self._take_at:
                self._take_waiting()

    def _take_waiting(self) -> None:
        """Look at the rows that wait; called with the lock."""
        together: dict[tuple[str, str], list[Batch]] = {}
        for batch in self._waiting:
            together.setdefault((batch.gadget.name, batch.architecture), []).append(batch)
        self._waiting, self._waiting_rows = [], 0
        for batches in together.values():
            batch = join(batches)
            self._observations.take(Rows([batch]))
            self._events[batch.gadget.event] += len(batch)
            self._take_addresses(batch)
        self._take_at = time.monotonic() + _TAKE_SECONDS

    def _mark(self, wall_ns: int) -> None:
        """Mark the observations that findings need; called while rows are taken."""
        began = self.began_ns or wall_ns - 30_000_000_000  # a replay knows it at its end
        self._diagnosis.findings(RunFacts(max(0.0, (wall_ns - began) / 1e9), began))

    def _take_of_peers(self, look: str, rows: Rows) -> None:
        with self._using:
            self._observations.take(rows, look)
            for batch in rows.parts:
                self._take_addresses(batch)
                if self._options.record:
                    self._keep_of_peers(look, batch)

    def _keep_of_peers(self, look: str, batch: Batch) -> None:
        owners = map(Owner.of, batch.nodes(), batch.row_containers())
        rows = zip(batch.wall_ns().tolist(), owners, self._sockets.records_of(batch), strict=True)
        self._peer_rows += (PeerRow(batch.gadget.name, look, *row) for row in rows)
        del self._peer_rows[MOST_OBJECTS:]

    def _take_addresses(self, batch: Batch) -> None:
        if batch.gadget.name == SOCKETS:
            self._take_sockets(self._sockets.records_of(batch))
        elif batch.gadget.name in ("trace_tcp", "trace_dns"):
            for record in self._sockets.records_of(batch):
                pod = (str(record.get("namespace") or ""), str(record.get("pod") or ""))
                if pod[1] and (local := record.get("local")):
                    self._places.saw(str(local), pod)

    def _take_sockets(self, records: Iterable[Mapping[str, Any]]) -> None:
        found: dict[Name, set[Listener]] = {}
        for record in records:
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

    def take_objects(self, records: Mapping[str, Iterable[Mapping[str, object]]], wall_ns: int) -> None:
        """Take records of the API, by kind."""
        with self._using:
            for kind, found in records.items():
                self._observations.take_objects(kind, found, wall_ns)

    def take_cluster(self, found: Cluster, namespace: str | None = None, own: Collection[str] = ()) -> None:
        """Take all objects of the API at one time; the arguments are as in Cluster.selected()."""
        self.selected = found.selected(self._options.selection, namespace, own)
        self._controllers = found.controllers(self._options.selection, namespace, own)
        self.cluster = found
        self.take_objects(self._records(), time.time_ns())

    def take_names(self, objects: Mapping[Resource, Sequence[Object]]) -> None:
        """Take the objects by which addresses have names: of the API, those that a recording has too."""
        plural = {kind.plural: found for kind, found in objects.items()}
        found = Cluster(plural, time.time(), has_all_pods=False)
        with self._using:
            self.cluster = found

    def ending(self, coverage: Coverage) -> dict[str, object]:
        """Return what a recording keeps beside the rows, so that a replay says the same."""
        with self._using:
            about = self.selected | set(self._peers)
            kept = facts(self.cluster, about, self.selected, self._controllers)
            kept |= {
                "began_ns": self.began_ns,
                "peers": [[*name, problem] for name, problem in sorted(self._peers.items())],
                "peer_rows": [row.to_json() for row in self._peer_rows],
                "unseen": list(self._unseen(coverage)),
                "aside": list(self._aside()),
            }
        return {RECORDED: kept}

    def take_replayed(self, run: Replayed) -> list[str]:
        """Take what recorded runs kept beside their rows, and return why something is missing."""
        kept, older = list[dict[str, Any]](), dict[str, list[Mapping[str, object]]]()
        missing = list[str]()
        self.began_ns = min((end.began_ns for end in run.ends), default=0)
        for reader in run.readers:
            found = reader.find_end().end.get(RECORDED)
            if isinstance(found, dict) and isinstance(found.get("objects"), dict):
                kept.append(found)
                continue
            if isinstance(found, dict):
                for kind in OBJECTS:
                    older.setdefault(kind, []).extend(trusted(found.get(kind)))
            missing.append(f"{reader.path}: {_NO_RECORDS if isinstance(found, dict) else _NO_API}")
        if older:  # of a release before objects were kept
            self.selected |= {(str(each.get("namespace")), str(each.get("pod"))) for each in older.get("pod", ())}
            self.take_objects(older, self.began_ns)
        if not kept:
            return missing
        try:
            cluster = cluster_of(kept)
        except ValueError as error:
            return [*missing, f"the recording's objects of the API make no sense: {error}"]
        for each in kept:
            began_ns = each.get("began_ns")
            if type(began_ns) is int and self.began_ns <= began_ns < _LATEST_NS:
                self.began_ns = began_ns
            self.selected |= set(names(each.get("selected")))
            self._controllers |= set(names(each.get("controllers")))
            for problem, name in zip(_texts(each.get("peers"), 2), names(each.get("peers")), strict=False):
                self._peers[name] = problem
            self._replayed_unseen += _texts([[text] for text in _list(each.get("unseen"))], 0)
            self._replayed_aside += _texts([[text] for text in _list(each.get("aside"))], 0)
            self._take_peer_rows(peer_rows(each.get("peer_rows"), _OF_PEERS))
        with self._using:
            self.cluster = cluster
        self.take_objects(self._records(), round(cluster.now * 1e9))
        return missing

    def not_recorded(self, gadgets: Iterable[GadgetRun]) -> list[str]:
        """Return what rules need and a recording of these gadgets lacks."""
        without = lacking(self._rules, {run.gadget.name for run in gadgets})
        return [f"the recording has no events of {', '.join(without)}"] if without else []

    def _take_peer_rows(self, found: Iterable[PeerRow]) -> None:
        together: dict[tuple[str, str], list[PeerRow]] = {}
        for row in found:
            together.setdefault((row.gadget, row.look), []).append(row)
        with self._using:
            for (gadget, look), rows in together.items():
                self._observations.take_records(gadget, [(row.owner, row.row, row.at) for row in rows], look)
                if gadget == SOCKETS:
                    self._take_sockets({**row.row, **asdict(row.owner)} for row in rows)

    def _records(self) -> dict[str, Iterable[dict[str, object]]]:
        return {
            kind: self.cluster.records(kind, self.selected | set(self._peers), self._controllers) for kind in OBJECTS
        }

    def report(
        self, coverage: Coverage, also: Sequence[str] = (), without_agents: bool = False, since_ns: int = 0
    ) -> Report:
        """Return the result. `since_ns`: the time after which everything matters, as for doubts()."""
        with self._using:
            self._take_waiting()
        unseen = list(also) if without_agents else [*texts(doubts(coverage, since_ns)), *also]
        if not self._observations.is_whole:
            unseen.append("more happened than there was room for")
        unseen += (text for text in self._unseen(coverage) if text not in unseen)
        found = self._findings(RunFacts(coverage.seconds, self.began_ns, not unseen))
        return Report(
            tuple(each.finding() for each in found),
            coverage,
            tuple(sorted(self.selected)),
            self._observations.rows,
            coverage.seconds,
            tuple(run.gadget.event for run in self._options.gadgets),
            len(self._rules),
            tuple(unseen),
            without_agents,
            self.began_ns or time.time_ns(),
            tuple(sorted(name for name, problem in self._peers.items() if not problem)),
            dict(self._events),
            self._options.local and not self.cluster.raw_pods,
            tuple(self._aside()),
        )

    def _unseen(self, coverage: Coverage) -> Iterator[str]:
        """Yield why something may not have been seen, beside the coverage of the rows."""
        yield from dict.fromkeys(self._replayed_unseen)
        if self._listed.refused:
            yield f"you may not list {', '.join(sorted(self._listed.refused))}"
        if self._options.replay is None:
            yield from self._unfollowed()
        yield from self._unstarted(coverage)

    def _aside(self) -> Iterator[str]:
        """Yield what was not looked at, though all else suffices for the answer."""
        yield from dict.fromkeys(self._replayed_aside)
        if self._may_not_read_logs:
            yield "logs of ended containers: you may not get pods/log"
        if self._failed_logs:
            whose, why = min(self._failed_logs.items())
            more = f" and of {len(self._failed_logs) - 1} more" if len(self._failed_logs) > 1 else ""
            yield f"the log of {whose}{more}: {why}"
        if self._unread_logs:
            yield f"logs of {count(len(self._unread_logs), 'more ended container')}"

    def _unfollowed(self) -> Iterator[str]:
        """Yield which chains to other pods end at what could not be seen."""
        failed = sorted((why, name) for name, why in self._peers.items() if why)
        for why, group in groupby(failed, key=lambda each: each[0]):
            names = ["/".join(name) for _, name in group]
            yield f"{some(names, _MOST_NAMED)}, at the other end of a failure, was not looked at: {why}"
        if self._listed.why_not_wide and (unknown := sorted(self._diagnosis.unknown)):
            yield f"whose {some(unknown, _MOST_NAMED)} is: {self._listed.why_not_wide}"

    def _unstarted(self, coverage: Coverage) -> Iterator[str]:
        """Yield which pods that crash again and again did not start while they were traced."""
        for name, (start, restarts) in sorted(self._starts.items()):
            if coverage.traced and self._restarts(name) == restarts and start * 1e9 > coverage.ended_ns:
                after = max(1.0, start - coverage.ended_ns / 1e9)
                yield f"the next start of {'/'.join(name)}, {after:.0f} s after the end; use a longer --timeout"

    def _findings(self, run: RunFacts) -> list[Found]:
        """Return the roots that are about selected pods, or explain what is seen in them."""
        with self._using:
            self._take_waiting()
            found = self._diagnosis.findings(run)
        own = self.selected
        if not self._peers or not own:
            return found
        return [
            root
            for root in found
            if any(not (pods := each.all_pods) or not own.isdisjoint(pods) for each in root.all())
        ]

    # The API, other pods, and what is said while it runs.

    @asynccontextmanager
    async def serve(
        self, surroundings: Surroundings, needs_pods: bool = True, until: float | None = None
    ) -> AsyncIterator[None]:
        """Search while the block runs. `needs_pods`: raises NothingRuns if no selected pod has run. `until`: end the
        run after this many seconds, or later if pods that crash start then."""
        api = surroundings.api
        if api is not None:
            await self._list(api)
            is_known = bool(self.selected) or bool(self._findings(RunFacts()))
            if needs_pods and is_known and not any(self._has_run(name) for name in self.selected):
                raise NothingRuns("no selected pod has a running container")
        looks = set[asyncio.Task[None]]()
        watching = surroundings.tasks.start(self._watch(surroundings, looks, until), "the search for causes")
        try:
            yield
        finally:
            await cancel(watching)
            if looks:
                _, late = await asyncio.wait(looks, timeout=_LAST_PEER_SECONDS)
                await cancel(*late)
            if api is not None:
                await self._list(api)

    async def _watch(self, surroundings: Surroundings, looks: set[asyncio.Task[None]], until: float | None) -> None:
        await surroundings.attached.wait()
        self.began_ns = began = surroundings.complete_ns() or time.time_ns()
        end = self._end(until)
        next_news, seconds, wait = _NEWS_SECONDS, 0.0, _LOOK_SECONDS
        while True:
            await asyncio.sleep(wait if end is None else max(0.0, min(wait, end - seconds)))
            seconds, before = (time.time_ns() - began) / 1e9, time.monotonic()
            found = await asyncio.to_thread(self._findings, RunFacts(seconds, began))
            wait = max(_LOOK_SECONDS, (time.monotonic() - before) * 20)  # rows wait while it looks
            self._say_certain(found)
            if surroundings.api is not None:
                if self._diagnosis.unknown and not self._listed.is_wide and not self._listed.why_not_wide:
                    await self._list(surroundings.api, wide=True)
                for names in self._new_peers(found):
                    looks.add(surroundings.tasks.start(self._look_at(names), "a look at other pods"))
            if end is not None and seconds >= end:
                surroundings.stop("timeout")
                return
            if seconds >= next_news:
                next_news += _NEWS_SECONDS
                if surroundings.api is not None and len(self.cluster.raw_pods) <= _MOST_LISTED_AGAIN:
                    await self._list(surroundings.api)
                of = f" of {end:.0f}" if end is not None else ""
                seen = f"{self._observations.rows:,} events, {count(len(found), 'cause')} so far"
                self._progress.say(f"{seconds:.0f}{of} s: {seen}")

    def _say_certain(self, found: Sequence[Found]) -> None:
        """Say which proven roots were roots at the last look too: a cause of them may need a moment longer."""
        for each in (one for root in found for one in root.all()):
            if each.id not in self._noticed:
                self._noticed.add(each.id)
                self._progress.debug(f"noticed: {each.rule.name} of {each.about}: {each.words.title}")
        proven = {each.id: each for each in found if each.confidence is Confidence.PROVEN}
        for id, each in proven.items():
            if id in self._seen_once and id not in self._said:
                self._said.add(id)
                self._progress.say(f"found: {str(each.severity).upper()}  {each.words.title}")
        self._seen_once = set(proven)

    def _end(self, until: float | None) -> float | None:
        """Return how long to look: until pods that crash have started again, if the user did not say how long."""
        now = time.time()
        for name in self.selected:
            if (start := next_start(self._statuses(name))) is not None and start > now:
                self._starts[name] = start, self._restarts(name)
        waits = {name: start - now for name, (start, _) in self._starts.items()}
        limit = self._options.timeout if until is None else None
        for name, seconds in sorted(waits.items()):
            what = f"the next start of {'/'.join(name)}, in about {seconds:.0f} s"
            if limit is not None and seconds > limit:
                self._progress.say(f"{what}, is not waited for: --timeout {limit:g}s ends this before")
            else:
                self._progress.say(f"waiting for {what}")
        if until is None or not waits:
            return until
        longest = min(max(waits.values()), _LONGEST_BACK_OFF) + _AFTER_START_SECONDS
        if longest > until:
            self._progress.say(f"so this takes {longest:.0f} s; Ctrl-C gives what is known until then")
        return max(until, longest)

    def _new_peers(self, found: Iterable[Found]) -> Iterator[tuple[Name, ...]]:
        """Yield pods at the other end of failures that were not selected and not looked at, by namespace."""
        wanted = {
            name
            for root in found
            for each in root.all()
            for name in each.all_pods
            if name not in self.selected and name not in self._peers and self._runs(name)
        }
        chosen = sorted(wanted)[: max(0, _MOST_PEERS - len(self._peers))]
        self._peers |= dict.fromkeys(chosen, "there was no time")
        for _, group in groupby(chosen, key=lambda name: name[0]):
            yield tuple(group)

    async def _look_at(self, names: tuple[Name, ...]) -> None:
        """Look at the sockets and processes of pods of one namespace, in a run of its own on their nodes."""
        shown = some(["/".join(name) for name in names], _MOST_NAMED)
        self._progress.say(f"looking at {shown}, at the other end")
        look = f"look {len(self._peers)}"
        options = RunOptions(
            gadgets=tuple(replace(run, again_seconds=0) for run in runs(self._rules) if run.gadget.name in _OF_PEERS),
            selection=Selection(namespace=names[0][0], pods=tuple(name for _, name in names)),
            kube=self._options.kube,
            agent=self._options.agent,
            make_sink=lambda gadgets, *_: TakingSink(lambda rows: self._take_of_peers(look, rows)),
            timeout=_PEER_SECONDS,
            quiet=True,
            is_part=True,
        )
        problem = ""
        try:
            async with asyncio.timeout(_PEER_SECONDS), begin(options, Progress(io.StringIO(), True)) as run:
                await run.main()
                problem = "; ".join(texts(doubts(run.coverage)))
        except GadgetError as error:
            problem = str(error)
        except TimeoutError:
            problem = f"no answer within {_PEER_SECONDS:.0f} s"
        self._peers |= dict.fromkeys(names, problem)

    async def _list(self, api: Api, wide: bool = False) -> None:
        """Read the objects of the API that rules need. Kinds that the user may not list are left out. `wide`: pods and
        services of all namespaces, since an address is of none of the known ones."""
        selection, listed = self._options.selection, self._listed
        namespace = None if selection.all_namespaces else selection.namespace or api.cluster.namespace
        of_peers = sorted({name[0] for name in self._peers} - {namespace})
        listed.is_wide = listed.is_wide or wide or namespace is None

        async def find(resource: Resource) -> None:
            is_wide = not resource.namespaced or (listed.is_wide and resource in _WIDE)
            of = [None] if is_wide or namespace is None else [namespace, *of_peers]
            name, found = resource.plural, list[Object]()
            for each in of:
                try:
                    found += (await api.find(resource, each)).items
                except GadgetError as error:
                    if resource is PODS and not (is_wide and namespace is not None) and each == namespace:
                        raise
                    self._progress.debug(f"{name}: {error}")
                    if is_wide and namespace is not None and resource.namespaced:
                        listed.is_wide, listed.why_not_wide = False, f"you may not list {name} in all namespaces"
                        return
                    listed.refused.add(name if each in (None, namespace) else f"{name} of {each}")
            listed.objects[name] = found

        await asyncio.gather(*map(find, KINDS))
        own = self._options.agent.namespace, second_namespace(self._options.agent.namespace)
        cluster = await asyncio.to_thread(Cluster, dict(listed.objects), None, listed.is_wide)
        await self._read_last_words(api, cluster.selected(selection, namespace, own), cluster)
        await asyncio.to_thread(self.take_cluster, cluster, namespace, own)

    async def _read_last_words(self, api: Api, selected: set[Name], cluster: Cluster) -> None:
        """Read the last words of selected containers that ended with an error, of each end once."""

        async def read(name: Name, container: str, previous: bool, end: Object) -> None:
            try:
                log = await _read_log(api, name, container, previous)
            except ForbiddenError as error:
                self._progress.debug(f"logs: {error}")
                self._may_not_read_logs = True
            except GadgetError as error:
                self._failed_logs[f"{'/'.join(name)}, container {container}"] = str(error)
            else:
                self._failed_logs.pop(f"{'/'.join(name)}, container {container}", None)
                said = self._last_words.setdefault(name, {})
                said.pop(container, None)
                if (words := last_words.last_words(log)) is not None:
                    said[container] = words | {"exit_code": end.get("exitCode")}

        async with asyncio.TaskGroup() as tasks:
            for name in sorted(selected):
                for container, run, previous, end in last_words.ended(cluster.raw_pods[name]):
                    if run in self._read_logs:
                        continue
                    if len(self._read_logs) >= _MOST_LOGS:
                        self._unread_logs.add((name, container))
                        continue
                    self._read_logs.add(run)
                    tasks.create_task(read(name, container, previous, end))
        cluster.last_words = self._last_words

    def _restarts(self, name: Name) -> int:
        return sum(int(each.get("restartCount") or 0) for each in self._statuses(name))

    def _statuses(self, name: Name) -> Iterator[Record]:
        status = (self.cluster.raw_pods.get(name) or {}).get("status") or {}
        for kind in ("initContainerStatuses", "containerStatuses"):
            yield from status.get(kind) or ()

    def _has_run(self, name: Name) -> bool:
        return self._runs(name) or any(each.get("restartCount") for each in self._statuses(name))

    def _runs(self, name: Name) -> bool:
        return any("running" in (each.get("state") or ()) for each in self._statuses(name))


async def _read_log(api: Api, name: Name, container: str, previous: bool) -> str:
    """Return the end of a log. What fails for a moment is tried once more. Raises GadgetError."""
    lines, size = last_words.LINES, last_words.BYTES
    try:
        return await api.log(name[1], name[0], container, previous=previous, lines=lines, size=size)
    except ForbiddenError:
        raise
    except GadgetError:
        await asyncio.sleep(_AGAIN_SECONDS)
        return await api.log(name[1], name[0], container, previous=previous, lines=lines, size=size)


def _list(found: object) -> list[object]:
    return found[:_MOST_RECORDS] if isinstance(found, list) else []


def _texts(found: object, place: int) -> list[str]:
    """Return the texts at this place of the lists of a recording."""
    lists = [each for each in _list(found) if isinstance(each, list) and len(each) > place]
    return [printable(str(each[place]), _LONGEST_REASON) for each in lists]


def next_start(statuses: Iterable[Record]) -> float | None:
    """Return when (seconds, wall time) the kubelet starts a container again that ended too often; None: none waits.

    The kubelet waits 10 s after the end of a container, and twice as long after each further one, up to 5 minutes.
    """
    for status in statuses:
        waiting = (status.get("state") or {}).get("waiting") or {}
        ended = wall_ns(((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt"))
        if waiting.get("reason") != "CrashLoopBackOff" or not ended:
            continue
        said = _BACK_OFF.search(str(waiting.get("message") or ""))
        minutes, seconds = (int(said[name] or 0) for name in ("minutes", "seconds")) if said else (0, 0)
        restarts = min(int(status.get("restartCount") or 1), 10)
        doubled = _FIRST_BACK_OFF * 2 ** max(0, restarts - 1)
        return ended / 1e9 + min(minutes * 60.0 + seconds or doubled, _LONGEST_BACK_OFF)
    return None
