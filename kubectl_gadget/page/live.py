"""The page of a run that goes on (`kubectl gadget ui`, --ui): its view model, and what changes in it.

The pipeline's thread hands rows over, and everything is summed up here; a browser gets the parts that changed, once a
second. In a flood, rows above a limit are only counted, so that the run itself does not wait for its page.
"""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kubectl_gadget.diagnose import rules
from kubectl_gadget.diagnose.search import Search
from kubectl_gadget.flows.ends import GADGETS as CONNECTIONS
from kubectl_gadget.flows.page import starting
from kubectl_gadget.output.sink import WholeSink
from kubectl_gadget.page import html
from kubectl_gadget.page.model import Limits, RunModel
from kubectl_gadget.page.run import FlowRows, document
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import Replay, RunOptions
from kubectl_gadget.run.services import Surroundings

_FIRST_SECONDS = 60.0
"""of the timeline; it grows"""
_ROWS_A_SECOND = 20_000
"""Rows above it are counted, and not looked at."""
_SECONDS = 1.0
"""between two looks at the model"""
_LIMITS = Limits(series=60, programs=120, entries=200, rows=400, latest=True)
_LARGEST_RECORDING = 1 << 30


class LiveRun(WholeSink):
    """Takes the rows of a run, and is the content of its page (flows/page.py)."""

    def __init__(self, options: RunOptions, recorded: Replay, progress: Progress) -> None:
        """`recorded`: the file to which the run is recorded."""
        gadgets = [run.gadget for run in options.gadgets]
        now = time.time_ns()
        self._options = options
        self._recorded = recorded
        self._lock = threading.Lock()
        self._model = RunModel(gadgets, now, now + round(_FIRST_SECONDS * 1e9), _LIMITS)
        self._has_begun = options.replay is None
        self._flows = FlowRows(self._model, any(gadget.name in CONNECTIONS for gadget in gadgets))
        self._search = Search(rules.load(rules.own_files()), options, progress)
        self._run: Surroundings | None = None
        self._second, self._in_second, self._thinned = 0, 0, 0
        self._looked = 0.0
        self._sent: dict[str, str] = {}

    # Rows, from the pipeline's thread.

    def write(self, rows: Rows) -> None:
        with self._lock:
            if (wanted := self._wanted(rows)) is not None:
                self._flows.write(wanted)
                self._search.take(wanted)

    def write_block(self, rows: Rows) -> None:
        with self._lock:
            self._flows.write_block(rows)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        with self._lock:
            self._flows.gap(node, seconds, until_ns)

    def _wanted(self, rows: Rows) -> Rows | None:
        """Return the rows that are looked at."""
        if not len(rows):
            return None
        if not self._has_begun:  # a replay: its first rows say when it was
            self._has_begun = True
            self._model.began_ns = min(int(np.min(part.wall_ns())) for part in rows.parts if len(part))
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

    def document(self, nonce: str) -> tuple[str, str]:
        """See Content. Each script and style has its hash, so the nonce is not needed."""
        model = self._document()
        return html.render(model, is_live=True), html.policy(model, is_live=True)

    def all(self) -> str:
        """See Content."""
        with self._lock:
            flows = json.loads(self._flows.page.all())
        return json.dumps({"model": self._document(), "flows": flows, "whole": True}, ensure_ascii=False)

    def updates(self) -> str | None:
        """See Content."""
        with self._lock:
            flows = self._flows.page.updates()
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
        return json.dumps({"model": changed, "flows": flows and json.loads(flows)}, ensure_ascii=False)

    def saved(self, path: str) -> tuple[bytes, str] | None:
        """See Content."""
        if path == "/report":
            return html.render(self._document(is_whole=True)).encode("utf-8", "replace"), "report.html"
        (file, *_) = self._recorded.files
        if path == "/recording" and isinstance(file, Path) and file.is_file():
            with file.open("rb") as opened:
                return opened.read(_LARGEST_RECORDING), "run.kgr"
        return None

    def _document(self, is_whole: bool = False) -> dict[str, object]:
        """Return the view model. The page gets flows in messages of their own; a file has them within."""
        covered = self._run.covered() if self._run else None
        waits = starting(covered, self._run.phases()) if self._run and covered else ""
        with self._lock:
            now = time.time_ns()
            if self._options.replay is None:
                self._model.grow(now)
            else:
                self._model.grow(self._model.latest_ns)
            found = self._search.report(covered or Coverage(complete_ns=1))
            made = document(
                replace(found, unseen=found.unseen if covered else ()), found.coverage, self._flows, self._model
            )
            rows, counts = self._model.rows, self._model.counts()
        if covered:
            made["seconds"] = round(covered.seconds, 3)
        if not is_whole:
            made["flows"] = None
        if waits:
            made["verdict"] |= {"status": "inconclusive", "answer": waits}
        if self._thinned:
            text = f"{self._thinned:,} rows of floods were only counted here; the recording has them"
            made["verdict"]["not_seen"] = [text, *made["verdict"]["not_seen"]]
        made["run"] = {
            "files": [],
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
                    "parameters": {name: str(value) for name, value in run.parameters.items()},
                }
                for run in self._options.gadgets
            ],
            "recordings": [],
        }
        return made

    def _words(self) -> Sequence[str]:
        commands = [run.gadget.command for run in self._options.gadgets]
        return self._options.command or (*commands[0][:-1], "+".join(command[-1] for command in commands))
