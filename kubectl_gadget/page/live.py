"""The page of a run that goes on (`kubectl gadget ui`, --ui, `flows --web`): its view model, and what changes in it.

The pipeline's thread hands rows over, and everything is summed up here; a browser gets the parts that changed, once a
second. In a flood, rows above a limit are only counted, so that the run itself does not wait for its page.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kubectl_gadget.diagnose import rules
from kubectl_gadget.diagnose.search import Search, lacking
from kubectl_gadget.flows.ends import GADGETS as CONNECTIONS
from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.page import LivePage
from kubectl_gadget.flows.rows import events_of
from kubectl_gadget.kube.addresses import KINDS, followed
from kubectl_gadget.output.sink import WholeSink
from kubectl_gadget.page import html
from kubectl_gadget.page.model import Limits, RunModel, safe
from kubectl_gadget.page.run import document, flow_transform, map_of, of_flows, shown_parameter
from kubectl_gadget.recording.reader import begin_ns
from kubectl_gadget.recording.writer import Rotation, is_first, one_file
from kubectl_gadget.rows.amounts import bytes_text
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import Replay, RunOptions
from kubectl_gadget.run.services import Surroundings
from kubectl_gadget.wire.policy_events import rfc3339

if TYPE_CHECKING:
    from kubectl_gadget.kube.informer import Follower, Objects

_FIRST_SECONDS = 60.0
"""of the timeline; it grows"""
_ROWS_A_SECOND = 20_000
"""Rows above it are counted, and not looked at."""
_SECONDS = 1.0
"""between two looks at the model"""
_LIMITS = Limits(series=60, programs=120, entries=200, rows=400, latest=True)
_KEPT_SECONDS = 60.0
"""for which findings know pods that were deleted"""
_LARGEST_SAVED = 512 << 20
"""of a recording that the page offers; a larger one is where --record put it"""
MOST_RECORDED = 256 << 20
"""bytes of the recording that goes away with the run: the page can save the last events, in full"""
_FILES = 8
RECORDED = Rotation(MOST_RECORDED // _FILES, None, _FILES)
MOST_EDGES = 2000
"""of the map: more cannot be drawn in time"""


class LiveRun(WholeSink):
    """Takes the rows of a run, and is the content of its page (server.py)."""

    def __init__(
        self, options: RunOptions, recorded: Replay, progress: Progress, flows: LivePage | None = None
    ) -> None:
        """`recorded`: where the run is being recorded. `flows`: the map, if the run itself makes flows of its rows
        and gives them to it; None: they are made here."""
        gadgets = [run.gadget for run in options.gadgets]
        now = time.time_ns()
        self._options = options
        self._recorded = recorded
        self._lock = threading.Lock()
        self._model = RunModel(gadgets, now, now + round(_FIRST_SECONDS * 1e9), _LIMITS)
        self._has_begun = options.replay is None
        self._book = AddressBook()
        self._flows = flows or LivePage(MOST_EDGES)
        makes_flows = flows is None and any(gadget.name in CONNECTIONS for gadget in gadgets)
        self._transform = flow_transform(self._book, self._flows) if makes_flows else None
        known = rules.load(rules.own_files())
        self._search = Search(known, options, progress)
        self._lacking = lacking(known, [gadget.name for gadget in gadgets])
        self._objects: Objects | None = None
        """of the API: the last ones, and those that the search has taken"""
        self._named: Objects | None = None
        self._name_at = 0.0
        self._run: Surroundings | None = None
        self._second, self._in_second, self._thinned = 0, 0, 0
        self._looked = 0.0
        self._sent: dict[str, str] = {}
        self._oldest: tuple[Path | None, int | None] = None, None
        """the first file of the recording that is left, and when it begins"""

    @property
    def followers(self) -> "tuple[Follower, ...]":
        """Return what tells the map and the findings the names of addresses."""
        from kubectl_gadget.kube.informer import Follower  # the API's client, which runs without a cluster do not need

        missing = "some addresses on the page have no names"
        of_findings = Follower(
            KINDS, lambda found: partial(setattr, self, "_objects", found), 0.0, _KEPT_SECONDS, missing=missing
        )
        if self._transform is None:
            return (of_findings,)
        return of_findings, followed(partial(setattr, self._book, "cluster"), 0.0, missing)

    # Rows, from the pipeline's thread.

    def write(self, rows: Rows) -> None:
        with self._lock:
            if (wanted := self._wanted(rows)) is not None:
                self._model.write(wanted)
                self._search.take(wanted)
                if self._transform is not None and len(own := wanted.matching(of_flows)):
                    self._flows.add_all(self._transform.apply(own).collect(events_of))

    def write_block(self, rows: Rows) -> None:
        with self._lock:
            self._model.write_block(rows)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        with self._lock:
            self._model.gap(node, seconds, until_ns)

    def _wanted(self, rows: Rows) -> Rows | None:
        """Return the rows that are looked at."""
        if not len(rows):
            return None
        if not self._has_begun:  # a replay: its first rows say when it was
            self._has_begun = True
            self._model.began_ns = min(int(np.min(part.wall_ns())) for part in rows.parts if len(part))
            self._model.latest_ns = self._model.began_ns
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        room = max(0, _ROWS_A_SECOND - self._in_second)
        self._in_second += len(rows)
        if self._options.replay is None and len(rows) > room:
            self._thinned += len(rows) - room
            return rows.head(room) if room else None
        return rows

    # The content, for the server.

    def begin(self, run: Surroundings) -> None:
        """See Content."""
        self._run = run

    def document(self) -> tuple[str, str]:
        """See Content. Each script and style has its hash in the policy."""
        model, first = self._document(), self._options.ui.first if self._options.ui else ""
        return html.render(model, is_live=True, first=first), html.policy(model, is_live=True)

    def all(self) -> str:
        """See Content."""
        return json.dumps({"model": self._document(), "flows": safe(self._flows.all())}, ensure_ascii=False)

    def updates(self) -> str | None:
        """See Content."""
        flows = self._flows.updates()
        changed: dict[str, object] = {}
        if time.monotonic() - self._looked >= _SECONDS:
            for name, part in self._document().items():
                text = json.dumps(part, ensure_ascii=False)
                if self._sent.get(name) != text:
                    self._sent[name] = text
                    changed[name] = part
            self._looked = time.monotonic()  # so that a large model is looked at less often
        if not changed and flows is None:
            return None
        return json.dumps({"model": changed, "flows": safe(flows)}, ensure_ascii=False)

    def saved(self, name: str) -> tuple[bytes, str] | None:
        """See Content."""
        if name == "report":
            return html.render(self._document(is_whole=True)).encode("utf-8", "replace"), "report.html"
        if name == "recording" and (files := self._files()):
            return one_file(files), "run.kgr"
        return None

    def _files(self) -> list[Path]:
        """Return what was recorded so far; none if it is elsewhere, or too large to be sent."""
        (file, *_) = self._recorded.files
        if self._options.replay is not None or not isinstance(file, Path):
            return []
        found = [file] if file.is_file() else sorted(file.parent.glob(f"{file.stem}-*{file.suffix}"))
        return found if sum(map(_size, found)) <= _LARGEST_SAVED else []

    def _document(self, is_whole: bool = False) -> dict[str, Any]:
        """Return the view model. The page gets flows in messages of their own; a file has them within."""
        covered = self._run.covered() if self._run else None
        waits = starting(covered, self._run.phases()) if self._run and covered else ""
        files = self._files()
        self._take_names()
        with self._lock:
            now = time.time_ns()
            if self._options.replay is None:
                self._model.grow(now)
            else:
                self._model.grow(self._model.latest_ns)
            # As a replay of the recording says it: the same rows give the same findings.
            self._search.began_ns = covered.since_ns if covered else self._model.began_ns
            without = [f"this run has no events of {', '.join(self._lacking)}"] if self._lacking else []
            found = self._search.report(covered or Coverage(complete_ns=1), without)
            said = replace(found, unseen=found.unseen if covered else tuple(without))
            made = document(said, found.coverage, map_of(self._flows) if is_whole else None, self._model)
            rows, counts = self._model.rows, self._model.counts()
        length = covered.seconds if covered else (self._model.latest_ns - self._model.began_ns) / 1e9
        made["seconds"] = round(length, 3)
        if waits:
            made["verdict"] |= {"status": "inconclusive", "answer": waits}
        made["verdict"]["not_seen"] = [*self._missing(files), *made["verdict"]["not_seen"]]
        made["starting"], made["has_recording"] = waits, bool(files)
        made["run"] = {
            "files": [] if self._options.recorded_in is None else [str(self._options.recorded_in)],
            "command": ["kubectl", "gadget", *self._words()],
            "recorded_by": [],
            "selection": [self._options.selection.described(self._options.local)],
            "filters": [self._options.filter] if self._options.filter else [],
            "rows": rows + self._thinned,
            "gadgets": [
                {
                    "command": " ".join(run.gadget.command),
                    "kind": run.gadget.event,
                    "rows": counts.get(run.gadget.event, 0),
                    "parameters": {name: shown_parameter(value) for name, value in run.parameters.items()},
                }
                for run in self._options.gadgets
            ],
            "recordings": [],
        }
        return made

    def _take_names(self) -> None:
        """Tell the search the names of addresses. Those of a large cluster take seconds, so they are not told often."""
        objects, began = self._objects, time.monotonic()
        if objects is None or objects is self._named or began < self._name_at:
            return
        self._search.take_names(objects)
        self._named = objects
        self._name_at = time.monotonic() + 20 * (time.monotonic() - began)

    def _missing(self, files: Sequence[Path]) -> Iterator[str]:
        """Yield what the page, or what it saves, does not have."""
        if self._thinned:
            yield f"{self._thinned:,} rows of floods were only counted here; the recording has them"
        if files and (first := files[0]) not in self._recorded.files and not is_first(first):
            if first != self._oldest[0]:
                self._oldest = first, begin_ns(first)
            if since := self._oldest[1]:
                yield (
                    f"the recording begins at {rfc3339(since)[11:19]} UTC, since it keeps the last "
                    f"{bytes_text(MOST_RECORDED)}: what was before is in the sums of this page only (--record FILE)"
                )

    def _words(self) -> Sequence[str]:
        commands = [run.gadget.command for run in self._options.gadgets]
        words = self._options.typed or self._options.command
        return words or (*commands[0][:-1], "+".join(command[-1] for command in commands))


def starting(covered: Coverage, phases: Mapping[str, str]) -> str:
    """Return how far the start of a run is, in words; empty: it has begun."""
    if covered.complete_ns:
        return ""
    known = len(covered.traced) + len(phases)
    doing = ", ".join(sorted(set(phases.values())))
    return f"starting agents {len(covered.traced)}/{known}{f': {doing}' if doing else ''}" if known else "finding nodes"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # another one has just replaced it
        return 0
