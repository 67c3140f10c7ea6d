"""The live page with its map: who may open it, and what a browser shows of it."""

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.page import LivePage
from kubectl_gadget.wire.policy_events import ExecId
from tests.flows.browser import CHROMIUM, Page, empty_page
from tests.flows.rows import CLIENT, DEATHSTAR, SERVER, RowTable, accepted, drop, tcp
from tests.flows.rows import XWING as XWING_ROW
from tests.flows.serving import served
from tests.observe.lives import NOON, SHELL, XWING, executed

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(name="page")
def a_page() -> LivePage:
    page = LivePage()
    tell(page, RowTable(AddressBook()), 1)
    return page


def with_processes() -> tuple[LivePage, str]:
    """A page whose client was started by a shell, and the client's exec id."""
    page = LivePage()
    curl = ExecId(2000, 11)
    for happened in (executed(SHELL, "/bin/sh", "-c", "loop"), executed(curl, "/usr/bin/curl", "-s", parent=SHELL)):
        page.processes.apply("node-1", happened, XWING, NOON)
    exec_id = curl.text("node-1")
    row = tcp("syn", 1, exec_id=exec_id)
    page.add_all(RowTable(AddressBook()).add(row))
    return page, exec_id


@pytest.fixture(name="url")
def its_url(page: LivePage) -> Iterator[str]:
    with served(page) as url:
        yield url


def tell(page: LivePage, table: RowTable, second: float, comm: str = "curl") -> None:
    rows = [tcp("syn", second, comm=comm), accepted("accept", second + 0.1), drop(second + 0.2, "NETFILTER_DROP")]
    for row in rows:
        page.add_all(table.add(row))


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def live(url: str, origin: str | None = None) -> str:
    host = urlsplit(url).netloc
    return f"ws://{host}/live?{urlsplit(url).query}"


def test_the_page_needs_the_token(url: str) -> None:
    assert status(url) == 200
    assert status(url.partition("?")[0]) == 403
    assert status(url[:-1]) == 403
    assert status(url.replace("/?", "/other?")) == 404


def test_a_name_that_leads_here_from_elsewhere_is_refused(url: str) -> None:
    assert status(url, Host="evil.example:80") == 403


def test_another_page_cannot_listen(url: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(live(url), origin="http://evil.example")
    with pytest.raises(InvalidStatus, match="403"):
        connect(live(url).partition("?")[0], origin=f"http://{urlsplit(url).netloc}")


def listening(url: str, host: str, origin: str) -> None:
    """What a proxy asks for below a path."""
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname, parts.port)) as own,
        connect(f"ws://{host}/some/path/live?{parts.query}", sock=own, origin=Origin(origin)),
    ):
        pass


def test_a_proxy_that_was_named_may_ask_for_the_page_below_any_path(page: LivePage) -> None:
    with served(page, hosts=("Gadgets.example", "other.example:8443")) as url:
        below = url.replace("/?", "/some/path/?")
        assert status(below, Host="gadgets.example") == 200
        assert status(below, Host="gadgets.example:9000") == 200
        assert status(below, Host="other.example:8443") == 200
        assert status(below, Host="other.example") == 403
        assert status(below, Host="x.gadgets.example") == 403
        assert status(below, Host="gadgets.example@evil.example") == 403
        assert status(below[:-1], Host="gadgets.example") == 403
        # A proxy may pass its own name on, or not.
        for host in ("gadgets.example", urlsplit(url).netloc):
            listening(url, host, "https://gadgets.example")
            for origin in ("https://evil.example", "null", "http://localhost"):
                with pytest.raises(InvalidStatus, match="403"):
                    listening(url, host, origin)


def test_a_page_gets_all_that_there_was_and_then_what_is_new(page: LivePage, url: str) -> None:
    with connect(live(url), origin=f"http://{urlsplit(url).netloc}") as stream:
        first = json.loads(stream.recv(timeout=120))["flows"]
        assert first["whole"]
        assert [event["kind"] for event in first["events"]] == ["new", "drop"]
        assert first["places"]["Pod/empire/deathstar"] == {"group": "empire", "name": "deathstar", "kind": "Pod"}
        (edge,) = first["edges"]
        assert (edge["from"], edge["to"]) == ("Pod/default/xwing", "Pod/empire/deathstar")
        assert (edge["flows"], edge["dropped"], edge["more_ports"]) == (1, 1, 0)
        assert edge["ports"] == [{"name": "8080/TCP", "flows": 1, "dropped": 1, "failed": 0}]
        assert first["processes"]["Pod/default/xwing"] == [{"pod": "default/xwing", "comm": "curl", "flows": 2}]
        page.add_all(RowTable(AddressBook()).add(tcp("syn", 5, DEATHSTAR, ("10.2.0.3", 41000), ("10.1.0.2", 22))))
        news: list[int] = []
        while not any(identity > 2 for identity in news):
            flows = json.loads(stream.recv(timeout=120))["flows"] or {"events": []}
            news += [event["id"] for event in flows["events"]]
    assert news[-1] == 3


