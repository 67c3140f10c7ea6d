"""Which events are shown: every condition, of either end."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.flows import filter
from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.filter import FlowFilter, OfEnds
from kubectl_gadget.flows.flow import FlowEvent, Party, Who
from kubectl_gadget.flows.records import FLOW, record
from kubectl_gadget.flows.rows import GADGET, batch_of
from kubectl_gadget.kube.addresses import Addresses, PodFacts
from kubectl_gadget.rows.shapes import ANY, Shape
from tests.flows.rows import SERVER, RowTable, dns, drop, http, icmp, tcp


@pytest.fixture(name="event")
def an_event() -> FlowEvent:
    book = AddressBook()
    pods = {
        ("default", "xwing"): PodFacts("default", "xwing", ("app=x", "org=alliance")),
        ("empire", "deathstar"): PodFacts("empire", "deathstar", ("org=empire",)),
    }
    book.cluster = Addresses(pods={SERVER[0]: pods["empire", "deathstar"]}, by_name=pods)
    (event,) = RowTable(book).add(tcp("syn", 1))
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
        (filter.service([""]), False, False),
        (filter.names(["*.com"]), False, False),
    ],
)
def test_a_condition_on_an_end(event: FlowEvent, test: Callable[..., bool], client: bool, server: bool) -> None:
    found = [OfEnds(of, test)(event) for of in ("from", "to", "")]
    assert found == [client, server, client or server]


def test_conditions_must_all_hold(event: FlowEvent) -> None:
    tests = [
        filter.protocol(["tcp"]),
        filter.verdict(["forwarded"]),
        filter.traffic_direction(["egress"]),
    ]
    assert FlowFilter(tests).select([event]) == [event]
    assert not FlowFilter([*tests, filter.verdict(["DROPPED"])]).select([event])


def test_what_stays_within_one_pod_is_counted_when_it_would_have_been_shown(event: FlowEvent) -> None:
    event.flow.server = replace(event.flow.server, ip=event.flow.client.ip)
    assert FlowFilter().select([event]) == [event]
    hiding = FlowFilter([filter.protocol(["tcp"])], internal=False)
    assert not hiding.select([event, event])
    assert hiding.hidden == 2
    other = FlowFilter([filter.protocol(["udp"])], internal=False)
    assert not other.select([event])
    assert other.hidden == 0


def test_conditions_on_dns_http_and_drops() -> None:
    table = RowTable(AddressBook())
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
    assert not filter.protocol(["grpc", "udp"])(request)
    assert filter.verdict(["dropped"])(dropped)
    assert not any(test(dropped) for test in (filter.dns(["*"]), filter.http_path([""])))


def test_dns_names_are_compared_without_regard_to_case() -> None:
    table = RowTable(AddressBook())
    asked = next(iter(table.add(dns(1, "wWw.EXAMPLE.com.", []))))
    assert filter.dns(["www.example.com"])(asked)
    assert filter.dns(["*.Example.Com."])(asked)
    end = Party("10.0.0.1", 80, Who(names=("wWw.EXAMPLE.com",)))
    assert filter.names(["*.example.com"])(end)


def test_icmp_means_both_versions_and_a_status_begins_with_given_digits() -> None:
    table = RowTable(AddressBook())
    event = next(iter(table.add(icmp("first", 1))))
    assert filter.protocol(["icmp"])(event)
    assert filter.protocol(["icmpv4"])(event)
    assert not filter.protocol(["icmpv6"])(event)
    event.flow.protocol = "ICMPv6"
    assert filter.protocol(["icmp"])(event)
    assert not filter.protocol(["icmpv4"])(event)
    request = next(iter(table.add(http(2, "/attack", 503))))
    assert filter.http_status(["50+"])(request)
    assert not filter.http_status(["51+"])(request)


@pytest.mark.parametrize(
    ("condition", "text", "why"),
    [
        (filter.ports, "99999", "must be between 0 and 65535"),
        (filter.ports, "9000-8000", "its end is below its beginning"),
        (filter.ports, "web", "neither a number nor a range"),
        (filter.http_status, "5000+", "must be between 100 and 999"),
        (filter.http_status, "x+", "neither a number nor a range"),
        (filter.protocol, "tpc", "must be one of TCP"),
    ],
)
def test_a_condition_that_never_holds_is_refused(condition: Callable[..., object], text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        condition([text])


def matches(event: FlowEvent, text: str) -> bool:
    return bool(compile_filter(text, [GADGET]).mask(batch_of([event])).all())


def test_a_cel_expression_sees_the_members_of_json(event: FlowEvent) -> None:
    assert matches(event, 'source.pod == "xwing" && destination.port == 8080')
    assert not matches(event, 'destination.pod == "xwing"')
    assert not matches(event, "l7.status == 200")


@pytest.mark.parametrize("text", ["backend.pod == null", 'backend.pod != "x"', "!(l7.status == 200)", "l7.status != 1"])
def test_a_member_of_what_an_event_lacks_is_an_error_and_not_null(event: FlowEvent, text: str) -> None:
    assert not matches(event, text)


@pytest.mark.parametrize(
    "text",
    [
        'source.labels.exists(label, label == "app=x")',
        '"app=x" in source.labels',
        "has(source.pod) && l7 == null",
        "source.workload == null && backend == null",
        'seen_by == ["client"]',
        "rtt == null && sent == 0",
        'timestamp < "2027"',
    ],
)
def test_expressions_of_any_kind_are_evaluated(event: FlowEvent, text: str) -> None:
    assert matches(event, text)


@pytest.mark.parametrize(
    ("text", "why", "remedy"),
    [
        ('source.podd == "xwing"', "there is no member 'podd'", "pod"),
        ('source["podd"] == "xwing"', "there is no member 'podd'", "pod"),
        ('sorce.pod == "xwing"', "there is no column 'sorce'", "source?"),
        ('source.pod.startswith("x")', "there is no method startswith()", "startsWith"),
        (
            'destination.port == "80"',
            "this is a number and cannot be compared with a string",
            "'destination.port == 80'",
        ),
        ("has(l7.statuss)", "there is no member 'statuss'", "status"),
        ("source.labels == 'app=x'", "cannot be compared", None),
        ("source.pod", "this is a string, not a condition", None),
        ('verdict == "dropped"', "verdict is never 'dropped'", "DROPPED"),
        ('kind in ["new", "closed"]', "kind is never 'closed'", "close"),
        ("source.pod = 'x'", "CEL writes == for equal", "source.pod == "),
    ],
)
def test_an_expression_that_never_matches_is_refused(text: str, why: str, remedy: str | None) -> None:
    with pytest.raises(UsageError, match=re.escape(why)) as caught:
        compile_filter(text, [GADGET])
    assert remedy is None or remedy in str(caught.value.remedy).replace("'\"'\"'", "'")


def test_errors_of_an_expression_are_counted(event: FlowEvent) -> None:
    found = compile_filter("l7.status == 200", [GADGET])
    assert not found.mask(batch_of([event])).any()
    assert found.errors == 1
    assert found.first_error


def fits(shape: Shape, value: object) -> bool:
    """True if a value of JSON is of this shape, with no members that it does not know."""
    if value is None or shape.name == "dyn":
        return True
    if isinstance(value, dict):
        known = shape.members
        return known is not None and all(name in known and fits(known[name], item) for name, item in value.items())
    if isinstance(value, list):
        return shape.name == "list" and all(fits(shape.item or ANY, item) for item in value)
    return shape.name == {str: "text", int: "int", bool: "bool"}[type(value)]


def test_the_shapes_of_flows_are_those_of_their_json(event: FlowEvent) -> None:
    table = RowTable(AddressBook())
    events = [
        event,
        *(
            found
            for row in (dns(2, "a.b.", ["10.0.0.1"]), http(3, "/x", 200), drop(4, "NO_SOCKET"))
            for found in table.add(row)
        ),
    ]
    assert {(found.l7 or {}).get("type") for found in events} == {None, "dns", "http"}
    for found in events:
        told = record(found)
        assert set(told) == set(FLOW)
        for name, value in told.items():
            assert fits(FLOW[name], value), (name, value)
        for name in ("source", "destination"):
            assert set(told[name]) == set(FLOW[name].members or ())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (filter.addresses, "10.0.0/8x"),
        (filter.ports, "http"),
        (filter.http_status, "fine"),
        (filter.http_path, "("),
        (filter.http_path, "(?=x)"),
        (filter.labels, "a==b c"),
        (filter.verdict, "LOST"),
        (filter.traffic_direction, "in"),
    ],
)
def test_what_cannot_be_read_is_refused(make: Callable[..., object], text: str) -> None:
    with pytest.raises(UsageError):
        make([text])
