"""Draws a flame graph as plain SVG shapes, for viewers that run no scripts: image viewers, Markdown pages, tickets.

In a browser, flame_graph.js redraws it and adds zooming. Both must agree on sizes and colors, or the graph
jumps when the script starts.
"""

import colorsys
import html
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO
from xml.sax.saxutils import escape, quoteattr

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.profiles import Paths, PathStep, ProfileSink, read_folded, step, unit_of
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.rows.amounts import bytes_text, duration_text
from kubectl_gadget.rows.rows import Rows

Node = list[Any]
"""A place or a call: title, kind, amount, the nodes below it, module, and for a comparison the difference."""

WIDTH = 1200
ROW, TOP, FOOT = 18, 68, 24
_CHARACTER = 7.25
_LEAST = 0.4
"""Narrower calls are not drawn."""
_HUES = {"user": (10, 45), "kernel": (195, 225), "unknown": (0, 0), "place": (90, 140)}
_TEXT = "#111"
_NO_CHARACTER = re.compile(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]")


def depth(root: Node) -> int:
    """The number of levels of calls. Not recursive: a stack may be deeper than Python's own."""
    deepest, waiting = 0, [(root, 1)]
    while waiting:
        node, level = waiting.pop()
        deepest = max(deepest, level)
        waiting += [(child, level + 1) for child in node[3]]
    return deepest


def height(root: list[object]) -> int:
    """Height of the whole graph, in pixels."""
    return TOP + depth(root) * ROW + FOOT


def headings(title: str, subtitle: str) -> str:
    """The two lines at the top."""
    lines = ((20, "title", title), (37, "subtitle", subtitle))
    return "".join(
        f'<text x="10" y="{y}" class="{name}" fill="{_TEXT}">{_text(text)}</text>' for y, name, text in lines if text
    )


def frames(root: Node, describe: Any) -> str:
    """All calls that are wide enough to be seen. `describe(node)` returns the tooltip of a call."""
    whole = root[2]
    scale = (WIDTH - 20) / whole if whole else 0.0
    drawn: list[str] = []
    waiting = [(root, 0, 0)]
    while waiting:
        node, start, level = waiting.pop()
        wide = node[2] * scale
        if wide < _LEAST:
            continue
        drawn.append(_call(node, 10 + start * scale, TOP + level * ROW, wide, describe(node)))
        for child in node[3]:
            waiting.append((child, start, level + 1))
            start += child[2]
    return "".join(drawn)


def _call(node: Node, x: float, y: int, wide: float, description: str) -> str:
    title, kind = node[0], node[1]
    box = f'<rect x="{x:.2f}" y="{y}" width="{wide:.2f}" height="{ROW - 1}" rx="1" fill="{_color(node)}"/>'
    room = int((wide - 6) / _CHARACTER)
    text = ""
    if room > 1:
        shown = title if len(title) <= room else title[: room - 1] + "…"
        text = f'<text x="{x + 3:.2f}" y="{y + ROW - 5}" fill="{_TEXT}">{_text(shown)}</text>'
    return f'<g class="call" data-kind={quoteattr(kind)}><title>{_text(description)}</title>{box}{text}</g>'


def _text(text: str) -> str:
    """Text for XML, which allows no control characters, lone surrogates, U+FFFE and U+FFFF."""
    return escape(_NO_CHARACTER.sub("\ufffd", text))


def _color(node: Node) -> str:
    """A call's color. The same function has the same color everywhere, in every graph."""
    title, kind, weight = node[0], node[1], node[2]
    if len(node) > 5:
        more = node[5]
        strength = min(1.0, abs(more) / (weight or 1))
        return _hsl(0 if more > 0 else 220, 0.8, (92 - 32 * strength) / 100)
    number = 0
    for character in title:
        number = (number * 31 + ord(character)) & 0xFFFFFFFF
    first, last = _HUES.get(kind, _HUES["unknown"])
    hue = first + number % 1000 / 1000 * (last - first)
    return _hsl(hue, 0.0 if kind == "unknown" else 0.75, (62 + number % 13) / 100)


def _hsl(hue: float, saturation: float, lightness: float) -> str:
    parts = colorsys.hls_to_rgb(hue / 360, lightness, saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


# A flame graph as one HTML or SVG file that a browser shows without network access.


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


def tree(paths: Paths, before: Mapping[str, int] | None = None) -> Node:
    """The tree of calls: [title, kind, weight, children, file] from the root on; children are sorted by name.

    With another recording, as returned by read_folded(), each node also has the difference to it at the end; the other
    recording is scaled to the length of this one.
    """
    root: Node = ["all", "place", 0, {}, ""]
    for path, weight in sorted(paths.items()):
        node = root
        node[2] += weight
        for call in path:
            node = node[3].setdefault((call.title, call.kind), [call.title, call.kind, 0, {}, call.module])
            node[2] += weight
    if before is not None:
        _compare(root, before)
    return _listed(root)


def _compare(root: Node, before: Mapping[str, int]) -> None:
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


def _listed(root: Node) -> Node:
    """Converts children to lists. Not recursive: a stack may be deeper than Python's own."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        node[3] = list(node[3].values())
        waiting += node[3]
    return root


def write(stream: TextIO, root: Node, title: str, subtitle: str, unit: str, svg: bool) -> None:
    """Writes the whole file."""
    content = {"title": title, "subtitle": subtitle, "unit": unit, "root": root}
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character, text in _SPECIAL.items():
        data = data.replace(character, text)
    # Lone surrogates are not characters and cannot be encoded.
    data = data.encode("utf-8", "replace").decode()
    wide, high = WIDTH, height(root)
    graph = (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="graph" width="{wide}" height="{high}" role="group"'
        ' font-family="monospace" font-size="12">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{_part('flame_graph.css')}</style>"
        '<rect class="back" width="100%" height="100%" fill="#fff"/>'
        f'<g id="headings">{headings(title, subtitle)}</g>'
        f'<g id="frames">{frames(root, partial(_describe, root[2], unit))}</g>'
        f'<script type="application/json" id="data">{data}</script>'
        f"<script><![CDATA[\n{_part('flame_graph.js')}]]></script></svg>\n"
    )
    if svg:
        stream.write(f'<?xml version="1.0" encoding="UTF-8"?>\n{graph}')
        return
    stream.write(
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
    )
    stream.write(
        f'<meta name="color-scheme" content="light dark"></head>\n<body><main>\n{graph}</main></body>\n</html>\n'
    )


def _describe(whole: int, unit: str, node: Node) -> str:
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
