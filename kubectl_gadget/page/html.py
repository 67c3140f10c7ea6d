"""Writes the page: one HTML file with the model in it, which opens without network.

Texts in the model are of programs in containers, so nothing of it becomes markup: the model is JSON in a script element
that is not run, escaped so that it cannot end that element, and the page sets text only. Should a text get through all
the same, the page's own policy runs only the scripts whose hashes it has.
"""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from kubectl_gadget.output.flame_graph import write as write_flame_graph
from kubectl_gadget.rows.amounts import bytes_text, duration_text

_SPECIAL = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_CDATA = re.compile(r"\A<!\[CDATA\[|\]\]>\Z")


def render(model: Mapping[str, Any], is_live: bool = False, first: str = "") -> str:
    """Return the whole file. `is_live`: the page of a run that goes on, which follows it. `first`: the part that comes
    first, in full height."""
    style, chart, script, frames = _parts(model, is_live)
    profile = model.get("profile")
    # The graph has the calls already.
    shown = {**model, "profile": {**profile, "root": None} if profile else None}
    parts = {
        "TITLE": html.escape(_title(model)),
        "POLICY": policy(model, is_live),
        "LIVE": " data-live" * is_live + (f' data-first="{html.escape(first)}"' if first else ""),
        "STYLE": style,
        "MODEL": embedded(shown),
        "FRAMES": embedded(frames),
        "CHART": chart,
        "SCRIPT": script,
    }
    text = files("kubectl_gadget.page").joinpath("page.html").read_text()
    return re.sub(r"@([A-Z]+)@", lambda found: parts[found[1]], text)


def policy(model: Mapping[str, object], is_live: bool = False) -> str:
    """Return the page's policy (CSP): only its own scripts and styles, by their hashes."""
    style, chart, script, frames = _parts(model, is_live)
    return _policy([style], [chart, script], frames.values()) + ("; connect-src 'self'" if is_live else "")


def _parts(model: Mapping[str, Any], is_live: bool) -> tuple[str, str, str, dict[str, str]]:
    own, frames = files("kubectl_gadget.page"), {}
    style = own.joinpath("uplot/uPlot.min.css").read_text() + own.joinpath("page.css").read_text()
    chart, script = own.joinpath("uplot/uPlot.iife.min.js").read_text(), own.joinpath("page.js").read_text()
    if model.get("flows") or is_live:
        frames["map"] = files("kubectl_gadget.flows").joinpath("page.html").read_text()
    if model.get("profile"):
        frames["flames"] = _flames(model["profile"])
    return style, chart, script, frames


def embedded(value: object) -> str:
    """Return JSON that cannot end the script element in which it stands."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character, escaped in _SPECIAL.items():
        text = text.replace(character, escaped)
    # A page may go to the log of a job, where `##[` begins a command.
    return text.replace("##", "#\\u0023").encode("utf-8", "replace").decode()


def _title(model: Mapping[str, Any]) -> str:
    return f"{model['verdict']['answer']} · kubectl gadget"


def _flames(profile: Mapping[str, Any]) -> str:
    root, unit = profile["root"], profile["unit"]
    amount = {"nanoseconds": duration_text, "bytes": bytes_text}.get(unit, "{:,}".format)(root[2])
    made = io.StringIO()
    write_flame_graph(made, root, f"kubectl gadget {profile['title']}", f"{amount} in all", unit, svg=False)
    return made.getvalue()


def _policy(styles: Iterable[str], scripts: Iterable[str], frames: Iterable[str]) -> str:
    styles, scripts = list(styles), list(scripts)
    for frame in frames:
        for kind, text in _INLINE.findall(frame):
            (scripts if kind == "script" else styles).append(_CDATA.sub("", text))
    sources = [" ".join(f"'sha256-{_hash(text)}'" for text in dict.fromkeys(texts)) for texts in (scripts, styles)]
    return f"default-src 'none'; script-src {sources[0]}; style-src {sources[1]}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
