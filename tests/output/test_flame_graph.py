"""Flame graphs in a real browser, which runs their script: what it has drawn is read back."""

import html
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.flame_graph import FlameGraphSink, tree
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.profiles import PathStep
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.arrangement import Arrangement
from tests.flows.browser import CHROMIUM, Page, empty_page
from tests.output.sampled import PROFILE, batch, profile, stack, written
from tests.rows.test_tables import TOP

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "</script><script>document.title='pwned'</script>]]>&amp;"
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here (apt-get install chromium-headless-shell)"
)


def make(path: Path, diff: str = "") -> Path:
    """30 samples of spin in heavy, 10 in light, and 10 of a function with a name that is up to something."""
    rows = profile(
        batch("n1", "web", ("work", stack("spin", "heavy"), 0, 30), ("work", stack("spin", "light"), 0, 10)),
        batch("n2", "db", ("query", stack(EVIL, "main"), 0, 10)),
    )
    stream = io.StringIO()
    options = OutputOptions("json", arrangement=Arrangement(flame_graph=str(path), diff=diff))
    written(make_sink(options, [PROFILE], stream), rows, stream)
    assert len(stream.getvalue().splitlines()) == 3
    return path


@pytest.fixture(scope="module", name="browser")
def a_browser() -> Iterator[Page]:
    """One for all tests, since its start takes most of their time."""
    with empty_page((1220, 800)) as page:
        page.ask("Network.enable")
        page.ask("Network.setBlockedURLs", urls=["http://*", "https://*", "ws://*", "wss://*"])
        yield page


def drawn(page: Page, path: Path, hash: str = "", scheme: str = "") -> str:
    """What the browser has made of the file, without a network."""
    page.open(f"file://{path}{hash}", scheme)
    text: str = page.script("document.documentElement.outerHTML")
    return text


def calls(page: str) -> dict[str, tuple[str, float, str]]:
    """Titles of what was drawn: class, width, and the text under the mouse."""
    found = {}
    pattern = r'<g class="([^"]+)"[^>]*><title>([^<]*)</title><rect[^>]* width="([\d.]+)"'
    for kind, title, width in re.findall(pattern, page):
        text = html.unescape(title)
        found[text.rpartition(": ")[0]] = kind, float(width), text
    return found


@needs_browser
@pytest.mark.parametrize("suffix", ["html", "svg"])
def test_each_call_is_as_wide_as_its_share(browser: Page, tmp_path: Path, suffix: str) -> None:
    found = calls(drawn(browser, make(tmp_path / f"graph.{suffix}")))
    whole = found["all"][1]
    for title, share in {"n1": 0.8, "default/web/main": 0.8, "n2": 0.2, "heavy (/bin/work)": 0.6, "work": 0.8}.items():
        assert found[title][1] == pytest.approx(whole * share, rel=0.01)
    assert found["heavy (/bin/work)"][2] == "heavy (/bin/work): 300 ms, 60.0 %"


@needs_browser
def test_names_are_only_ever_text(browser: Page, tmp_path: Path) -> None:
    page = drawn(browser, make(tmp_path / "graph.html"))
    assert f"{EVIL} (/bin/work)" in calls(page)
    assert "<title>kubectl gadget profile cpu</title>" in page
    assert page.count("<script") == 2


@needs_browser
def test_a_search_marks_what_it_finds_and_says_how_much_that_is(browser: Page, tmp_path: Path) -> None:
    page = drawn(browser, make(tmp_path / "graph.html"), "#search=SPIN")
    assert ">80.0 % found<" in page
    assert [kind for title, (kind, _, _) in calls(page).items() if "found" in kind] == ["call found"]


@needs_browser
def test_zooming_leaves_what_is_inside_and_above(browser: Page, tmp_path: Path) -> None:
    page = drawn(browser, make(tmp_path / "graph.html"), "#zoom=0.0.0.1")
    found = calls(page)
    assert found["light (/bin/work)"][1] == pytest.approx(found["all"][1], rel=0.01)
    assert "above" in found["default/web/main"][0]
    assert not {"heavy (/bin/work)", "n2", "main (/bin/work)"} & found.keys()


