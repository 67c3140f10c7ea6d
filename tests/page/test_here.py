"""Pages of real runs on this machine: their numbers are those of what was done while they ran."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.browser import CHROMIUM, Page, empty_page
from tests.gadget_run import GADGET, GadgetRun

TIMES = 31
HERE = ("--local", "--host", "--ring-size", "32Mi")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def work(path: Path) -> None:
    """A program that opens a file of its own 31 times, and one that is not there, and then fails."""
    path.write_text("x")
    text = (
        f"for _ in range({TIMES}): open({str(path)!r}).close()\n"
        f"try: open({str(path) + '-none'!r})\nexcept OSError: raise SystemExit(3)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", text], check=False)
    assert done.returncode == 3


def model_of(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.read_text().partition('id="model">')[2].partition("</script>")[0])
    return found


@pytest.fixture(scope="module", name="tab")
def a_tab() -> Iterator[Page]:
    with empty_page() as tab:
        yield tab


@pytest.mark.bpf
@in_browser
def test_a_run_makes_a_report_of_what_was_done(tmp_path: Path, tab: Page) -> None:
    page, file = tmp_path / "run.html", tmp_path / "opened-here"
    words = ("trace", "open+process", *HERE, "-o", "json", "--report", f"html={page}")
    with GadgetRun(tmp_path, *words) as run:
        work(file)
        run.until(lambda: f"{file}-none" in run.out.read_text(), "the last open")
        assert run.stop() == 130
        assert f"{page}: " in run.said()
    model = model_of(page)
    (mine,) = [one for one in model["processes"]["list"] if str(file) in one["command"]]
    assert mine["end"] == "exit 3"
    assert mine["failed"] >= 1
    # workload, comm, did, path, error, events, failed: the program opened it, and this test had made it before.
    files = {(row[2], row[3]): row for row in model["files"]["rows"]}
    assert files["open", str(file)][4:7] == ["", TIMES, 0]
    assert files["open", f"{file}-none"][4:7] == ["ENOENT", 1, 1]
    shown = [line for line in run.out.read_text().splitlines() if line.startswith("{")]
    assert model["run"]["rows"] == len(shown)
    assert model["run"]["command"][2:4] == ["trace", "open+process"]
    tab.open(page.as_uri(), "light")
    tab.wait("document.documentElement.dataset.ready")
    assert f"{model['run']['rows']:,} events" in tab.script("document.getElementById('timeline').innerText")
    assert "exit 3" in tab.script("document.getElementById('processes').innerText")


@pytest.mark.bpf
@in_browser
@pytest.mark.parametrize("words", [("ui", "--local"), ("trace", "open+process", "--ui", "--local")])
def test_a_run_is_shown_live_and_its_url_is_printed(tmp_path: Path, tab: Page, words: tuple[str, ...]) -> None:
    file, opened = tmp_path / "opened-live", tmp_path / "browser"
    browser = {"BROWSER": f"sh -c 'echo %s > {opened}'", "DISPLAY": ":99"}
    with GadgetRun(tmp_path, *words, "--host", "--browser", "none", environment=browser) as run:
        (url,) = [line.split()[-1] for line in run.said().splitlines() if "http://127.0.0.1:" in line]
        assert "/?token=" in url
        tab.open(url, "light")
        tab.wait("document.getElementById('live').textContent === 'live'")
        named = f"kubectl gadget {' '.join(words).partition(' --')[0]}"
        tab.wait(f"document.getElementById('verdict')?.innerText.includes({named!r})")
        tab.script(
            "(field => { field.value = 'opened-live'; field.dispatchEvent(new Event('input')); })"
            "(document.getElementById('filter'))"
        )
        work(file)
        tab.wait("document.getElementById('processes')?.innerText.includes('exit 3')")
        tab.script("document.getElementById('rows').scrollIntoView()")
        tab.wait("document.getElementById('rows')?.innerText.includes('opened-live')")
        assert run.stop() == 130
        tab.wait("document.getElementById('live').textContent === 'the run has ended'")
    assert not opened.exists()


@pytest.mark.compiled
@pytest.mark.usefixtures("catalogue_built")
def test_a_report_is_opened_in_the_browser_that_there_is(tmp_path: Path) -> None:
    from tests.page.made import recording

    file, opened = recording(tmp_path / "shop.kgr"), tmp_path / "browser"
    script = tmp_path / "open"
    script.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    script.chmod(0o755)

    def run(**environment: str) -> str:
        known = {
            name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
        }
        words = [*GADGET, "report", str(file), "-o", str(tmp_path / "shop.html"), "--open"]
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120, env=known | environment)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert f"no browser was found; open {tmp_path / 'shop.html'} in one" in run()
    assert not opened.exists()
    assert "no browser" not in run(BROWSER=str(script))
    assert opened.read_text().strip() == (tmp_path / "shop.html").as_uri()
