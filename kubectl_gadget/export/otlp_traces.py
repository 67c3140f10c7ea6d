"""Rows that have a duration, as OTLP spans.

Both ends of a request have a row when both are traced. The server's row comes first as a rule, since it has answered
before the client has the answer; so it waits for the client's, to be its child in the same trace.
"""

import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from kubectl_gadget.export.conventions import DURATIONS, durations, levels, member_values, trace_context
from kubectl_gadget.export.delivery import Counts, Delivery, Transport, lost_line
from kubectl_gadget.export.otlp import Column, Resources, answered, by_resource, columns, framed
from kubectl_gadget.export.sending import ROWS_AT_ONCE, Sending
from kubectl_gadget.export.targets import Target
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wording import count

TRACES = "v1/traces"
"""The end of the URL that takes spans."""
IF_MISSING = "OTEL_TRACES_EXPORTER=none in the environment sends log records instead"
_NOUN = "span"
_WAIT_NS = 2 * 10**9
"""The time that a server's span waits for its client's, and that a client's is remembered."""
_SLACK_NS = 10**8
"""Clocks of two nodes may differ by this."""
_MOST_PAIRS = 20_000
"""Spans that wait or are remembered"""
_REMOTE_PARENT = 0x300
"""Flags of a span whose parent is in another process: SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE and IS_REMOTE"""
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Statuses of gRPC that are the server's errors"""


# What is a span.


@dataclass(frozen=True)
class _Shape:
    """The mapping from rows of a gadget to spans. The rows have the time of the end."""

    name: Callable[..., str]
    """given the values of `of`"""
    of: tuple[str, ...] = ()
    same: tuple[str, ...] | None = None
    """members that the rows of both ends share, beside the client's address and port; None: there is one end"""
    client: tuple[str, str] | None = None
    """members with the client's address and port; None: of the end that `role` or `initiator` says"""


def _request(protocol: str | None, method: str | None, target: str | None) -> str:
    if (protocol or "").startswith("gRPC"):
        return (target or "").strip("/") or "gRPC"
    return method or "HTTP"


def _connection(operation: str | None) -> str:
    return "TCP connection" if operation == "close" else f"TCP {operation}"


SHAPES: Mapping[str, _Shape] = {
    "trace_http": _Shape(
        _request,
        ("protocol", "method", "target"),
        ("method", "target", "host", "traceparent"),
    ),
    "trace_dns": _Shape(lambda type: f"DNS {type or 'query'}", ("type",), ("id", "name"), ("client", "client_port")),
    "trace_tls": _Shape(lambda: "TLS handshake", same=("name",)),
    "trace_tcp": _Shape(_connection, ("operation",), same=("operation",)),
    "trace_fsslower": _Shape(lambda operation: operation or "call", ("operation",)),
    "trace_exit": _Shape(lambda comm: comm or "process", ("comm",)),
    "trace_process": _Shape(lambda comm: comm or "process", ("comm",)),
}
"""By gadget. Names have few values, as stores group by them."""


def is_span(batch: Batch) -> npt.NDArray[np.bool_]:
    """Return for each row if it is a span: it has a duration."""
    return durations(batch)[1]


# Two ends of one request.


@dataclass
class _Made:
    """A span without its place in a trace."""

    place: tuple[str, Container]
    data: bytes
    begin: int
    end: int
    kind: int
    context: tuple[bytes, bytes, int] | None
    """the trace, the parent and the flags that the request has"""
    key: tuple[Any, ...] | None
    """what both ends share; None: it has one end"""
    since: int = 0
    """when it began to wait"""


class _Done(NamedTuple):
    """A span and its place in a trace."""

    made: _Made
    trace: bytes
    span: bytes
    parent: bytes
    flags: int

    @property
    def begin(self) -> int:
        return self.made.begin

    @property
    def end(self) -> int:
        return self.made.end

    def data(self) -> bytes:
        """Return the serialized Span."""
        place = Span(trace_id=self.trace, span_id=self.span, parent_span_id=self.parent, flags=self.flags)
        return self.made.data + bytes(place.SerializeToString())


