"""Runs the gadgets of a command that prints their rows: on nodes, or from recordings."""

import gc
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from kubectl_gadget.cli.printing import say
from kubectl_gadget.output.terminal import require_writable
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.request import ask_early
from kubectl_gadget.run.run_options import LiveView, Replay, RunOptions

if TYPE_CHECKING:
    from kubectl_gadget.flows.page import LivePage
    from kubectl_gadget.page.run import Said

# Megabytes of frames and columns are allocated and freed in two threads, each with a heap of its own in glibc, whose
# holes are too small for the next ones. A client that could not keep up grew by 1.3 MiB/s and stood at 540 MiB after
# 200 s; with these settings it stood at 360 MiB. A thread gets a heap of its own at its first allocation,
# so memory is set up before threads start.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From <malloc.h>; other C libraries do not have mallopt()."""


def give_back_what_is_freed() -> None:
    """Gives large blocks mappings of their own, and all threads one heap. Does nothing where unsupported."""
    import ctypes  # takes 4 ms, for which an agent of this machine does not wait

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 16 << 20)


def run(options: RunOptions, stdout: TextIO, stderr: TextIO, flows: "LivePage | None" = None) -> int:
    """Runs gadgets until they are stopped, and returns the exit code. `flows`: the map of a live page, if the run makes
    flows of its rows.

    All of the user's input is checked before any agent is asked for anything. Raises GadgetError.
    """
    if options.page is not None or options.ui:
        with recorded_for_page(options) as (own, recorded):
            live = _live(own, own.ui, recorded, stderr, flows) if own.ui else own
            code = run(replace(live, page=None, ui=None), stdout, stderr)
            if options.page is not None:
                write_page(recorded, options.page, options)
            return code
    if options.replay is not None:
        give_back_what_is_freed()
        from kubectl_gadget.recording.replay_run import replay

        return replay(options, stdout, stderr)
    require_writable(stdout)
    ask_early(options)  # so a local agent loads programs while this process imports the rest, which takes 0.1 s
    give_back_what_is_freed()
    work = _run(options, stdout, Progress(stderr, options.quiet, options.verbose))
    if options.local:
        import asyncio

        return asyncio.run(work)
    from kubectl_gadget.kube import read_turns

    return read_turns.run(work)


async def _run(options: RunOptions, stdout: TextIO, progress: Progress) -> int:
    from kubectl_gadget.run import live_run

    gc.freeze()  # looking for garbage in what was imported would take 10 ms, before the nodes are attached
    async with live_run.begin(options, progress, stdout) as run:
        return await run.main(sys.stdin)


def _live(
    options: RunOptions, view: LiveView, recorded: Replay, stderr: TextIO, flows: "LivePage | None"
) -> RunOptions:
    """Return the options of a run that is also shown as a page while it goes on."""
    from kubectl_gadget.page.live import LiveRun
    from kubectl_gadget.page.server import PageServer

    def opened(url: str) -> None:
        say(f"open {url}")
        if view.browser:
            threading.Thread(target=open_in_browser, args=(url,), daemon=True).start()

    page = LiveRun(options, recorded, Progress(stderr, True, False), flows)
    server = PageServer(page, opened, view.port, view.hosts)
    if view.names:
        options = replace(options, followers=(*options.followers, *page.followers))
    return replace(options, beside=page, services=(*options.services, server.serve))


def open_in_browser(url: str) -> bool:
    """Open a page, and return whether there was a browser. Browsers of the terminal are left alone: it is in use."""
    import webbrowser

    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    has_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, names))
    return has_screen and webbrowser.open(url)


# The page of a run is made of its recording, so it says the same as `report` does of a file.


@contextmanager
def recorded_for_page(
    options: RunOptions, creating: AbstractContextManager[object] | None = None
) -> Iterator[tuple[RunOptions, Replay]]:
    """Yield the options of a run that gets a page, and the page's source: the files of a replay, the
    recording that the user asked for, or one that goes away with the block, whose folder is made within `creating`."""
    if options.replay is not None:
        yield options, options.replay
    elif options.recorded_in is not None:
        yield options, Replay((options.recorded_in,))
    else:
        import tempfile
        from functools import partial
        from pathlib import Path

        from kubectl_gadget.recording.recorder import Recorder, RecordingOptions

        rotation = None
        if options.ui and options.page is None:  # a page at the end is of the whole run
            from kubectl_gadget.page.live import RECORDED

            rotation = RECORDED
        with creating or nullcontext():
            folder = tempfile.TemporaryDirectory(prefix="kubectl-gadget-")
        with folder:
            path = Path(folder.name) / "run.kgr"
            yield (
                replace(options, record=partial(Recorder, RecordingOptions(path, rotation, is_kept=False))),
                Replay((path,)),
            )


def page_model(recorded: Replay, options: RunOptions | None = None, said: "Said | None" = None) -> dict[str, Any]:
    """Return what the page of recordings shows: rows that `options` select, and what features have `said` about the
    run. Shows its progress on a terminal. Raises GadgetError."""
    give_back_what_is_freed()
    from kubectl_gadget.page import run

    shows, shown = sys.stderr.isatty() and not (options and options.quiet), -1

    def progress(done: float) -> None:
        nonlocal shown
        if shows and (percent := int(100 * done)) != shown:
            shown = percent
            sys.stderr.write(f"\rmaking the report: {percent} %")
            sys.stderr.flush()

    try:
        return run.make(recorded, progress, options, said)
    finally:
        if shown >= 0:
            sys.stderr.write("\r\x1b[K")


def write_page(recorded: Replay, path: str, options: RunOptions | None = None, said: "Said | None" = None) -> None:
    """Write the page of recordings, or with a name *.json what it shows; `-` is standard output. Raises GadgetError."""
    from kubectl_gadget.page import html
    from kubectl_gadget.reports.files import written_to
    from kubectl_gadget.rows.amounts import bytes_text

    model = page_model(recorded, options, said)
    text = json.dumps(model, ensure_ascii=False) + "\n" if path.endswith(".json") else html.render(model)
    data = text.encode("utf-8", "replace")
    written_to(path, data)
    if path != "-" and not (options and options.quiet):
        say(f"{path}: {bytes_text(len(data))}; {model['verdict']['answer']}")