def test_a_place_has_its_process_tree_with_the_connections_of_each() -> None:
    page, exec_id = with_processes()
    shell, curl = page.all()["trees"]["Pod/default/xwing"]
    assert (shell["command"], shell["parent"], shell["connections"]) == ("/bin/sh -c loop", None, [])
    assert (curl["command"], curl["parent"], curl["id"]) == ("/usr/bin/curl -s", shell["id"], exec_id)
    assert curl["connections"] == [{"flows": 1, "last": "SYN", "bad": False, "text": "→ 10.2.0.3:8080 TCP"}]


def test_a_process_that_is_not_known_is_shown_by_its_name() -> None:
    page = LivePage()
    page.add_all(RowTable(AddressBook()).add(tcp("syn", 1, exec_id=ExecId(5, 11).text("node-1"))))
    (node,) = page.all()["trees"]["Pod/default/xwing"]
    assert (node["command"], node["pid"], node["parent"]) == ("curl", 11, None)


def test_a_port_that_is_taken_is_reported(url: str) -> None:
    port = urlsplit(url).port
    assert port is not None
    with pytest.raises(GadgetError, match=f"port {port}"), served(LivePage(), port):
        pass


@pytest.fixture(scope="module", name="tab")
def a_tab() -> Iterator[Page]:
    """One of one browser for all tests, since its start takes most of their time."""
    with empty_page() as tab:
        yield tab


@contextmanager
def the_map(tab: Page, url: str, scheme: str = "") -> Iterator[None]:
    """While the block runs, scripts are those of the map in the page."""
    tab.open(url, scheme)
    frame = "document.querySelector('#map iframe')"
    tab.wait(f"{frame}?.contentDocument?.getElementById('state')?.textContent")
    with tab.inside(frame):
        tab.script("window.focus()")
        yield


def dom(tab: Page, url: str, awaited: str) -> str:
    """What the map has become in a browser, once it has `awaited`."""
    with the_map(tab, url):
        tab.wait(f"document.documentElement.outerHTML.includes({json.dumps(awaited)})")
        found: str = tab.script("document.documentElement.outerHTML")
        return found


@in_browser
def test_a_browser_shows_processes_below_those_that_started_them_with_their_connections(tab: Page) -> None:
    page, _ = with_processes()
    with served(page) as url:
        document = dom(tab, f"{url}#Pod%2Fdefault%2Fxwing", "/usr/bin/curl -s")
    tree = document.partition('<ul class="tree">')[2]
    shell, curl, link = (tree.index(text) for text in ("/bin/sh -c loop", "/usr/bin/curl -s", "→ 10.2.0.3:8080 TCP"))
    assert shell < curl < link
    assert tree[shell:curl].count("<ul>") == 1


@in_browser
def test_a_browser_shows_boxes_edges_and_hostile_names_as_text(page: LivePage, url: str, tab: Page) -> None:
    tell(page, RowTable(AddressBook()), 3, comm="<img src=x onerror=document.title=1>")
    document = dom(tab, url, "2 places · 1 edges")
    assert len(re.findall('class="place', document)) == 2
    assert len(re.findall('class="edge bad"', document)) == 1
    assert "&lt;img src=x onerror=document.title=1&gt;" in document
    assert "<title>flows · kubectl gadget</title>" in document


