"""The page in a real browser: each part with its numbers, hostile texts, keys, a narrow window, and contrast."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.page import html, run
from kubectl_gadget.run.run_options import Replay
from tests.flows.browser import CHROMIUM, Page, barriers, empty_page
from tests.page.made import HOSTILE, recording

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

_WATCH = (
    "window.refused = []; addEventListener('securitypolicyviolation', event => refused.push(event.violatedDirective))"
)
_CONTRAST = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = element => { for (; element; element = element.parentElement) {
    const found = parse(getComputedStyle(element).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found; } return [255, 255, 255]; };
  const bad = [];
  for (const element of document.querySelectorAll("main *, header *, footer *")) {
    const says = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!element.offsetParent || !says) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) bad.push(`${element.className}: ${element.textContent.slice(0, 40)}`);
  }
  return bad;
})()"""


@pytest.fixture(scope="module", name="file")
def a_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the shop, with findings, lookups, requests and a profile, whose texts are hostile."""
    folder = tmp_path_factory.mktemp("page")
    model = run.make(Replay((recording(folder / "shop.kgr"),)))
    finding: dict[str, Any] = {
        "level": "error",
        "rule": "diagnose/x",
        "fingerprint": "0",
        "message": f"fails {HOSTILE}",
        "who": HOSTILE,
    }
    finding |= {"seen": "twice", "count": 2, "first": 2000, "last": 3000, "step": "", "evidence": [{HOSTILE: HOSTILE}]}
    finding |= {"terms": [["cause", HOSTILE], ["do", "mend it"]], "tables": [[["POD"], [HOSTILE]]]}
    model["findings"]["list"] = [finding, {**finding, "level": "note", "message": "later", "first": 9000, "last": 9000}]
    latency: dict[str, Any] = {"count": 3, "without": 0, "begins": [1000, 1189], "end": 1414, "counts": [1, 2]}
    latency |= {"p50": 1414, "p95": 1414, "p99": 1414}
    lookup = ["shop/cart-*", "cart", "client", HOSTILE, "A", "NXDOMAIN", 3, 3, 1000, 2000, 1000, 1400]
    model["dns"] |= {"rows": [lookup], "seen": 1, "latency": latency}
    asked = ["shop/cart-*", "client", "GET", "db", HOSTILE, "503", 3, 3, 1000, 2000, 1000, 1400]
    model["http"] |= {"rows": [asked], "seen": 1, "latency": latency}
    calls = ["all", "place", 2, [[HOSTILE, "user", 2, [], HOSTILE]], ""]
    model["profile"] = {"title": "profile cpu", "unit": "count", "root": calls, "left_out": 0}
    path = folder / "shop.html"
    path.write_text(html.render(model))
    return path


@pytest.fixture(scope="module", name="tab")
def a_tab(file: Path) -> Iterator[Page]:
    """The page in one browser for all tests, since its start takes most of their time."""
    with empty_page() as tab:
        tab.ask("Page.enable")
        tab.ask("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
        tab.open(file.as_uri(), "light")
        tab.wait("document.documentElement.dataset.ready")
        yield tab


@pytest.fixture(autouse=True)
def _from_the_top(tab: Page) -> None:
    tab.script(
        "(field => { field.value = ''; field.dispatchEvent(new Event('input')); })(document.getElementById('filter'));"
        "document.activeElement.blur(); scrollTo(0, 0)"
    )


def text(tab: Page, part: str) -> str:
    found: str = tab.script(f"document.getElementById({part!r}).innerText")
    return found


def test_the_first_screen_says_what_happened_and_whether_it_is_bad(tab: Page) -> None:
    assert tab.script("document.querySelector('#findings .finding').getBoundingClientRect().bottom < innerHeight")
    assert tab.script("document.querySelector('#chart canvas').getBoundingClientRect().bottom < innerHeight")
    assert "lost: 7 (ring buffer full 7)" in text(tab, "verdict")
    assert "7 events were lost" in text(tab, "verdict")
    assert "mend it" in text(tab, "findings")


def test_each_part_has_what_the_recording_holds(tab: Page) -> None:
    parts = tab.script("[...document.querySelectorAll('main > section')].map(part => part.id)")
    assert parts == [
        "verdict",
        "findings",
        "timeline",
        "processes",
        "map",
        "files",
        "connections",
        "dns",
        "http",
        "profile",
        "rows",
        "made",
    ]
    assert "open 42" in text(tab, "timeline")
    assert "node-1 lost events: ring buffer full 7" in text(tab, "timeline")
    assert "14:13:34 to 14:13:36 UTC: events of node-1 are missing" in text(tab, "timeline")
    processes = text(tab, "processes")
    assert '/bin/sh -c "exit 3" → exit 3' in processes
    assert "opened 40×: /data/0 ×10" in processes
    assert "/etc/nope\tENOENT\t1\t1\t" in text(tab, "files")
    assert "5433" in text(tab, "connections")
    assert "half within 1.41µs" in text(tab, "dns")
    assert "52 rows" in text(tab, "rows")
    assert "trace open: 42 rows" in text(tab, "made")
    assert "[object" not in tab.script("document.body.innerText")


def test_the_map_and_the_flame_graph_are_drawn_within_the_page(tab: Page) -> None:
    for part, drawn in (("map", ".place"), ("profile", "g.call")):
        tab.script(f"document.getElementById({part!r}).scrollIntoView()")
        tab.wait(f"document.querySelector('#{part} iframe').contentDocument.querySelectorAll({drawn!r}).length >= 2")
    assert (
        tab.script("document.querySelector('#map iframe').contentDocument.querySelectorAll('.edge.mixed').length") == 1
    )
    call = "document.querySelector('#profile iframe').contentDocument.querySelector('g.call rect')"
    assert tab.script(f"getComputedStyle({call}).fill") not in ("rgb(0, 0, 0)", "none", "")
    shown = tab.script("document.querySelector('#profile iframe').contentDocument.body.innerHTML")
    assert "style=" not in shown, "the policy of the page refuses it"


def test_no_text_of_a_container_becomes_markup_or_a_script(tab: Page) -> None:
    assert "taken" not in tab.script("document.title").replace("document.title='taken'", "")
    assert tab.script("document.title") != "taken"
    assert tab.script("document.querySelectorAll('main img, main script').length") == 0
    assert "<img src=x" in text(tab, "findings")
    assert tab.script("window.refused") == []


def test_the_policy_refuses_scripts_that_are_not_the_pages_own(tab: Page) -> None:
    tab.script(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.stranger = 1'}))"
    )
    tab.wait("window.refused.length")
    assert tab.script("window.stranger === undefined")
    tab.script("window.refused.length = 0; document.body.lastChild.remove()")


def test_a_filter_goes_through_all_parts(tab: Page) -> None:
    tab.press("/")
    assert tab.script("document.activeElement.id") == "filter"
    for key in "nope":
        tab.press(key)
    tab.wait("document.querySelectorAll('#files tbody tr').length === 1")
    assert "1 match the filter" in text(tab, "processes")
    assert "1 match the filter, of 52 rows" in text(tab, "rows")
    assert tab.script("[...document.querySelectorAll('.finding')].every(one => one.hidden)")
    tab.press("Escape")
    tab.wait("document.querySelectorAll('#files tbody tr').length === 6")


def test_rows_are_filtered_by_a_column_and_copied_as_json(tab: Page) -> None:
    tab.script(
        "(() => { window.copied = ''; navigator.clipboard.writeText = async text => { window.copied = text; };"
        "const column = document.querySelector('#rows [aria-label=\"column to look in\"]');"
        "column.value = 'PATH'; column.dispatchEvent(new Event('change'));"
        "const value = document.querySelector('#rows input'); value.value = '/data/1';"
        "value.dispatchEvent(new Event('input')); })()"
    )
    tab.wait("document.getElementById('rows')?.innerText.includes('10 match the filter, of 52 rows')")
    tab.script("[...document.querySelectorAll('#rows button')].at(-1).click()")
    tab.wait("document.getElementById('rows')?.innerText.includes('10 rows copied')")
    copied = [json.loads(line) for line in tab.script("window.copied").splitlines()]
    assert {(row["kind"], row["PATH"]) for row in copied} == {("open", "/data/1")}
    assert copied[0]["timestamp"].startswith("2026-09-21T14:13:25")
    tab.script(
        "(() => { const value = document.querySelector('#rows input'); value.value = '';"
        "value.dispatchEvent(new Event('input')); })()"
    )


def test_a_part_of_the_time_filters_what_is_below(tab: Page) -> None:
    box = tab.script("document.querySelector('#chart .u-over').getBoundingClientRect().toJSON()")
    left, top, width = box["left"], box["top"], box["width"]
    for kind, part in (("mousePressed", 0.05), ("mouseMoved", 0.15), ("mouseMoved", 0.2), ("mouseReleased", 0.2)):
        tab.ask(
            "Input.dispatchMouseEvent",
            type=kind,
            x=left + width * part,
            y=top + 40,
            button="left",
            buttons=1,
            clickCount=1,
        )
    tab.wait("!document.getElementById('whole').hidden")
    assert tab.script("[...document.querySelectorAll('.finding')].map(one => one.hidden)") == [False, True]
    assert "numbers are of the whole run" in text(tab, "files")
    assert tab.script("document.querySelectorAll('#files tbody tr').length") == 1
    tab.press("Escape")
    tab.wait("document.getElementById('whole').hidden")


def test_keys_walk_through_the_page(tab: Page) -> None:
    tab.press("j")
    assert tab.script("document.activeElement.closest('.finding') !== null")
    tab.press("ArrowRight")
    assert tab.script("document.activeElement.parentElement.open")
    tab.press("ArrowLeft")
    assert not tab.script("document.activeElement.parentElement.open")
    first = tab.script("document.activeElement.innerText")
    tab.press("j")
    assert tab.script("document.activeElement.innerText") != first
    tab.press("k")
    assert tab.script("document.activeElement.innerText") == first


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hinders_people_who_cannot_see_or_point(tab: Page, scheme: str) -> None:
    tab.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.script("for (const one of document.querySelectorAll('main details')) one.open = true")
    assert barriers(tab) == []
    for part, without in (("map", ()), ("profile", ("page-has-heading-one",))):  # the page has the graph's heading
        frame = f"document.querySelector('#{part} iframe')"
        tab.script(f"{frame}.scrollIntoView()")
        tab.wait(
            f"{frame}.contentDocument?.readyState === 'complete' && {frame}.contentDocument.body.childElementCount"
        )
        with tab.inside(frame):
            assert barriers(tab, *without) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_that_aa_asks_for(tab: Page, scheme: str) -> None:
    tab.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    assert tab.script(_CONTRAST) == []


@pytest.mark.parametrize("width", [360, 3840])
def test_it_fits_windows_of_any_width(tab: Page, width: int) -> None:
    tab.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    tab.wait(f"innerWidth === {width}")
    tab.wait(f"document.documentElement.scrollWidth <= {width}")
    tab.ask("Emulation.clearDeviceMetricsOverride")


def test_each_control_has_a_name(tab: Page) -> None:
    controls = "[...document.querySelectorAll('button, input, select, a, iframe, [role=region], [role=img]')]"
    assert tab.script(f"{controls}.filter(one => !(one.innerText || one.ariaLabel || one.title).trim()).length") == 0
    ids = tab.script("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(set(ids)) == len(ids)
