"""Selects the flow events to show: by either end, by ports, verdict, DNS and HTTP fields, or with a CEL expression.

All conditions have to hold; several values of one condition are alternatives. `from` and `to` are the flow's client and
server, whichever of them sent the packet in question.
"""

import fnmatch
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters.cel import compile_pattern
from kubectl_gadget.flows.flow import DROPPED, ERROR, FORWARDED, FlowEvent, Party
from kubectl_gadget.flows.records import direction
from kubectl_gadget.kube import selectors
from kubectl_gadget.rows.vectors import utf8

Test = Callable[[FlowEvent], bool]
_PartyTest = Callable[[Party], bool]


class FlowFilter:
    """Selects the events for which every test holds. Without `internal`, events of flows that stay within one pod or
    host are excluded and counted in `hidden`."""

    def __init__(self, tests: Sequence[Test] = (), internal: bool = True) -> None:
        self._tests = tuple(tests)
        self._internal = internal
        self.hidden = 0

    def select(self, events: Sequence[FlowEvent]) -> Sequence[FlowEvent]:
        """The events that are shown, in their order."""
        if self._tests:
            events = [event for event in events if all(test(event) for test in self._tests)]
        if not self._internal:
            wanted = len(events)
            events = [event for event in events if not event.flow.is_internal]
            self.hidden += wanted - len(events)
        return events


@dataclass(frozen=True)
class OfEnds:
    """A condition on the client (`from`), the server (`to`), or either (empty)."""

    of: str
    test: _PartyTest

    def __call__(self, event: FlowEvent) -> bool:
        if self.of != "to" and self.test(event.flow.client):
            return True
        return self.of != "from" and any(end and self.test(end) for end in (event.flow.server, event.flow.backend))


def pod(names: Sequence[str]) -> _PartyTest:
    """Pods: NAME, NAMESPACE/NAME, or a prefix followed by `*`."""
    patterns = [name if "/" in name else f"*/{name}" for name in names]
    return lambda party: party.who.pod is not None and any(fnmatch.fnmatchcase(party.name, text) for text in patterns)


def namespace(names: Sequence[str]) -> _PartyTest:
    known = frozenset(names)

    def test(party: Party) -> bool:
        who = party.who
        return (who.pod is not None and who.pod.namespace in known) or who.service.partition("/")[0] in known

    return test


def labels(texts: Sequence[str]) -> _PartyTest:
    """Pods that one of these label selectors selects. Raises UsageError."""
    known = [selectors.parse(text) for text in texts]

    def test(party: Party) -> bool:
        if party.who.pod is None:
            return False
        found = dict(label.split("=", 1) for label in party.who.pod.labels)
        return any(selector.accepts(found) for selector in known)

    return test


def service(names: Sequence[str]) -> _PartyTest:
    """Services: NAME or NAMESPACE/NAME."""
    known = frozenset(names) - {""}
    return lambda party: not known.isdisjoint((party.who.service, party.who.service.rpartition("/")[2]))


def addresses(texts: Sequence[str]) -> _PartyTest:
    """Addresses or networks, such as 10.0.0.0/8. Raises UsageError."""
    try:
        networks = [ipaddress.ip_network(text, strict=False) for text in texts]
    except ValueError as error:
        raise UsageError(str(error), "10.1.2.3, or 10.0.0.0/8") from None

    def test(party: Party) -> bool:
        address = ipaddress.ip_address(party.ip)
        return any(address in network for network in networks)

    return test


def ports(texts: Sequence[str]) -> _PartyTest:
    """Ports and ranges of them: 80, 8000-8999. Raises UsageError."""
    ranges = [_range(text, "80, or 8000-8999", 65535) for text in texts]
    return lambda party: any(low <= party.port <= high for low, high in ranges)


def processes(names: Sequence[str]) -> _PartyTest:
    known = frozenset(names)
    return lambda party: party.who.comm in known or (party.who.pid is not None and str(party.who.pid) in known)


def names(texts: Sequence[str]) -> _PartyTest:
    """DNS names of an end, with `*` for any text."""
    matches = _dns_names(texts)
    return lambda party: any(map(matches, party.who.names))


def _dns_names(texts: Sequence[str]) -> Callable[[str], bool]:
    """A test for names that match one of the patterns. DNS compares names without regard to case (RFC 4343), and some
    resolvers ask with random cases."""
    patterns = [text.rstrip(".").lower() for text in texts]
    return lambda name: any(fnmatch.fnmatchcase(name.rstrip(".").lower(), pattern) for pattern in patterns)


