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
from tests.flows.rows import DEATHSTAR, accepted, drop, tcp

CHROMIUM = shutil.which("chromium")


@pytest.fixture(name="page")
def a_page() -> LivePage:
    page = LivePage()
    tell(page, FlowTable(AddressBook()), 1)
    return page


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


def test_a_port_that_is_taken_is_said(url: str) -> None:
    port = urlsplit(url).port
    assert port is not None
    with pytest.raises(GadgetError, match=f"port {port}"), served(LivePage(), port):
        pass


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_boxes_edges_and_hostile_names_as_text(page: LivePage, url: str) -> None:
    tell(page, FlowTable(AddressBook()), 3, comm="<img src=x onerror=document.title=1>")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        "--dump-dom",
        url,
    ]
    document = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "2 places · 1 edges" in document
    assert len(re.findall('class="place', document)) == 2
    assert len(re.findall('class="edge bad"', document)) == 1
    assert "&lt;img src=x onerror=document.title=1&gt;" in document
    assert "<title>flows · kubectl gadget</title>" in document