@needs_browser
def test_clicking_zooms_and_escape_zooms_out_again(browser: Page, tmp_path: Path) -> None:
    path = make(tmp_path / "graph.html")
    steps = """<script>
    const all = (what) => [...document.querySelectorAll("#frames " + what)];
    const titles = () => all("title").map((title) => title.textContent.split(":")[0]);
    const light = all("g").find((group) => group.textContent.startsWith("light"));
    light.dispatchEvent(new Event("click"));
    const inside = titles(), address = location.hash;
    const search = document.getElementById("search");
    search.value = "light"; search.dispatchEvent(new Event("input"));
    const status = document.getElementById("status").textContent;
    window.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
    const result = {inside, address, status, after: titles(), left: search.value};
    const shown = Object.assign(document.createElement("pre"), {id: "result", textContent: JSON.stringify(result)});
    document.body.append(shown);
    </script></body>"""
    path.write_text(path.read_text().replace("</body>", steps))
    found = re.search(r'<pre id="result">(.*)</pre>', drawn(browser, path))
    assert found
    result = json.loads(html.unescape(found[1]))
    assert result["address"] == "#zoom=0.0.0.1"
    assert "heavy (/bin/work)" not in result["inside"]
    assert "heavy (/bin/work)" in result["after"]
    assert (result["status"], result["left"]) == ("20.0 % found", "")