PARTY_TESTS: dict[str, Callable[[Sequence[str]], _PartyTest]] = {
    "pod": pod,
    "namespace": namespace,
    "label": labels,
    "service": service,
    "ip": addresses,
    "port": ports,
    "process": processes,
    "fqdn": names,
}
"""Conditions that exist for either end, with `from-` and with `to-`."""


_TRANSPORTS = {
    **{name: (name,) for name in ("TCP", "UDP", "SCTP", "UDPLITE", "ICMPV6")},
    "ICMP": ("ICMP", "ICMPV6"),
    "ICMPV4": ("ICMP",),
}
"""The protocols of flows by what may be asked for, in upper case."""
_L7_PROTOCOLS = ("DNS", "HTTP", "HTTP/1.0", "HTTP/1.1", "HTTP/2", "GRPC")


def protocol(texts: Sequence[str]) -> Test:
    """tcp, udp, dns, http, grpc; http/2 and so on; icmp is both versions of it. Raises UsageError."""
    known = _known(texts, (*_TRANSPORTS, *_L7_PROTOCOLS))
    transports = {name for text in known for name in _TRANSPORTS.get(text, ())}

    def test(event: FlowEvent) -> bool:
        spoken = event.l7 or {}
        return event.flow.protocol.upper() in transports or any(
            str(spoken.get(member)).upper() in known for member in ("type", "protocol")
        )

    return test


def verdict(texts: Sequence[str]) -> Test:
    """FORWARDED, DROPPED, ERROR. Raises UsageError."""
    known = _known(texts, (FORWARDED, DROPPED, ERROR))
    return lambda event: event.verdict in known


def _known(texts: Sequence[str], words: Sequence[str]) -> set[str]:
    """The texts in upper case. Raises UsageError for unknown words, which would silently match nothing."""
    for text in texts:
        if text.upper() not in words:
            raise UsageError(f"{text!r} must be one of {', '.join(words)}")
    return {text.upper() for text in texts}


def traffic_direction(texts: Sequence[str]) -> Test:
    """egress, ingress: the direction at the end that saw it. Raises UsageError."""
    known = _known(texts, ("EGRESS", "INGRESS"))
    return lambda event: direction(event) in known


def dns(texts: Sequence[str]) -> Test:
    """Names in DNS questions, with `*` for any text."""
    matches = _dns_names(texts)
    return _l7("dns", lambda l7: matches(str(l7["name"])))


def http_status(texts: Sequence[str]) -> Test:
    """404, 500-599, or 5+ for all that begin with 5. Raises UsageError."""
    ranges = [_range(_all_that_begin(text), "404, or 500-599", 999, lowest=100) for text in texts]
    return _l7("http", lambda l7: any(low <= (l7["status"] or 0) <= high for low, high in ranges))


def http_method(texts: Sequence[str]) -> Test:
    """GET, POST, …"""
    known = {text.upper() for text in texts}
    return _l7("http", lambda l7: l7["method"] in known)


def http_path(texts: Sequence[str]) -> Test:
    """A regular expression (RE2) for the path and query. Raises UsageError."""
    try:
        patterns = [compile_pattern(text) for text in texts]
    except ValueError as error:
        raise UsageError(f"not a valid regular expression (RE2): {error}") from None
    return _l7("http", lambda l7: any(pattern.search(utf8(l7["target"] or "")) for pattern in patterns))


EVENT_TESTS: dict[str, Callable[[Sequence[str]], Test]] = {
    "protocol": protocol,
    "verdict": verdict,
    "traffic_direction": traffic_direction,
    "dns": dns,
    "http_status": http_status,
    "http_method": http_method,
    "http_path": http_path,
}
"""Conditions on the event itself."""


def _l7(kind: str, test: Callable[[dict[str, Any]], bool]) -> Test:
    return lambda event: event.l7 is not None and event.l7["type"] == kind and test(event.l7)


def _all_that_begin(text: str) -> str:
    """500-599 for 5+, and 500-509 for 50+; other texts as they are."""
    digits = text.removesuffix("+")
    return text if digits == text else f"{digits:0<3}-{digits:9<3}"


def _range(text: str, like: str, highest: int, lowest: int = 0) -> tuple[int, int]:
    """The ends of a range, or of one number. Raises UsageError, also for a range that nothing is in."""
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()):
        raise UsageError(f"{text!r} is neither a number nor a range", like)
    first, last = int(low), int(high) if dash else int(low)
    if not lowest <= first <= last <= highest:
        what = "its end is below its beginning" if first > last else f"must be between {lowest} and {highest}"
        raise UsageError(f"{text!r}: {what}", like)
    return first, last
