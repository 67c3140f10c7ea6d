"""Takes a picture of a page in headless Chromium: `python -m docs.screenshots FILE.html FILE.png`."""

import sys
from pathlib import Path

from tests.flows.browser import empty_page

_SIZE = (1200, 660)


def main(source: str, destination: str) -> None:
    with empty_page(_SIZE) as page:
        page.ask(
            "Emulation.setDeviceMetricsOverride", width=_SIZE[0], height=_SIZE[1], deviceScaleFactor=1, mobile=False
        )
        page.open(Path(source).absolute().as_uri(), "light")
        page.wait("document.documentElement.dataset.ready && document.querySelector('canvas')")
        page.screenshot(Path(destination))


if __name__ == "__main__":
    main(*sys.argv[1:])