def test_the_heading_says_how_long_how_much_of_what_and_when(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path, seconds = tmp_path / "graph.svg", iter((100.0, 130.0))
    sink = FlameGraphSink(
        str(path),
        [PROFILE],
        make_sink(OutputOptions("json"), [PROFILE], io.StringIO()),
        selection="namespace shop, pods app=<cart>",
        clock=lambda: next(seconds),
        now=lambda: datetime(2026, 8, 1, 12, 30, tzinfo=UTC),
    )
    sink.start()
    sink.write_block(profile(batch("n1", "web", ("work", stack("spin"), 0, 30))))
    sink.close()
    heading = "30.0s, 30 samples (300ms), namespace shop, pods app=<cart>, 2026-08-01 12:30 UTC"
    assert [text for text in shapes(path) if "samples" in text] == [heading]
    if CHROMIUM:
        assert html.escape(heading, quote=False) in drawn(request.getfixturevalue("browser"), path)


def shapes(path: Path) -> list[str]:
    """The texts of the shapes that are in the file itself, which a viewer without scripts shows."""
    root = ElementTree.fromstring(path.read_text())
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_viewers_that_run_no_script_show_the_graph(tmp_path: Path) -> None:
    path = make(tmp_path / "graph.svg")
    assert {"all", "n1", "default/web/main", "work", "heavy", "light", "spin"} <= set(shapes(path))
    root = ElementTree.fromstring(path.read_text())
    boxes = {
        call.findtext(f"{SVG}title", "").rpartition(": ")[0]: float(call.find(f"{SVG}rect").attrib["width"])  # type: ignore[union-attr]
        for call in root.iter(f"{SVG}g")
        if call.get("class") == "call"
    }
    assert boxes["heavy (/bin/work)"] == pytest.approx(boxes["all"] * 0.6, rel=0.001)
    assert f"{EVIL} (/bin/work)" in boxes
    # Lengths in pixels: as a share of a page they would be nothing in a viewer that has no page.
    assert int(root.attrib["width"]) > 0 < int(root.attrib["height"])


@needs_browser
def test_the_script_draws_what_was_drawn_before_it(browser: Page, tmp_path: Path) -> None:
    path = make(tmp_path / "graph.svg")
    root = ElementTree.fromstring(path.read_text())
    before = {
        call.findtext(f"{SVG}title", "").rpartition(": ")[0]: call.find(f"{SVG}rect").attrib["y"]  # type: ignore[union-attr]
        for call in root.iter(f"{SVG}g")
        if call.get("class") == "call"
    }
    pattern = r'<g class="[^"]+"[^>]*><title>([^<]*)</title><rect[^>]* y="([\d.]+)"'
    after = {html.unescape(title).rpartition(": ")[0]: y for title, y in re.findall(pattern, drawn(browser, path))}
    assert before == after


@needs_browser
def test_a_button_changes_light_and_dark_and_the_address_keeps_it(browser: Page, tmp_path: Path) -> None:
    path = make(tmp_path / "graph.html")
    steps = """<script>
    const graph = document.getElementById("graph"), colour = () => getComputedStyle(graph).backgroundColor;
    const seen = [colour()];
    document.getElementById("theme").click();
    seen.push(colour(), location.hash);
    const shown = Object.assign(document.createElement("pre"), {id: "result", textContent: JSON.stringify(seen)});
    document.body.append(shown);
    </script></body>"""
    path.write_text(path.read_text().replace("</body>", steps))
    found = re.search(r'<pre id="result">(.*)</pre>', drawn(browser, path, scheme="light"))
    assert found
    assert json.loads(html.unescape(found[1])) == ["rgb(255, 255, 255)", "rgb(24, 26, 27)", "#theme=dark"]
    again = re.search(r'<pre id="result">(.*)</pre>', drawn(browser, path, "#theme=dark"))
    assert again
    assert json.loads(html.unescape(again[1]))[0] == "rgb(24, 26, 27)"


@needs_browser
def test_light_and_dark(browser: Page, tmp_path: Path) -> None:
    path = make(tmp_path / "graph.html")
    steps = """<script>document.body.append(Object.assign(document.createElement("pre"), {id: "result",
    textContent: getComputedStyle(document.getElementById("graph")).backgroundColor}));</script></body>"""
    path.write_text(path.read_text().replace("</body>", steps))
    colours = [
        re.findall(r'<pre id="result">(.*)</pre>', drawn(browser, path, scheme=scheme)) for scheme in ("light", "dark")
    ]
    assert colours == [["rgb(255, 255, 255)"], ["rgb(24, 26, 27)"]]


@needs_browser
def test_a_comparison_says_how_much_more_or_less(browser: Page, tmp_path: Path) -> None:
    before = tmp_path / "before.folded"
    before.write_text("n1;default/web/main;work;heavy;spin 20\nn1;default/web/main;work;light;spin 30\n")
    found = calls(drawn(browser, make(tmp_path / "graph.html", diff=str(before))))
    # 50 samples of 10 ms now, of which the other recording has 40 % in heavy.
    assert found["heavy (/bin/work)"][2].endswith("300 ms, 60.0 %, +100 ms")
    assert found["light (/bin/work)"][2].endswith("100 ms, 20.0 %, −200 ms")
    assert found["n2"][2].endswith("+100 ms")


def test_the_file_asks_nothing_of_a_network_and_is_well_formed(tmp_path: Path) -> None:
    text = make(tmp_path / "graph.svg").read_text()
    ElementTree.fromstring(text)
    addresses = set(re.findall(r"https?://[^\"'\s]+", text))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}


def test_a_tree_is_not_limited_by_pythons_own_depth() -> None:
    path = tuple(PathStep(f"f{number}", "user") for number in range(5000))
    root = tree({path: 3, path[:2]: 4})
    assert (root[2], root[3][0][2]) == (7, 7)


def test_what_cannot_be_written_is_reported_before_anything_starts(tmp_path: Path) -> None:
    stream = io.StringIO()
    inner = make_sink(OutputOptions("json"), [PROFILE], stream)
    for path, why in (
        ("graph.png", "HTML nor SVG"),
        (str(tmp_path / "no" / "graph.svg"), "is not a writable directory"),
    ):
        with pytest.raises(UsageError, match=why):
            FlameGraphSink(path, [PROFILE], inner)
    with pytest.raises(UsageError, match="call stacks"):
        FlameGraphSink("graph.svg", [TOP], inner)
    (tmp_path / "other").write_text("nonsense")
    with pytest.raises(UsageError, match="--diff"):
        FlameGraphSink("graph.svg", [PROFILE], inner, str(tmp_path / "other"))