@dataclass
class _Pair:
    """Spans of one key, without the spans of their other ends."""

    clients: deque[_Done] = field(default_factory=deque)
    """that were returned"""
    servers: deque[_Made] = field(default_factory=deque)
    """that wait"""


class Pairs:
    """Finds the client's span of a server's. Methods return spans that are complete, with their place in a trace."""

    def __init__(self) -> None:
        self._now = 0
        self._pairs: OrderedDict[tuple[Any, ...], _Pair] = OrderedDict()
        """by key; those that got a span last are at the end"""
        self._count = 0

    def add(self, made: _Made) -> "list[_Done]":
        """Take a span."""
        if made.key is None:
            return [_Done(made, *_root(made))]
        pair = self._pairs.setdefault(made.key, _Pair())
        self._pairs.move_to_end(made.key)
        found = self._expire(pair)
        made.since = self._now
        if made.kind == Span.SPAN_KIND_SERVER:
            if (client := _nearest(pair.clients, made)) is None:
                pair.servers.append(made)
                self._count += 1
                return [*found, *self._bounded()]
            pair.clients.remove(client)
            self._count -= 1
            return [*found, _Done(made, *_child(client))]
        client = _Done(made, *_root(made))
        if (server := _nearest(pair.servers, made)) is None:
            pair.clients.append(client)
            self._count += 1
            return [*found, client, *self._bounded()]
        pair.servers.remove(server)
        self._count -= 1
        return [*found, client, _Done(server, *_child(client))]

    def tick(self, now_ns: int) -> "list[_Done]":
        """Give up waiting after _WAIT_NS."""
        self._now = now_ns
        found: list[_Done] = []
        while self._pairs:
            key, pair = next(iter(self._pairs.items()))
            found += self._expire(pair)
            if pair.clients or pair.servers:
                break
            del self._pairs[key]
        return found

    def flush(self) -> "list[_Done]":
        """Give up waiting."""
        found = [_Done(made, *_root(made)) for pair in self._pairs.values() for made in pair.servers]
        self._pairs.clear()
        self._count = 0
        return found

    def _expire(self, pair: _Pair) -> "list[_Done]":
        found: list[_Done] = []
        before = self._now - _WAIT_NS
        while pair.clients and pair.clients[0].made.since <= before:
            pair.clients.popleft()
            self._count -= 1
        while pair.servers and pair.servers[0].since <= before:
            made = pair.servers.popleft()
            found.append(_Done(made, *_root(made)))
            self._count -= 1
        return found

    def _bounded(self) -> "list[_Done]":
        found: list[_Done] = []
        while self._count > _MOST_PAIRS:
            _, pair = self._pairs.popitem(last=False)
            self._count -= len(pair.clients) + len(pair.servers)
            found += [_Done(made, *_root(made)) for made in pair.servers]
        return found


def _nearest(waiting: "deque[Any]", made: _Made) -> Any:
    """Return what overlaps this span and begins nearest to it. Equal requests of one connection may wait."""
    fitting = [each for each in waiting if each.begin <= made.end + _SLACK_NS and made.begin <= each.end + _SLACK_NS]
    return min(fitting, key=lambda each: abs(each.begin - made.begin), default=None)


def _root(made: _Made) -> tuple[bytes, bytes, bytes, int]:
    """Return trace, span, parent and flags of a span whose only parent is the one that its request names."""
    trace, parent, flags = made.context or (os.urandom(16), b"", 1)
    return trace, os.urandom(8), parent, flags | (_REMOTE_PARENT if parent else 0)


def _child(client: _Done) -> tuple[bytes, bytes, bytes, int]:
    return client.trace, os.urandom(8), client.span, client.flags | _REMOTE_PARENT


# Encoding.


class _GadgetSpans:
    """The properties of the spans of one gadget."""

    def __init__(self, gadget: Gadget) -> None:
        self.shape = SHAPES[gadget.name]
        self.columns: list[Column] = [
            column
            for column in columns(gadget, Span)
            if column.member.name not in (DURATIONS[gadget.name], "traceparent")
        ]