def crowd(page: LivePage, count: int) -> None:
    """That many pods with long names: each but the first is asked by one that was there before, and some by one that
    is far away."""
    table = RowTable(AddressBook())
    names = [f"service-{number}-{'with-a-long-name' * (number % 5)}" for number in range(count)]
    far = [(number * 7 % count, number) for number in range(3, count, 5)]
    for number, (one, other) in enumerate([*((number // 3, number) for number in range(1, count)), *far]):
        client, server = ((f"10.{end >> 8}.{end & 255}.1", 40000 + number) for end in (one, other))
        asking = XWING_ROW | {"pod": names[one], "namespace": f"team-{one % 10}"}
        asked = DEATHSTAR | {"pod": names[other], "namespace": f"team-{other % 10}"}
        server = server[0], 80
        ended = tcp("close", 2, asking, client, server, initiator="this end", end="fin")
        for row in (tcp("syn", 1, asking, client, server), tcp("accept", 1.1, asked, server, client), ended):
            page.add_all(table.add(row))


_FAULTS = """(() => {
  const box = element => element.getBoundingClientRect(), found = new Set();
  const beside = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1;
  const apart = (a, b) => beside(a, b) || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
  const map = box(document.getElementById("map"));
  const places = [...document.querySelectorAll(".place")];
  const cards = places.map(place => box(place.querySelector(".card")));
  const labels = [...document.querySelectorAll(".rate:not(.off)")];
  const check = (good, text) => { if (!good) found.add(text); };
  const inside = (x, y, own) => x > own.left + 2 && x < own.right - 2 && y > own.top + 2 && y < own.bottom - 2;
  for (const edge of document.querySelectorAll(".edge")) {
    const length = edge.getTotalLength(), matrix = edge.getScreenCTM();
    for (let step = 1; step < 50; step++) {
      const {x, y} = edge.getPointAtLength(length * step / 50).matrixTransform(matrix);
      check(!cards.some(own => inside(x, y, own)), "an edge runs below a box");
    }
  }
  const alone = (label, number) => labels.slice(0, number).every(other => apart(box(label), box(other)));
  check(labels.every(alone), "labels overlap");
  cards.forEach((own, number) => {
    if (innerWidth > 600) check(own.left >= map.left && own.right <= map.right, "outside");
    if (innerWidth > 600) check(own.top >= map.top && own.bottom <= map.bottom, "outside");
    check(cards.slice(0, number).every(other => apart(own, other)), "boxes overlap");
    for (const text of places[number].querySelectorAll("text")) {
      check(box(text).right <= own.right + 1, `text leaves its box: ${text.textContent}`);
      check(box(text).height >= 7.9, `text is too small: ${box(text).height}`);
    }
    for (const label of labels) check(apart(box(label), own), `a label lies on a box: ${label.textContent}`);
  });
  return [...found].join(", ");
})()"""


@in_browser
@pytest.mark.parametrize(("count", "dark"), [(2, False), (12, True), (40, False), (300, False)])
def test_names_can_be_read_and_nothing_lies_on_a_box_with_few_and_with_hundreds_of_places(
    tab: Page, count: int, dark: bool
) -> None:
    page = LivePage()
    crowd(page, count)
    with served(page) as url, the_map(tab, url, "dark" if dark else "light"):
        tab.wait(f"document.getElementById('state')?.textContent.startsWith('{count} places')")
        assert tab.script("document.querySelectorAll('.place').length") == count
        assert tab.script(_FAULTS) == ""


@in_browser
def test_the_map_can_be_read_on_a_telephone(tab: Page) -> None:
    page = LivePage()
    crowd(page, 16)
    tab.ask("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    try:
        with served(page) as url, the_map(tab, url):
            tab.wait("document.getElementById('state')?.textContent.startsWith('16 places')")
            assert tab.script(_FAULTS) == ""
            tab.script("document.querySelector('.place').dispatchEvent(new MouseEvent('click'))")
            tab.wait("document.querySelector('.rate:not(.off)') && document.querySelector('#side h2')")
            assert tab.script(_FAULTS) == ""
            assert tab.script("document.documentElement.scrollWidth <= innerWidth")
            assert tab.script("parent.document.documentElement.scrollWidth") == 360
            assert tab.script("document.getElementById('map').clientHeight") >= 250
    finally:
        tab.ask("Emulation.clearDeviceMetricsOverride")


@in_browser
def test_all_can_be_done_with_the_keyboard(url: str, tab: Page) -> None:
    with the_map(tab, url):
        tab.wait("document.getElementById('state').textContent.startsWith('2 places')")
        tab.press("/")
        tab.script("document.execCommand('insertText', false, 'no such pod')")
        tab.wait("document.getElementById('empty').textContent.startsWith('No flow matches')")
        tab.press("Escape")
        tab.wait("document.getElementById('empty').textContent === '' && !document.querySelector('.place.off')")
        tab.script("document.querySelector('.place').focus()")
        tab.press("Enter")
        tab.wait("document.querySelector('#side h2') && document.querySelectorAll('.place.chosen').length === 1")
        tab.wait("decodeURIComponent(parent.location.hash).startsWith('#Pod/')")
        tab.press("Escape")
        tab.wait("!document.querySelector('#side h2')")
        tab.press("p")
    tab.wait("document.getElementById('pause').ariaPressed === 'true'")


@in_browser
def test_an_edge_says_how_many_bytes_go_over_it_in_a_second(page: LivePage, url: str, tab: Page) -> None:
    table, second, sent = RowTable(AddressBook()), 5.0, 0
    client = ("10.1.0.2", 41000)
    page.add_all(table.add(tcp("syn", second, local=client)))
    with the_map(tab, url):
        tab.wait("document.querySelector('.rate')")
        for _ in range(100):
            sent, second = sent + 1_000_000, second + 1
            page.add_all(table.add(tcp("report", second, local=client, initiator="this end", sent=sent, received=0)))
            if tab.script("[...edges.values()].some(edge => edge.rate > 1000)"):
                return
            tab.script("new Promise(done => setTimeout(done, 100))")
    raise AssertionError("no edge has a rate")


def with_two_ports() -> LivePage:
    """xwing talks to two ports of deathstar, of which one is dropped."""
    page, table = LivePage(), RowTable(AddressBook())
    tell(page, table, 1)
    client, server = ("10.1.0.2", 42000), (SERVER[0], 9090)
    for row in (
        tcp("syn", 2, local=client, remote=server, comm="wget"),
        tcp("accept", 2.1, DEATHSTAR, server, client),
    ):
        page.add_all(table.add(row))
    return page


@in_browser
def test_an_edge_names_its_ports_and_is_mixed_where_only_one_has_trouble(tab: Page) -> None:
    with served(with_two_ports()) as url, the_map(tab, url):
        tab.wait("document.querySelector('.edge')")
        tab.wait(
            "[...document.querySelector('.rate').children].map(t => t.textContent).join('|') === '8080, 9090|1 dropped'"
        )
        assert tab.script("document.querySelector('.edge').getAttribute('class')") == "edge mixed"
        assert tab.script("document.querySelector('.edge title').textContent").splitlines() == [
            "8080/TCP: 1 flows, 1 dropped",
            "9090/TCP: 1 flows",
            "2 flows, 0B out, 0B in",
            "1 dropped",
        ]


@in_browser
def test_each_word_of_the_filter_has_to_fit_and_the_list_follows(tab: Page) -> None:
    rows, text = (
        "[...document.querySelectorAll('#log tbody tr')]",
        "row.cells[1].textContent + row.cells[4].textContent",
    )
    shown = f"{rows}.map(row => {text})"
    with served(with_two_ports()) as url, the_map(tab, url):
        tab.wait("document.querySelectorAll('#log tbody tr').length === 3")

        def type_in(text: str) -> None:
            tab.press("Escape")
            tab.press("/")
            tab.script(f"document.execCommand('insertText', false, {json.dumps(text)})")

        type_in("xwing 9090 wget")
        tab.wait(f"({shown}).every(text => text.includes('wget')) && ({shown}).length === 1")
        assert not tab.script("document.querySelector('.edge.off')")
        type_in("xwing 9091")
        tab.wait(f"({shown}).length === 0 && document.querySelector('.edge.off')")
        type_in("deathstar dropped")
        tab.wait(f"({shown}).length === 1 && ({shown})[0].includes('DROPPED')")
        tab.press("Escape")
        tab.wait(f"({shown}).length === 3")
        tab.press("t")
        tab.wait(f"({shown}).length === 1")


@in_browser
def test_a_flow_that_the_page_was_sent_twice_is_listed_once_after_a_pause(tab: Page) -> None:
    page, table = LivePage(), RowTable(AddressBook())
    tell(page, table, 1)
    count = "document.querySelectorAll('#log tbody tr').length"
    with served(page) as url, the_map(tab, url):
        tab.wait(f"{count} >= 2")
        before = tab.script(count)
        tell(page, table, 2, "wget")  # comes after the update that repeats the first flows
        tab.wait(f"{count} > {before}")
        for pressed in ("true", "false"):
            tab.press("p")
            tab.wait(f"parent.document.getElementById('pause').ariaPressed === '{pressed}'")
        tab.script("new Promise(done => setTimeout(done, 300))")
        listed, different = tab.script("[events.length, new Set(events.map(event => event.id)).size]")
        assert listed == different


def test_what_the_page_keeps_is_limited_however_many_names_and_ports_pods_choose() -> None:
    page, table = LivePage(), RowTable(AddressBook())
    for number in range(1500):
        ends = {"local": (CLIENT[0], 1024 + number), "remote": (SERVER[0], 1 + number)}
        page.add_all(table.add(tcp("syn", number / 100, comm=f"c{number}", **ends)))
    (edge,) = page.graph.edges.values()
    assert (len(edge.ports), len(edge.processes)) == (1001, 100)
    assert sum(counts.flows for counts in edge.ports.values()) == edge.flows == 1500


def test_places_that_are_not_on_the_map_take_no_memory() -> None:
    page, table = LivePage(most_edges=5), RowTable(AddressBook())
    for number in range(97):
        ends = {"local": (CLIENT[0], 1024 + number), "remote": (f"198.51.100.{number}", 80)}
        page.add_all(table.add(tcp("syn", number / 100, exec_id=ExecId(number, 1).text("node-1"), **ends)))
    assert page.all()["left_out"] == page.graph.left_out == 92
    assert len(page.graph.edges) == 5
    assert page.places <= 6
