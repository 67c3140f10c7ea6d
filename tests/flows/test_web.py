"""The live page: who may open it, and what a browser shows of it."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.flows.book import AddressBook
from kubectl_gadget.flows.table import FlowTable
from kubectl_gadget.flows.web import LivePage, served
from kubectl_gadget.policy_events.exec_id import ExecId
from tests.flows.rows import DEATHSTAR, accepted, drop, tcp
from tests.observe.lives import NOON, SHELL, XWING, executed

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")


@pytest.fixture(name="page")
def a_page() -> LivePage:
    page = LivePage()
    tell(page, FlowTable(AddressBook()), 1)
    return page


def with_processes() -> tuple[LivePage, str]:
    """A page whose client was started by a shell, and the client's exec id."""
    page = LivePage()
    curl = ExecId(2000, 11)
    for happened in (executed(SHELL, "/bin/sh", "-c", "loop"), executed(curl, "/usr/bin/curl", "-s", parent=SHELL)):
        page.processes.apply("node-1", happened, XWING, NOON)
    exec_id = curl.text("node-1")
    row = tcp("syn", 1, exec_id=exec_id)
    page.add_all(FlowTable(AddressBook()).add(row))
    return page, exec_id


@pytest.fixture(name="url")
def its_url(page: LivePage) -> Iterator[str]:
    with served(page) as url:
        yield url


def tell(page: LivePage, table: FlowTable, second: float, comm: str = "curl") -> None:
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


def test_only_who_has_the_token_gets_the_page(url: str) -> None:
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


def test_a_page_gets_all_that_there_was_and_then_what_is_new(page: LivePage, url: str) -> None:
    with connect(live(url), origin=f"http://{urlsplit(url).netloc}") as socket:
        first = json.loads(socket.recv(timeout=30))
        assert first["whole"]
        assert [event["kind"] for event in first["events"]] == ["new", "drop"]
        assert first["places"]["Pod/empire/deathstar"] == {"group": "empire", "name": "deathstar", "kind": "Pod"}
        (edge,) = first["edges"]
        assert (edge["from"], edge["to"]) == ("Pod/default/xwing", "Pod/empire/deathstar")
        assert (edge["flows"], edge["dropped"], edge["ports"]) == (1, 1, ["8080/TCP"])
        assert first["processes"]["Pod/default/xwing"] == [{"pod": "default/xwing", "comm": "curl", "flows": 2}]
        page.add_all(FlowTable(AddressBook()).add(tcp("syn", 5, DEATHSTAR, ("10.2.0.3", 41000), ("10.1.0.2", 22))))
        news: list[int] = []
        while not any(identity > 2 for identity in news):
            news += [event["id"] for event in json.loads(socket.recv(timeout=30))["events"]]
    assert news[-1] == 3


def test_a_place_has_its_process_tree_with_the_connections_of_each() -> None:
    page, exec_id = with_processes()
    shell, curl = json.loads(page.all())["trees"]["Pod/default/xwing"]
    assert (shell["command"], shell["parent"], shell["connections"]) == ("/bin/sh -c loop", None, [])
    assert (curl["command"], curl["parent"], curl["id"]) == ("/usr/bin/curl -s", shell["id"], exec_id)
    assert curl["connections"] == [{"flows": 1, "last": "SYN", "bad": False, "text": "→ 10.2.0.3:8080 TCP"}]


def test_a_process_that_is_not_known_is_shown_by_its_name() -> None:
    page = LivePage()
    page.add_all(FlowTable(AddressBook()).add(tcp("syn", 1, exec_id=ExecId(5, 11).text("node-1"))))
    (node,) = json.loads(page.all())["trees"]["Pod/default/xwing"]
    assert (node["command"], node["pid"], node["parent"]) == ("curl", 11, None)


def test_a_port_that_is_taken_is_said(url: str) -> None:
    port = urlsplit(url).port
    assert port is not None
    with pytest.raises(GadgetError, match=f"port {port}"), served(LivePage(), port):
        pass


def dom(url: str, awaited: str) -> str:
    """What the page has become in a browser, once it has `awaited`: its clock does not wait for what it hears."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    for _ in range(20):
        found = subprocess.run([*command, url], capture_output=True, text=True, timeout=120, check=True).stdout
        if awaited in found:
            return found
    raise AssertionError(f"{awaited!r} is not in {found}")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_processes_below_those_that_started_them_with_their_connections() -> None:
    page, _ = with_processes()
    with served(page) as url:
        document = dom(f"{url}#Pod%2Fdefault%2Fxwing", "/usr/bin/curl -s")
    tree = document.partition('<ul class="tree">')[2]
    shell, curl, link = (tree.index(text) for text in ("/bin/sh -c loop", "/usr/bin/curl -s", "→ 10.2.0.3:8080 TCP"))
    assert shell < curl < link
    assert tree[shell:curl].count("<ul>") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_boxes_edges_and_hostile_names_as_text(page: LivePage, url: str) -> None:
    tell(page, FlowTable(AddressBook()), 3, comm="<img src=x onerror=document.title=1>")
    document = dom(url, "2 places · 1 edges")
    assert len(re.findall('class="place', document)) == 2
    assert len(re.findall('class="edge bad"', document)) == 1
    assert "&lt;img src=x onerror=document.title=1&gt;" in document
    assert "<title>flows · kubectl gadget</title>" in document
