"""Texts that containers choose, sent to a live page while a real browser shows it, and to the report that it saves."""

import json
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.page.live import LiveRun
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, Replay, RunOptions
from tests.behavior.test_change_report import HOSTILE as HOSTILE_CHANGE
from tests.diagnose.test_hostile import IMITATIONS
from tests.flows.browser import CHROMIUM, Page, empty_page
from tests.flows.serving import served
from tests.output.test_flame_graph import EVIL
from tests.page.made import HOSTILE, batch, opened, process
from tests.reports.sample import HOSTILE as HOSTILE_OF_JOBS

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

TEXTS = (
    *HOSTILE_OF_JOBS,
    *IMITATIONS,
    HOSTILE,
    HOSTILE_CHANGE,
    EVIL,
    "javascript:alert(1)",
    "<svg onload=alert(1)>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'>",
    '"><style>*{display:none}</style>',
    "${alert(1)}{{alert(1)}}@MODEL@",
    "__proto__",
    "constructor",
)
GADGETS = ("trace_process", "trace_open", "trace_dns", "trace_http", "trace_tcp")
_WATCH = """
window.refused = [];
addEventListener('securitypolicyviolation', event => top.refused.push(event.violatedDirective));
for (const name of ['alert', 'confirm', 'prompt', 'open'])
  window[name] = text => { top.refused.push(`${name} ${text}`); };
addEventListener('error', event => top.refused.push(event.message));
"""


def rows() -> Rows:
    """Each text as an argument, a path, a name of a process, in DNS and in HTTP, and as that of a pod."""
    now, made = time.time(), []
    for number, text in enumerate(TEXTS):
        clean = text.replace("\0", "").encode("utf-8", "replace").decode()
        comm = clean.encode()[:15]
        made += [
            batch("trace_process", [process("exec", 100 + number, 1, now, "/bin/sh", clean)], [clean]),
            batch("trace_process", [process("exit", 100 + number, 1, now, code=1)], [clean]),
            batch("trace_open", [opened(100 + number, now, clean, errno=13) | {"comm": comm}], [clean]),
            batch(
                "trace_dns",
                [{"timestamp": now, "pid": 1, "comm": comm, "name": clean, "latency": 1000, "rcode": 3}],
                [clean],
            ),
            batch(
                "trace_http",
                [
                    {
                        "timestamp": now,
                        "pid": 1,
                        "comm": comm,
                        "method": "GET",
                        "host": clean,
                        "target": clean,
                        "status": 503,
                    }
                    | {"latency": 2000}
                ],
                [clean],
            ),
        ]
    return Rows(made)


@pytest.fixture(scope="module", name="run")
def a_run() -> LiveRun:
    gadgets = tuple(GadgetRun(load_gadget(name)) for name in GADGETS)
    return LiveRun(RunOptions(gadgets, local=True), Replay((Path("none"),)), Progress(StringIO()))


@pytest.fixture(scope="module", name="tab")
def a_tab() -> Iterator[Page]:
    with empty_page() as tab:
        tab.ask("Page.enable")
        tab.ask("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
        yield tab


def check(tab: Page) -> None:
    """Nothing of a text became an element or ran, and all of them are shown."""
    tab.script("for (const one of document.querySelectorAll('main details')) one.open = true")
    assert tab.script("window.refused") == []
    assert "pwned" not in tab.script("document.title")
    assert tab.script("document.title") != "taken"
    strange = "main img, main script, main style, main svg[onload], main a, main [onerror], main [onload]"
    assert tab.script(f"[...document.querySelectorAll({json.dumps(strange)})].map(one => one.outerHTML)") == []
    frames = "[...document.querySelectorAll('iframe')].map(one => one.title)"
    assert set(tab.script(frames)) <= {"Map", "Profile"}
    said = tab.script("document.getElementById('files').innerText")
    assert "<script>alert(1)</script>" in said
    assert "<svg onload=alert(1)>" in said
    assert "__proto__" in said
    shown = tab.script("document.body.innerText")
    assert not {"\x1b", "\u202e", "\u2028"} & set(shown)


def test_texts_of_containers_stay_texts_on_a_live_page_and_in_what_it_saves(
    run: LiveRun, tab: Page, tmp_path: Path
) -> None:
    with served(run) as url:
        tab.open(url, "light")
        tab.wait("document.getElementById('live').textContent === 'live'")
        run.write(rows())
        tab.wait("document.getElementById('files')?.innerText.includes('__proto__')")
        for part in ("findings", "timeline", "processes", "files", "dns", "http", "rows"):
            tab.wait(f"document.getElementById({part!r})")
            tab.script(f"document.getElementById({part!r}).scrollIntoView()")
            tab.script("new Promise(done => setTimeout(done, 150))")
        check(tab)
    saved = run.saved("report")
    assert saved is not None
    (tmp_path / "saved.html").write_bytes(saved[0])
    tab.open((tmp_path / "saved.html").as_uri(), "light")
    tab.wait("document.documentElement.dataset.ready")
    check(tab)