class Encoded(NamedTuple):
    """A part of an ExportTraceServiceRequest."""

    data: bytes
    spans: int


class SpanRecords:
    """Encodes rows that are spans as parts of an ExportTraceServiceRequest; any number of parts in a row are one."""

    def __init__(self, resource: Mapping[str, str]) -> None:
        """`resource`: more attributes of all resources."""
        self._gadgets: dict[str, _GadgetSpans] = {}
        self._resources = Resources(resource)
        self._pairs = Pairs()
        self.waiting = 0
        """The number of spans that were given and not returned"""

    def encode(self, batches: Sequence[Batch]) -> "Encoded":
        """Take rows, which are all spans."""
        self.waiting += sum(map(len, batches))
        return self._framed([done for batch in batches for made in self._made(batch) for done in self._pairs.add(made)])

    def tick(self, now_ns: int) -> "Encoded":
        """Return the spans that have waited long enough."""
        return self._framed(self._pairs.tick(now_ns))

    def flush(self) -> "Encoded":
        """Return the spans that wait."""
        return self._framed(self._pairs.flush())

    def _framed(self, spans: Sequence[_Done]) -> "Encoded":
        self.waiting -= len(spans)
        places: dict[tuple[str, Container], list[bytes]] = {}
        for done in spans:
            places.setdefault(done.made.place, []).append(done.data())
        return Encoded(framed(1, [self._resources.of(*place, data) for place, data in places.items()]), len(spans))

    def _made(self, batch: Batch) -> list[_Made]:
        known = self._gadgets.get(batch.gadget.name)
        if known is None:
            known = self._gadgets[batch.gadget.name] = _GadgetSpans(batch.gadget)
        shape = known.shape
        ends = batch.wall_ns()
        begins = ends - durations(batch)[0]
        kinds, clients = _ends(batch, shape)
        names = [shape.name(*values) for values in _together(batch, shape.of)]
        columns = [found for column in known.columns if (found := column.read(batch)) is not None]
        attributes = list(map(b"".join, zip(*columns, strict=True))) if columns else [b""] * len(batch)
        places = [place for place, _ in sorted(_places(batch), key=lambda each: each[1])]
        keys = _together(batch, shape.same) if shape.same is not None else [()] * len(batch)
        made = []
        for place, data, name, begin, end, kind, client, failed, context, key in zip(
            places,
            attributes,
            names,
            begins.tolist(),
            ends.tolist(),
            kinds,
            clients,
            _failed(batch, kinds),
            member_values(batch, "traceparent"),
            keys,
            strict=True,
        ):
            head = Span(name=name, kind=kind, start_time_unix_nano=begin, end_time_unix_nano=end)
            if failed:
                head.status.code = Status.STATUS_CODE_ERROR
            whole = (batch.gadget.name, *client, *key) if client and kind != Span.SPAN_KIND_INTERNAL else None
            made.append(_Made(place, head.SerializeToString() + data, begin, end, kind, trace_context(context), whole))
        return made


def _places(batch: Batch) -> list[tuple[tuple[str, Container], int]]:
    return [(place, row) for place, rows in by_resource(batch, list(range(len(batch)))) for row in rows]


