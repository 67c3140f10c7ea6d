"""The live page behind a proxy, below a path and under another name, in a real browser; and who is refused there."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.page.live import LiveRun
from kubectl_gadget.recording import layout
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, Replay, RunOptions
from tests.flows.browser import CHROMIUM, Page, empty_page
from tests.flows.serving import served
from tests.page.made import batch, opened
from tests.page.proxy import NAME, PATH, proxy

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@pytest.fixture(name="run")
def a_run(tmp_path: Path) -> LiveRun:
    recording = tmp_path / "run.kgr"
    recording.write_bytes(layout.file_header() + b"recorded")
    options = RunOptions((GadgetRun(load_gadget("trace_open")),), local=True)
    return LiveRun(options, Replay((recording,)), Progress(StringIO()))


@pytest.fixture(scope="module", name="tab")
def a_tab() -> Iterator[Page]:
    with empty_page() as tab:
        yield tab


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("strips", [True, False])
@pytest.mark.parametrize("keeps_host", [True, False])
def test_the_page_works_behind_a_proxy_that_was_named(run: LiveRun, tab: Page, strips: bool, keeps_host: bool) -> None:
    with served(run, hosts=(NAME,)) as url:
        own = urlsplit(url)
        assert own.port is not None
        with proxy(own.port, strips=strips, keeps_host=keeps_host) as port:
            run.write(Rows([batch("trace_open", [opened(10, time.time(), "/data/first")])]))
            tab.open(f"http://{NAME}:{port}{PATH}/?{own.query}", "light")
            tab.wait("document.getElementById('live').textContent === 'live'")
            tab.wait("document.getElementById('files')?.innerText.includes('/data/first')")
            # Changes come through the websocket.
            run.write(Rows([batch("trace_open", [opened(10, time.time(), "/data/later")])]))
            tab.wait("document.getElementById('files')?.innerText.includes('/data/later')")
            for name, text in (("report", "/data/later"), ("recording", "recorded")):
                saved = f"fetch(document.getElementById('save-{name}').href).then(answer => answer.text())"
                assert text in tab.script(saved)


def test_a_proxy_that_was_not_named_and_one_without_the_token_are_refused(run: LiveRun) -> None:
    with served(run) as url:
        own = urlsplit(url)
        assert own.port is not None
        with proxy(own.port, strips=True, keeps_host=True) as port:
            asked = {"Host": f"{NAME}:{port}"}
            assert status(f"http://127.0.0.1:{port}{PATH}/?{own.query}", **asked) == 403
            assert status(f"http://127.0.0.1:{port}{PATH}/?{own.query}", Host=f"127.0.0.1:{port}") == 200
    with served(run, hosts=(NAME,)) as url:
        own = urlsplit(url)
        assert own.port is not None
        with proxy(own.port, strips=True, keeps_host=True) as port:
            asked = {"Host": f"{NAME}:{port}"}
            assert status(f"http://127.0.0.1:{port}{PATH}/?{own.query}", **asked) == 200
            assert status(f"http://127.0.0.1:{port}{PATH}/?{own.query}x", **asked) == 403
            assert status(f"http://127.0.0.1:{port}{PATH}/", **asked) == 403


def test_a_page_of_another_name_hears_nothing_through_a_proxy(run: LiveRun, tab: Page) -> None:
    """The proxy answers to any name; the page below it does not, and neither do its websocket and files."""
    with served(run, hosts=(NAME,)) as url:
        own = urlsplit(url)
        assert own.port is not None
        with proxy(own.port, strips=True, keeps_host=False) as port:
            # Another site in the same browser, which knows the token: its own page is allowed, as it cannot be told.
            tab.open(f"http://evil.localhost:{port}{PATH}/?{own.query}", "light")
            opens = (
                f"new Promise(done => {{ const one = new WebSocket('ws://evil.localhost:{port}{PATH}/live?{own.query}');"
                "one.onopen = () => done('open'); one.onerror = () => done('refused'); })"
            )
            assert tab.script(opens) == "refused"
