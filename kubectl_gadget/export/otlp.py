"""Rows as OTLP log records, by OpenTelemetry's own protobufs.

A record for each row would cost the library's message for each attribute, 20 µs. So a value of a column is serialized
once, as a record that has nothing else, and a row is the bytes of its values in a row: serialized messages that follow
each other are one message with the fields of all (protobuf's encoding guide, "Last One Wins"). Lists of records are
framed as a list of byte strings, which has the same encoding as one of messages.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from kubectl_gadget import __version__
from kubectl_gadget.export.conventions import (
    LEFT_OUT,
    LEVELS,
    SCHEMA_URL,
    attribute_name,
    attributes_of,
    is_plain,
    levels,
    resource_attributes,
    trace_context,
)
from kubectl_gadget.export.delivery import Refused
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import UNKNOWN, Container
from kubectl_gadget.rows.kinds import Member
from kubectl_gadget.rows.members import owner_texts, row_members
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.texts import CodedMarks
from kubectl_gadget.rows.vectors import pick

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Answer = TypeVar("Answer", bound=Message)

LOGS = "v1/logs"
"""The end of the URL that takes log records."""
SCOPE = "kubectl-gadget"
_MOST_KNOWN = 4096
"""Values of a column whose bytes are kept"""
_MOST_HEADS = 16 << 20
"""Bytes of resources that are kept, some 25,000 containers"""
_LONGEST_KNOWN = 256
"""Longer bytes are not kept: containers choose them."""
_MOST_HELD = 1 << 16
"""Bytes that a message may hold which is changed for each value"""
_MOST = 1 << 63
_RAW = "_raw"
"""Members with this end are the number of a name, which the attribute beside them has."""
_NUMBERS = {text: SeverityNumber.Value(f"SEVERITY_NUMBER_{text}") for text in ("INFO", "WARN", "ERROR")}


# Framing.


def _parts_type() -> Any:
    """Return a message with the lists 1 and 2 of byte strings."""
    of = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="parts.proto", package="kubectl_gadget", syntax="proto3")
    message = file.message_type.add(name="Parts")
    for number in (1, 2):
        message.field.add(name=f"list_{number}", number=number, type=of.TYPE_BYTES, label=of.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kubectl_gadget.Parts"))


_Parts = _parts_type()


def framed(number: int, messages: Sequence[bytes]) -> bytes:
    """Return a message whose field of this number, 1 or 2, is the list of these serialized messages."""
    made: bytes = _Parts(**{f"list_{number}": messages}).SerializeToString()
    return made


# Values.


def any_value(value: object) -> AnyValue:
    """Return a value of JSON as OTLP has it."""
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            # OTLP has no unsigned numbers.
            return AnyValue(int_value=value) if value < _MOST else AnyValue(string_value=str(value))
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case list() | tuple():
            return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
        case dict():
            pairs = [key_value(name, each) for name, each in value.items() if each is not None]
            return AnyValue(kvlist_value=KeyValueList(values=pairs))
    return AnyValue()


def key_value(name: str, value: object) -> KeyValue:
    """Return one attribute."""
    return KeyValue(key=name, value=any_value(value))


class _Known(dict[object, bytes]):
    """The bytes of values, by value."""

    def __init__(self, make: Callable[[object], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, value: object) -> bytes:
        made = self._make(value)
        if len(made) <= _LONGEST_KNOWN:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[value] = made
        return made


class Reused(Generic[M]):
    """A message that is changed and serialized for one value after another, since a new one each time takes longer.
    protobuf frees the texts that it had only together with the message, so after some it is made anew."""

    def __init__(self, make: Callable[[], M]) -> None:
        self._make = make
        self._message = make()
        self._held = 0

    def before(self, size: int) -> M:
        """Return the message, before it is given texts of this size."""
        self._held += size
        if self._held > _MOST_HELD:
            self._message, self._held = self._make(), size
        return self._message


# Records.


class Column:
    """A member whose values become attributes."""

    def __init__(self, gadget: str, member: Member, message: type[LogRecord] | type[Span]) -> None:
        self.member = member
        self._message = message
        self._attributes = attributes_of(gadget, member.name)
        # Of a value that becomes one attribute, the record is made once and gets each value.
        key = attribute_name(gadget, member.name)
        self._record = Reused(lambda: message(attributes=[KeyValue(key=key, value=AnyValue())]))
        self._is_plain = is_plain(gadget, member.name)
        self._known = _Known(self._bytes)
        self._is_list = member.type == "texts"
        self._is_hashable = member.type not in ("object", "buckets")

    def _bytes(self, value: object) -> bytes:
        if value is None or value == "":
            return b""
        if not self._is_plain:
            attributes = [key_value(*pair) for pair in self._attributes(value)]
            some: bytes = self._message(attributes=attributes).SerializeToString()
            return some
        if type(value) is str:
            record = self._record.before(len(value))
            record.attributes[0].value.string_value = value
        elif type(value) is int and value < _MOST:
            record = self._record.before(0)
            record.attributes[0].value.int_value = value
        else:
            any_other = any_value(value)
            record = self._record.before(any_other.ByteSize())
            record.attributes[0].value.CopyFrom(any_other)
        made: bytes = record.SerializeToString()
        return made

    def read(self, batch: Batch) -> list[bytes] | None:
        """Return the bytes for each row; None: there are none."""
        vector = batch.vector(self.member.name, self.member.read)
        if vector.absent():
            return None
        if isinstance(vector, CodedMarks):
            return pick(list(map(self._known.__getitem__, _exact(vector.words))), vector.codes)
        values = vector.values()
        if not self._is_hashable:
            return list(map(self._bytes, values))
        if self._is_list:
            values = [None if value is None else tuple(value) for value in values]
        return list(map(self._known.__getitem__, values))


def _exact(words: Sequence[str | None]) -> list[str | None]:
    return [word if word is None else word.encode("utf-8", "replace").decode() for word in words]


def columns(gadget: Gadget, message: type[LogRecord] | type[Span]) -> list[Column]:
    """Return the members of a gadget's rows that become attributes of such a message."""
    members = {member.name: member for member in row_members(gadget)}
    objects = {name.partition(".")[0] for name in members if "." in name}
    return [
        Column(gadget.name, member, message)
        for name, member in members.items()
        if name not in LEFT_OUT | objects and not (name.endswith(_RAW) and name.removesuffix(_RAW) in members)
    ]


