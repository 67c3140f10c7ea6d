"""Draws a flame graph as plain SVG shapes, for viewers that run no scripts: image viewers, Markdown pages, tickets.

In a browser, flame_graph.js redraws it and adds zooming. The trap: both must agree on sizes and colors, or the graph
jumps when the script starts.
"""

import colorsys
import re
from typing import Any
from xml.sax.saxutils import escape, quoteattr

WIDTH = 1200
ROW, TOP, FOOT = 18, 68, 24
_CHARACTER = 7.25
_LEAST = 0.4
"""Narrower calls are not drawn."""
_HUES = {"user": (10, 45), "kernel": (195, 225), "unknown": (0, 0), "place": (90, 140)}
_TEXT = "#111"
_NO_CHARACTER = re.compile(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]")


def depth(root: list[Any]) -> int:
    """The number of levels of calls. Not recursive: a stack may be deeper than Python's own."""
    deepest, waiting = 0, [(root, 1)]
    while waiting:
        node, level = waiting.pop()
        deepest = max(deepest, level)
        waiting += [(child, level + 1) for child in node[3]]
    return deepest


def height(root: list[Any]) -> int:
    """Height of the whole graph, in pixels."""
    return TOP + depth(root) * ROW + FOOT


def headings(title: str, subtitle: str) -> str:
    """The two lines at the top."""
    lines = ((20, "title", title), (37, "subtitle", subtitle))
    return "".join(
        f'<text x="10" y="{y}" class="{name}" fill="{_TEXT}">{_text(text)}</text>' for y, name, text in lines if text
    )


def frames(root: list[Any], describe: Any) -> str:
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


def _call(node: list[Any], x: float, y: int, wide: float, description: str) -> str:
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


def _color(node: list[Any]) -> str:
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
