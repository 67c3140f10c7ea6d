"""A flame graph as one HTML or SVG file that a browser shows without network access.

The file contains the graph as shapes (flame_drawing.py), for viewers that run no scripts, and the paths as JSON with a
script that draws them (flame_graph.js), with zoom and search. The trap: titles are names that containers choose, so
they are written only as escaped text, and as JSON without any characters that are special in HTML or XML.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.profiles import flame_drawing
from kubectl_gadget.output.profiles.folded import Paths, ProfileSink, read_folded, step
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.rows.columns.rounded_amounts import bytes_text, duration_text
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.tables.call_paths import PathStep, unit_of

_HERE = Path(__file__).parent
_SPECIAL = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
SUFFIXES = (".html", ".svg")


class FlameGraphSink(ProfileSink):
    """Writes the file at the end, in addition to the output of `other`. Raises UsageError if the file cannot be
    created.

    `selection` describes the selected containers. `clock` returns seconds, `now` the time of day.
    """

    def __init__(
        self,
        path: str,
        gadgets: Sequence[Gadget],
        other: Sink,
        diff: str = "",
        selection: str = "",
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(gadgets, "--flame-graph")
        self._selection = selection
        self._clock, self._now = clock, now
        self._started: float | None = None
        self._before = _read(diff) if diff else None
        if not path.endswith(SUFFIXES):
            raise UsageError(f"--flame-graph {path}: neither HTML nor SVG", "a file whose name ends in .html or .svg")
        folder = os.path.dirname(path) or "."
        if not os.access(folder, os.W_OK):
            raise UsageError(f"--flame-graph {path}: {folder} is not a writable directory")
        self._path = path
        self._other = other

    def start(self) -> None:
        self._started = self._clock()
        self._other.start()

    def write_block(self, rows: Rows) -> None:
        self._other.write_block(rows)
        super().write_block(rows)

    def flush(self) -> None:
        self._other.flush()

    def close(self) -> None:
        self._other.close()
        with open(self._path, "w", encoding="utf-8") as file:
            title = f"kubectl gadget {' '.join(self.gadget.command)}"
            root = tree(self.paths, self._before)
            unit = unit_of(self.gadget, self.gadget.totals.weight)
            write(file, root, title, self._subtitle(root[2], unit), unit, self._path.endswith(".svg"))

    def _subtitle(self, whole: int, unit: str) -> str:
        """`30.0s, 2970 samples (29.7s), pods app=cart, 2026-08-01 12:00 UTC`: duration, amount, selection, time."""
        parts = [] if self._started is None else [duration_text(round((self._clock() - self._started) * 1e9))]
        amount = _amount(whole, unit)
        counted = [name for name in self.gadget.totals.sums if unit_of(self.gadget, name) == "count"]
        if counted and unit != "count":
            place = self.gadget.totals.sums.index(counted[0])
            amount = f"{sum(sample.values[place] for sample in self.samples)} {counted[0]} ({amount})"
        elif counted:
            amount += f" {counted[0]}"
        return ", ".join([*parts, amount, *filter(None, [self._selection]), f"{self._now():%Y-%m-%d %H:%M} UTC"])


def tree(paths: Paths, before: Mapping[str, int] | None = None) -> list[Any]:
    """The tree of calls: [title, kind, weight, children, file] from the root on; children are sorted by name.

    With another recording, as returned by read_folded(), each node also has the difference to it at the end; the other
    recording is scaled to the length of this one.
    """
    root: list[Any] = ["all", "place", 0, {}, ""]
    for path, weight in sorted(paths.items()):
        node = root
        node[2] += weight
        for call in path:
            node = node[3].setdefault((call.title, call.kind), [call.title, call.kind, 0, {}, call.module])
            node[2] += weight
    if before is not None:
        _compare(root, before)
    return _listed(root)


def _compare(root: list[Any], before: Mapping[str, int]) -> None:
    sums: dict[str, int] = {}
    for path, weight in before.items():
        steps = path.split(";")
        for length in range(len(steps) + 1):
            part = ";".join(steps[:length])
            sums[part] = sums.get(part, 0) + weight
    whole = sums.get("", 0)
    waiting = [("", root)]
    while waiting:
        path, node = waiting.pop()
        node.append(node[2] - (sums.get(path, 0) * root[2] // whole if whole else 0))
        for child in node[3].values():
            name = step(PathStep(child[0], child[1]))
            waiting.append((f"{path};{name}" if path else name, child))


def _listed(root: list[Any]) -> list[Any]:
    """Converts children to lists. Not recursive: a stack may be deeper than Python's own."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        node[3] = list(node[3].values())
        waiting += node[3]
    return root


def write(stream: TextIO, root: list[Any], title: str, subtitle: str, unit: str, svg: bool) -> None:
    """Writes the whole file."""
    content = {"title": title, "subtitle": subtitle, "unit": unit, "root": root}
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character, text in _SPECIAL.items():
        data = data.replace(character, text)
    # Lone surrogates are not characters and cannot be encoded.
    data = data.encode("utf-8", "replace").decode()
    wide, high = flame_drawing.WIDTH, flame_drawing.height(root)
    graph = (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="graph" width="{wide}" height="{high}" role="img"'
        ' font-family="monospace" font-size="12">'
        f"<title>{escape(title)}</title>"
        f"<style>{_part('flame_graph.css')}</style>"
        '<rect class="back" width="100%" height="100%" fill="#fff"/>'
        f'<g id="headings">{flame_drawing.headings(title, subtitle)}</g>'
        f'<g id="frames">{flame_drawing.frames(root, partial(_describe, root[2], unit))}</g>'
        f'<script type="application/json" id="data">{data}</script>'
        f"<script><![CDATA[\n{_part('flame_graph.js')}]]></script></svg>\n"
    )
    if svg:
        stream.write(f'<?xml version="1.0" encoding="UTF-8"?>\n{graph}')
        return
    stream.write(f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>\n')
    stream.write(
        f'<meta name="color-scheme" content="light dark"></head>\n<body style="margin:0">\n{graph}</body>\n</html>\n'
    )


def _describe(whole: int, unit: str, node: list[Any]) -> str:
    """A call's description, as in the script: `heavy (/bin/work): 300.00ms, 60.0 %`."""
    title, weight, file = node[0], node[2], node[4]
    name = f"{title} ({file})" if file else title
    share = f"{100 * weight / whole:.1f} %" if whole else "0 %"
    return f"{name}: {_amount(weight, unit)}, {share}"


def _amount(weight: int, unit: str) -> str:
    return {"nanoseconds": duration_text, "bytes": bytes_text}.get(unit, str)(weight)


def _read(path: str) -> dict[str, int]:
    try:
        return read_folded(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--diff {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--diff {path}: {error}", "a file that -o folded has written") from None


def _part(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