def _together(batch: Batch, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the values of members, by row."""
    if not names:
        return [()] * len(batch)
    return list(zip(*(member_values(batch, name) for name in names), strict=True))


def _ends(batch: Batch, shape: _Shape) -> "tuple[list[Span.SpanKind.ValueType], list[tuple[Any, ...] | None]]":
    """Return for each row the kind of its span, and the address and port of the client."""
    if shape.same is None:
        return [Span.SPAN_KIND_INTERNAL] * len(batch), [None] * len(batch)
    roles = member_values(batch, "initiator" if batch.gadget.name == "trace_tcp" else "role")
    kinds = [_KINDS.get(role, Span.SPAN_KIND_INTERNAL) for role in roles]
    if shape.client is not None:
        return kinds, list(_together(batch, shape.client))
    here, there = _together(batch, ("local", "local_port")), _together(batch, ("remote", "remote_port"))
    is_client = [kind == Span.SPAN_KIND_CLIENT for kind in kinds]
    return kinds, [one if client else other for client, one, other in zip(is_client, here, there, strict=True)]


_KINDS = {
    "client": Span.SPAN_KIND_CLIENT,
    "server": Span.SPAN_KIND_SERVER,
    "this end": Span.SPAN_KIND_CLIENT,
    "other end": Span.SPAN_KIND_SERVER,
}


def _failed(batch: Batch, kinds: Sequence[int]) -> list[bool]:
    """Return for each row if it is an error. A client's mistake is no error of the server (semantic conventions)."""
    found: list[bool] = (levels(batch) > 0).tolist()
    if batch.gadget.name == "trace_http":
        for row, (kind, status, grpc) in enumerate(
            zip(kinds, member_values(batch, "status"), member_values(batch, "grpc_status"), strict=True)
        ):
            if kind == Span.SPAN_KIND_SERVER and (grpc or 400 <= (status or 0) < 500):
                found[row] = grpc in _SERVER_FAULTS
    if batch.gadget.name == "trace_tls":
        found = [result != "established" for result in member_values(batch, "result")]
    if batch.gadget.name in ("trace_exit", "trace_process"):
        found = [bool(code) or bad for code, bad in zip(member_values(batch, "code"), found, strict=True)]
    return found


# The target.


class SpansSent:
    """A collector that gets rows with a duration as spans, and all others as log records (sending.Sending)."""

    def __init__(self, target: Target, logs: Sending, resource: Mapping[str, str], transport: Transport) -> None:
        self._logs = logs
        self._spans = SpanRecords(resource)
        self._delivery = Delivery(target.name, transport, noun=_NOUN)
        self.gap = logs.gap

    def begin(self, warn: Callable[[str], object]) -> None:
        """See Sending."""
        self._logs.begin(warn)
        self._delivery.begin(warn)

    def write(self, shown: Rows, everything: Rows) -> None:
        """See Sending."""
        for chunk in shown.chunks(ROWS_AT_ONCE):
            spans = chunk.mask(is_span)
            if not bool(spans.all()):
                logs = chunk.take(np.flatnonzero(~spans))
                self._logs.write(logs, logs)
            if not bool(spans.any()):
                continue
            if self._delivery.is_full:
                self._delivery.drop(int(spans.sum()))
            else:
                self._offer(self._spans.encode(chunk.take(np.flatnonzero(spans)).joined[0]))

    def tick(self, now_ns: int) -> None:
        """See Sending."""
        self._offer(self._spans.tick(now_ns))

    def finish(self) -> None:
        """See Sending."""
        self._offer(self._spans.flush())
        self._delivery.finish()
        self._logs.finish()

    def close(self) -> None:
        """See Sending."""
        self._delivery.close()
        self._logs.close()

    @property
    def lost(self) -> int:
        """See Sending."""
        return self._delivery.counts().total_lost + self._logs.lost

    def counts(self) -> Iterator[tuple[str, Counts]]:
        """See Sending."""
        yield from self._logs.counts()
        counts = self._delivery.counts()
        yield _NOUN, replace(counts, waiting=counts.waiting + self._spans.waiting)

    def summary(self) -> Iterator[str]:
        """See Sending."""
        yield from self._logs.summary()
        yield f"export {self._delivery.name}: {count(self._delivery.counts().delivered, _NOUN)} delivered"

    def losses(self) -> Iterator[str]:
        """See Sending."""
        yield from self._logs.losses()
        if (counts := self._delivery.counts()).lost:
            yield lost_line(self._delivery.name, counts, _NOUN)

    def _offer(self, encoded: Encoded) -> None:
        if encoded.spans:
            self._delivery.offer([encoded.data], encoded.spans)


def rejected_spans(answer: bytes) -> tuple[int, str]:
    """Return how many spans a collector has not taken, and why. Raises Refused if it gives no such answer."""
    partial = answered(ExportTraceServiceResponse, answer).partial_success
    return max(0, int(partial.rejected_spans)), str(partial.error_message)
