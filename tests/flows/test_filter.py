"""Which events are shown: every condition, of either end."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.flows import filter
from kubectl_gadget.flows.book import AddressBook, Addresses
from kubectl_gadget.flows.filter import FlowFilter, ends
from kubectl_gadget.flows.flow import FlowEvent, PodFacts
from kubectl_gadget.flows.table import FlowTable
from tests.flows.rows import SERVER, dns, drop, http, tcp


@pytest.fixture(name="event")
def an_event() -> FlowEvent:
    book = AddressBook()
    pods = {
        ("default", "xwing"): PodFacts("default", "xwing", ("app=x", "org=alliance")),
        ("empire", "deathstar"): PodFacts("empire", "deathstar", ("org=empire",)),
    }
    book.cluster = Addresses(pods={SERVER[0]: pods["empire", "deathstar"]}, by_name=pods)
    (event,) = FlowTable(book).add(tcp("syn", 1))
    return event


@pytest.mark.parametrize(
    ("test", "client", "server"),
    [
        (filter.pod(["xwing"]), True, False),
        (filter.pod(["empire/*"]), False, True),
        (filter.pod(["*star"]), False, True),
        (filter.namespace(["default", "other"]), True, False),
        (filter.labels(["org in (empire)"]), False, True),
        (filter.addresses(["10.2.0.0/16"]), False, True),
        (filter.ports(["8000-8999"]), False, True),
        (filter.ports(["40000"]), True, False),
        (filter.processes(["curl"]), True, False),
        (filter.processes(["11"]), True, False),
        (filter.service(["web"]), False, False),
        (filter.names(["*.com"]), False, False),
    ],
)
def test_a_condition_on_an_end(event: FlowEvent, test: Callable[..., bool], client: bool, server: bool) -> None:
    found = [ends(of, test)(event) for of in ("from", "to", "")]
    assert found == [client, server, client or server]


def test_conditions_must_all_hold(event: FlowEvent) -> None:
    tests = [filter.protocol(["tcp"]), filter.verdict(["forwarded"]), filter.traffic_direction(["egress"])]
    assert FlowFilter(tests).those([event]) == [event]
    assert not FlowFilter([*tests, filter.verdict(["DROPPED"])]).those([event])


def test_what_stays_within_one_pod_is_counted_when_it_would_have_been_shown(event: FlowEvent) -> None:
    event.flow.server = replace(event.flow.server, ip=event.flow.client.ip)
    assert FlowFilter().those([event]) == [event]
    hiding = FlowFilter([filter.protocol(["tcp"])], internal=False)
    assert not hiding.those([event, event])
    assert hiding.hidden == 2
    other = FlowFilter([filter.protocol(["udp"])], internal=False)
    assert not other.those([event])
    assert other.hidden == 0


def test_conditions_on_what_is_said() -> None:
    table = FlowTable(AddressBook())
    rows = [dns(1, "a.example.com.", []), http(2, "/attack", 503), drop(3, "NETFILTER_DROP")]
    name, request, dropped = (next(iter(table.add(row))) for row in rows)
    assert filter.dns(["*.example.com"])(name)
    assert not filter.dns(["example.com"])(name)
    assert filter.http_status(["5+"])(request)
    assert filter.http_status(["500-503"])(request)
    assert not filter.http_status(["404"])(request)
    assert filter.http_method(["get"])(request)
    assert filter.http_path(["^/att"])(request)
    assert filter.protocol(["http/1.1"])(request)
    assert filter.protocol(["HTTP"])(request)
    assert not filter.protocol(["grpc", "none"])(request)
    assert filter.verdict(["dropped"])(dropped)
    assert not any(test(dropped) for test in (filter.dns(["*"]), filter.http_path([""])))


def test_a_cel_expression_sees_the_members_of_json(event: FlowEvent) -> None:
    assert filter.expression('source.pod == "xwing" && destination.port == 8080')(event)
    assert not filter.expression('destination.pod == "xwing"')(event)
    assert not filter.expression("l7.status == 200")(event)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (filter.addresses, "10.0.0/8x"),
        (filter.ports, "http"),
        (filter.http_status, "fine"),
        (filter.http_path, "("),
        (filter.labels, "a==b c"),
    ],
)
def test_what_cannot_be_read_is_refused(make: Callable[..., object], text: str) -> None:
    with pytest.raises(UsageError):
        make([text])
