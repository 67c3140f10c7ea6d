"""The page of a run that goes on, in a real browser: what it shows as rows come, and what it saves."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.page import live
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.writer import RecordingWriter, Rotation
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, Replay, RunOptions
from kubectl_gadget.wire.frames import FrameType
from kubectl_gadget.wire.policy_events import rfc3339
from tests.flows.browser import CHROMIUM, Page, barriers, empty_page
from tests.flows.serving import served
from tests.page.made import HOSTILE, SECOND, WALL, batch, opened, process

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


def opens(number: int, path: str = "/data/file") -> Rows:
    """Rows of now, as if a node whose clock runs since 1970 had sent them."""
    return Rows([batch("trace_open", [opened(10, time.time(), f"{path}{each}") for each in range(number)])])


@pytest.fixture(scope="module", name="run")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> live.LiveRun:
    recording = tmp_path_factory.mktemp("live") / "run.kgr"
    recording.write_bytes(layout.file_header() + b"recorded")
    gadgets = tuple(GadgetRun(load_gadget(name)) for name in ("trace_open", "trace_process"))
    return live.LiveRun(RunOptions(gadgets, local=True), Replay((recording,)), Progress(StringIO()))


@pytest.fixture(scope="module", name="url")
def a_url(run: live.LiveRun) -> Iterator[str]:
    with served(run) as url:
        yield url


@pytest.fixture(scope="module", name="tab")
def a_tab(url: str) -> Iterator[Page]:
    with empty_page() as tab:
        tab.open(url, "light")
        tab.wait("document.getElementById('live').textContent === 'live'")
        yield tab


def test_rows_appear_as_they_come_and_what_is_chosen_stays(run: live.LiveRun, tab: Page) -> None:
    run.write(Rows([batch("trace_process", [process("exec", 10, 1, time.time(), "/bin/cart", HOSTILE)])]))
    run.write(opens(20))
    tab.wait("document.querySelectorAll('#files tbody tr').length === 20")
    tab.wait("document.getElementById('processes')?.innerText.includes('/bin/cart')")
    tab.script("document.querySelector('#processes details details').firstChild.click()")
    before = tab.script("document.querySelector('#processes details details').open")
    run.write(opens(20, "/more/"))
    tab.wait("document.querySelectorAll('#files tbody tr').length === 40")
    tab.wait("document.getElementById('timeline')?.innerText.includes('open 40')")
    assert tab.script("document.querySelector('#processes details details').open") == before
    assert tab.script("document.querySelectorAll('main img').length") == 0


def test_nothing_hinders_people_who_cannot_see_or_point(tab: Page) -> None:
    assert barriers(tab) == []


def test_a_paused_page_does_not_change_and_then_catches_up(run: live.LiveRun, tab: Page) -> None:
    tab.press("p")
    assert tab.script("document.getElementById('pause').textContent") == "go on"
    known = tab.script("document.querySelectorAll('#files tbody tr').length")
    run.write(opens(5, "/late/"))
    tab.wait("window.performance.now() > 0")
    tab.script("new Promise(done => setTimeout(done, 1500))")
    assert tab.script("document.querySelectorAll('#files tbody tr').length") == known
    tab.press("p")
    tab.wait(f"document.querySelectorAll('#files tbody tr').length === {known + 5}")


def test_a_flood_is_counted_and_said(run: live.LiveRun, tab: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_ROWS_A_SECOND", 10)
    run.write(opens(500, "/flood/"))
    tab.wait("document.getElementById('verdict').innerText.includes('rows of floods were only counted')")


def test_a_report_and_the_recording_are_saved_with_the_token_only(url: str, tab: Page) -> None:
    assert tab.script("document.querySelectorAll('header a[download]:not([hidden])').length") == 2
    at = url.replace("/?", "/report?")
    with urllib.request.urlopen(at) as answer:
        text = answer.read().decode()
    assert "/data/file1" in text
    assert '<html lang="en">' in text
    with urllib.request.urlopen(url.replace("/?", "/recording?")) as answer:
        assert answer.read() == layout.file_header() + b"recorded"
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(at + "x")


def test_the_recording_keeps_the_last_events_and_what_was_before_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = tmp_path / "run.kgr", RunOptions((GadgetRun(load_gadget("trace_open")),), local=True)
    writer = RecordingWriter(path, meta_of(options), print, Rotation(1, None, 2))
    monkeypatch.setattr("kubectl_gadget.recording.writer.FULL_SEGMENT_BYTES", 1)
    for number in range(6):
        writer.step(number * SECOND, WALL + number * SECOND, [RecordedFrame("n", FrameType.EVENTS, bytes(100))])
    writer.close({"seconds": 6.0})
    run = live.LiveRun(options, Replay((path,)), Progress(StringIO()))
    saved = run.saved("recording")
    assert saved is not None
    (tmp_path / "saved.kgr").write_bytes(saved[0])
    with RecordingReader(tmp_path / "saved.kgr") as reader:
        steps = list(reader.steps())
        assert reader.meta["gadgets"][0]["name"] == "trace_open"
        begins = next(reader.segments()).first_ns
        assert (reader.damage.segments, reader.damage.missing, reader.damage.is_cut) == (0, 0, False)
    assert steps[-1].wall_ns == WALL + 5 * SECOND
    assert begins > WALL
    said = " ".join(json.loads(run.all())["model"]["verdict"]["not_seen"])
    assert f"the recording begins at {rfc3339(begins)[11:19]} UTC, since it keeps the last 256MiB" in said
    whole = run.saved("report")
    assert whole is not None
    assert b"the recording begins at" in whole[0]


def test_the_timeline_grows_and_keeps_its_counts(tmp_path: Path) -> None:
    gadgets = (GadgetRun(load_gadget("trace_open")),)
    run = live.LiveRun(RunOptions(gadgets, local=True), Replay((tmp_path / "none",)), Progress(StringIO()))
    run.write(opens(7))
    run.updates()
    run._model.grow(time.time_ns() + 3600 * 10**9)
    (series,) = run._model.document()["timeline"]["series"]
    assert (series["rows"], sum(series["counts"])) == (7, 7)
    assert run._model.step_ns * run._model.bins > 3600 * 10**9


def test_the_timeline_of_a_replay_is_of_the_recordings_time(tmp_path: Path) -> None:
    options = RunOptions((GadgetRun(load_gadget("trace_open")),), local=True, replay=Replay((tmp_path / "a.kgr",)))
    run = live.LiveRun(options, Replay((tmp_path / "a.kgr",)), Progress(StringIO()))
    run.write(Rows([batch("trace_open", [opened(10, 1000 + second, "/data") for second in range(16)])]))
    model = json.loads(run.all())["model"]
    assert model["seconds"] == 15
    assert model["timeline"]["step_ms"] * model["timeline"]["bins"] <= 60_000
    assert not model["has_recording"]
