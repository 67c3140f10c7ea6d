"""Takes the pictures of docs/images in headless Chromium: `python -m docs.screenshots RECORDING REPORT.html FOLDER`.

The page of the recording is shown in a window of usual size, dark, on a telephone, and in a window of 3840 by 2160; its
live page with the map first, and further down.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flows.browser import Page, empty_page

_USUAL, _TELEPHONE, _LARGE = (1200, 660, 1.0), (360, 740, 1.0), (3840, 2160, 0.5)
"""Width and height in CSS pixels, and how many pixels of a picture each one is."""
_FRAME = "document.querySelector('#map iframe')"


def main(recording: str, report: str, folder: str) -> None:
    url, pictures = Path(report).absolute().as_uri(), Path(folder)
    with empty_page() as page:
        for name, size, scheme in (
            ("report", _USUAL, "light"),
            ("report-dark", _USUAL, "dark"),
            ("report-telephone", _TELEPHONE, "light"),
            ("report-4k", _LARGE, "light"),
        ):
            _resize(page, size)
            page.open(url, scheme)
            page.wait("document.documentElement.dataset.ready && document.querySelector('canvas')")
            if size is _LARGE:
                _wait_for_map(page)
            page.screenshot(pictures / f"{name}.png")
        with _live(recording) as live:
            for name, size, scheme in (("map", _USUAL, "light"), ("map-telephone", _TELEPHONE, "dark")):
                _resize(page, size)
                page.open(live, scheme)
                _wait_for_map(page)
                page.screenshot(pictures / f"{name}.png")
            _resize(page, _USUAL)
            page.open(live, "dark")
            page.wait("document.getElementById('live').textContent === 'live'")
            page.wait("document.getElementById('findings') && document.querySelector('canvas')")
            page.script("document.getElementById('findings').scrollIntoView()")
            page.screenshot(pictures / "live.png")


def _resize(page: Page, size: tuple[int, int, float]) -> None:
    width, height, scale = size
    page.ask(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 600
    )


def _wait_for_map(page: Page) -> None:
    page.script("document.getElementById('map').scrollIntoView()")
    page.wait(f"{_FRAME}?.contentDocument?.querySelector('.place')")
    page.wait("!document.querySelector('#map h2').textContent.includes('0 places')")
    page.script("scrollTo(0, 0)")


@contextmanager
def _live(recording: str) -> Iterator[str]:
    """Return the URL of a live page of the recording."""
    words = [sys.executable, "-m", "kubectl_gadget.cli.main", "replay", recording, "flows", "--web"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        said = ""
        while "press Ctrl-C" not in said:
            line = run.stderr.readline()
            assert line, said
            said += line
        (url,) = re.findall(r"http://\S+", said)
        try:
            yield url
        finally:
            run.terminate()
            run.communicate()


if __name__ == "__main__":
    main(*sys.argv[1:])
