"""The page on paper, and for people who do not want motion, in a real browser."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.page import html, run
from kubectl_gadget.run.run_options import Replay
from tests.flows.browser import CHROMIUM, Page, empty_page
from tests.page.made import recording

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module", name="file")
def a_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("print")
    path = folder / "shop.html"
    path.write_text(html.render(run.make(Replay((recording(folder / "shop.kgr"),)))))
    return path


@pytest.fixture(scope="module", name="tab")
def a_tab(file: Path) -> Iterator[Page]:
    with empty_page() as tab:
        tab.open(file.as_uri(), "dark")
        tab.wait("document.documentElement.dataset.ready && document.querySelector('canvas')")
        yield tab


def test_paper_has_dark_texts_on_white_and_no_controls(tab: Page) -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    tab.ask("Emulation.setEmulatedMedia", media="print", features=dark)
    style = "getComputedStyle(document.querySelector('#verdict h2'))"
    assert tab.script(f"{style}.color") == "rgb(0, 0, 0)"
    assert tab.script("getComputedStyle(document.querySelector('#verdict')).backgroundColor") == "rgb(255, 255, 255)"
    controls = "[...document.querySelectorAll('header, .bar button, .bar input, .bar select')]"
    assert tab.script(f"{controls}.filter(one => one.offsetParent !== null || one.offsetHeight).length") == 0
    # Nothing may be out of reach on paper: there, nobody scrolls.
    assert (
        tab.script("[...document.querySelectorAll('.scroll')].filter(one => one.clientHeight + 1 < one.scrollHeight)")
        == []
    )
    tab.ask("Emulation.setEmulatedMedia", media="", features=[])


def test_printing_opens_the_findings_and_takes_few_sheets(tab: Page) -> None:
    pages = base64.b64decode(tab.ask("Page.printToPDF")["data"])
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pages)) <= 8
    assert tab.script("[...document.querySelectorAll('.finding')].every(one => one.open)")


def test_nothing_moves_for_those_who_do_not_want_it(tab: Page) -> None:
    calm = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    frame = "document.querySelector('#map iframe')"
    tab.script("document.getElementById('map').scrollIntoView()")
    tab.wait(f"{frame}.contentDocument.querySelector('.edge')")
    # A busy edge runs; that of a report is over.
    tab.script(f"{frame}.contentDocument.querySelector('.edge').classList.add('live')")
    moving = f"[document, {frame}.contentDocument].flatMap(one => one.getAnimations()).length"
    tab.ask("Emulation.setEmulatedMedia", features=[])
    tab.wait(f"{moving} === 1")
    tab.ask("Emulation.setEmulatedMedia", features=calm)
    tab.wait(f"{moving} === 0")