class _GadgetRecords:
    """The properties of the records of one gadget."""

    def __init__(self, gadget: Gadget) -> None:
        members = {member.name: member for member in row_members(gadget)}
        self.columns = columns(gadget, LogRecord)
        event = gadget.event
        self.heads = [
            LogRecord(
                severity_number=_NUMBERS[level.text], severity_text=level.text, event_name=f"gadget.{event}"
            ).SerializeToString()
            for level in LEVELS
        ]
        main = next((column.name for column in gadget.columns if column.stretch and column.name in members), None)
        main = main or next((name for name in ("summary", "operation", "comm") if name in members), None)
        self.main = members[main] if main else None
        self.context = members.get("traceparent")

        records = Reused(LogRecord)

        def body(value: Any) -> bytes:
            words = value if isinstance(value, str) else " ".join(value or ())
            text = f"{event} {words}" if words else event
            record = records.before(len(text))
            record.body.string_value = text
            made: bytes = record.SerializeToString()
            return made

        self.bodies = _Known(body)


def resource_of(given: Mapping[str, str], node: str, container: Mapping[str, str]) -> Resource:
    """Return the resource of a container, or of a node, with the attributes that the environment gives."""
    found = dict(given) | resource_attributes(node, container)
    if not container.get("container") and "service.name" in given:
        found["service.name"] = given["service.name"]
    return Resource(attributes=[key_value(name, value) for name, value in found.items()])


class Resources:
    """Puts records of one kind under the resource of their container. Logs and spans have it in the same fields."""

    def __init__(self, resource: Mapping[str, str]) -> None:
        """`resource`: more attributes of all resources."""
        self._resource = dict(resource)
        scope = InstrumentationScope(name=SCOPE, version=__version__)
        self._scope: bytes = ScopeLogs(scope=scope, schema_url=SCHEMA_URL).SerializeToString()
        self._heads: dict[tuple[str, Container], bytes] = {}
        self._size = 0
        """of `_heads`"""
        self._message = Reused(lambda: ResourceLogs(schema_url=SCHEMA_URL))

    def of(self, node: str, container: Container, records: Sequence[bytes]) -> bytes:
        """Return a ResourceLogs or a ResourceSpans."""
        head = self._heads.get((node, container))
        if head is None:
            head = self._heads[node, container] = self._head(node, container)
            self._size += len(head)
            while self._size > _MOST_HEADS and len(self._heads) > 1:
                self._size -= len(self._heads.pop(next(iter(self._heads))))
        return head + framed(2, [self._scope + framed(2, records)])

    def _head(self, node: str, container: Container) -> bytes:
        members = {name: getattr(container, name) for name in ("namespace", "pod", "container", "image")}
        members |= {name: getattr(container, name) for name in ("container_id", "pod_uid", "runtime")}
        found = self._resource | resource_attributes(node, members)
        if not members["container"] and "service.name" in self._resource:
            found["service.name"] = self._resource["service.name"]
        # The same message each time: new messages for it and its attributes took three times as long.
        message = self._message.before(sum(len(name) + len(value) for name, value in found.items()))
        attributes = message.resource.attributes
        del attributes[:]
        for name, value in found.items():
            attributes.add(key=name).value.string_value = value
        made: bytes = message.SerializeToString()
        return made


class LogRecords:
    """Encodes rows as parts of an ExportLogsServiceRequest; any number of parts in a row are one request."""

    def __init__(self, gadgets: Sequence[Gadget], resource: Mapping[str, str]) -> None:
        """`resource`: more attributes of all resources."""
        self._gadgets = {gadget.name: _GadgetRecords(gadget) for gadget in gadgets}
        self._resources = Resources(resource)

    def encode(self, rows: Rows) -> list[bytes]:
        """Return the rows, by resource."""
        return [self._resource_logs(part) for part in rows.joined[0]]

    def gap(self, node: str, seconds: float, until_ns: int) -> list[bytes]:
        """Return the record of missing time."""
        level = LEVELS[1]
        record = LogRecord(
            time_unix_nano=until_ns,
            observed_time_unix_nano=until_ns,
            severity_number=_NUMBERS[level.text],
            severity_text=level.text,
            event_name="gadget.gap",
            body=AnyValue(string_value=f"{seconds:g} s of events are missing"),
            attributes=[key_value("gadget.gap_seconds", seconds)],
        )
        return [framed(1, [self._resources.of(node, UNKNOWN, [record.SerializeToString()])])]

    def _resource_logs(self, batch: Batch) -> bytes:
        known = self._gadgets.get(batch.gadget.name)
        if known is None:
            known = self._gadgets[batch.gadget.name] = _GadgetRecords(batch.gadget)
        columns: list[list[bytes]] = [
            _times(batch.wall_ns().tolist()),
            pick(known.heads, levels(batch)),
        ]
        if known.main is not None:
            values = batch.vector(known.main.name, known.main.read).values()
            if known.main.type == "texts":
                values = [None if value is None else tuple(value) for value in values]
            columns.append(list(map(known.bodies.__getitem__, values)))
        if known.context is not None:
            values = batch.vector("traceparent", known.context.read).values()
            columns.append(list(map(_in_trace, values)))
        columns += [found for column in known.columns if (found := column.read(batch)) is not None]
        records = list(map(b"".join, zip(*columns, strict=True)))
        return framed(1, [self._resources.of(*key, found) for key, found in by_resource(batch, records)])


def _in_trace(text: str | None) -> bytes:
    """Return a record that has only the trace that its request belongs to."""
    if (found := trace_context(text)) is None:
        return b""
    made: bytes = LogRecord(trace_id=found[0], span_id=found[1], flags=found[2]).SerializeToString()
    return made


def _times(times: list[int]) -> list[bytes]:
    """Return records that have only these times."""
    record, found = LogRecord(), list[bytes]()
    for time in times:
        record.time_unix_nano = record.observed_time_unix_nano = time
        found.append(record.SerializeToString())
    return found


def by_resource(batch: Batch, records: list[T]) -> "list[tuple[tuple[str, Container], list[T]]]":
    """Return the records of each resource, in their order."""
    nodes = owner_texts(batch, "node")
    owners = batch.owners
    containers: Sequence[Container] = [UNKNOWN] if owners is None else owners.containers
    places = np.zeros(len(batch), np.intp) if owners is None else owners.codes
    codes = nodes.codes * len(containers) + places
    if not len(codes):
        return []
    order = np.argsort(codes, kind="stable")
    starts = [0, *(np.flatnonzero(np.diff(codes[order])) + 1).tolist(), len(codes)]
    ordered = pick(records, order)
    return [
        ((nodes.words[code // len(containers)], containers[code % len(containers)]), ordered[start:end])
        for start, end, code in zip(starts, starts[1:], codes[order][starts[:-1]].tolist(), strict=False)
    ]


def answered(kind: type[Answer], answer: bytes) -> Answer:
    """Return what a collector has answered. Raises Refused if it is no such message."""
    try:
        message: Answer = kind.FromString(answer)
    except Exception as error:  # the library has two classes DecodeError
        raise Refused(f"the answer is not OTLP: {error}") from None
    return message


def rejected_logs(answer: bytes) -> tuple[int, str]:
    """Return how many records a collector has not taken, and why. Raises Refused if it gives no such answer."""
    partial = answered(ExportLogsServiceResponse, answer).partial_success
    return max(0, int(partial.rejected_log_records)), str(partial.error_message)
