"""Call stacks of `profile` as OTLP profiles, a signal in development: collectors may not take it yet.

A profile belongs to a container and has one kind of value. All profiles of a request share its dictionary, so requests
cannot be joined as those of other signals can, and each is sent alone.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import add
from typing import Any

import numpy as np
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceRequest,
    ExportProfilesServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.profiles.v1development.profiles_pb2 import (
    Function,
    KeyValueAndUnit,
    Line,
    Link,
    Location,
    Profile,
    ProfilesDictionary,
    Sample,
    ScopeProfiles,
    Stack,
    ValueType,
)
from opentelemetry.proto.profiles.v1development.profiles_pb2 import (
    Mapping as MappedFile,
)

from kubectl_gadget import __version__
from kubectl_gadget.export.conventions import SCHEMA_URL
from kubectl_gadget.export.delivery import Counts, Delivery, lost_line
from kubectl_gadget.export.http import HttpTransport
from kubectl_gadget.export.otlp import SCOPE, answered, any_value, resource_of
from kubectl_gadget.export.sending import Sending
from kubectl_gadget.export.targets import Target
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.profiles import PathStep, has_stacks, samples, unit_of
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wording import count

PROFILES = "v1development/profiles"
"""The end of the URL that takes profiles."""
IF_MISSING = "it takes no profiles; metrics are sent"
_NOUN = "profile"
_ROWS_AT_ONCE = 10_000
"""in a request"""
_Key = tuple[tuple[PathStep, ...], int, str]
"""Calls, PID and name of the thread of a sample"""


def are_profiles(gadgets: Sequence[Gadget]) -> bool:
    """Return True if the rows of these gadgets have call stacks."""
    return all(has_stacks(gadget) and not gadget.totals.gauge for gadget in gadgets)


class ProfilesSent:
    """A collector that gets call stacks as profiles, and what they add up to as `metrics` (sending.Sending)."""

    def __init__(self, target: Target, metrics: Sending, resource: Mapping[str, str], transport: HttpTransport) -> None:
        transport.most_items = 1
        self._metrics = metrics
        self._resource = dict(resource)
        self._transport = transport
        self._delivery = Delivery(target.name, transport, noun=_NOUN)
        self.gap, self.tick = metrics.gap, metrics.tick

    def begin(self, warn: Callable[[str], object]) -> None:
        """See Sending."""
        self._metrics.begin(warn)
        self._delivery.begin(warn)

    def write(self, shown: Rows, everything: Rows) -> None:
        """See Sending."""
        self._metrics.write(shown, everything)
        if self._transport.is_missing:
            return
        for chunk in everything.chunks(_ROWS_AT_ONCE):
            for batch in chunk.joined[0]:
                request, profiles = requested(Rows([batch]), batch.gadget, self._resource)
                self._delivery.offer([request.SerializeToString()], profiles)

    def finish(self) -> None:
        """See Sending."""
        self._metrics.finish()
        self._delivery.finish()

    def close(self) -> None:
        """See Sending."""
        self._metrics.close()
        self._delivery.close()

    @property
    def lost(self) -> int:
        """See Sending. A collector that has no profiles loses none."""
        return self._metrics.lost + (0 if self._transport.is_missing else self._delivery.counts().total_lost)

    def counts(self) -> Iterator[tuple[str, Counts]]:
        """See Sending."""
        yield from self._metrics.counts()
        if not self._transport.is_missing:
            yield _NOUN, self._delivery.counts()

    def summary(self) -> Iterator[str]:
        """See Sending."""
        yield from self._metrics.summary()
        if not self._transport.is_missing:
            yield f"export {self._delivery.name}: {count(self._delivery.counts().delivered, _NOUN)} delivered"

    def losses(self) -> Iterator[str]:
        """See Sending."""
        yield from self._metrics.losses()
        if not self._transport.is_missing and (counts := self._delivery.counts()).lost:
            yield lost_line(self._delivery.name, counts, _NOUN)


# Encoding.


class _Dictionary:
    """What the profiles of a request share. The first element of each table is empty, so that 0 means none."""

    def __init__(self) -> None:
        self.made = ProfilesDictionary(
            mapping_table=[MappedFile()],
            location_table=[Location()],
            function_table=[Function()],
            link_table=[Link()],
            string_table=[""],
            attribute_table=[KeyValueAndUnit()],
            stack_table=[Stack()],
        )
        self._places: dict[Any, int] = {"": 0}

    def _place(self, key: Any, table: Any, make: Callable[[], Any]) -> int:
        found = self._places.get(key)
        if found is None:
            made = make()  # which may add what it refers to
            found = self._places[key] = len(table)
            table.append(made)
        return found

    def text(self, text: str) -> int:
        """Return the number of a text."""
        return self._place(text, self.made.string_table, lambda: text.encode("utf-8", "replace").decode())

    def attribute(self, name: str, value: str | int) -> int:
        """Return the number of an attribute."""
        return self._place(
            (name, value),
            self.made.attribute_table,
            lambda: KeyValueAndUnit(key_strindex=self.text(name), value=any_value(value)),
        )

    def stack(self, calls: Sequence[PathStep]) -> int:
        """Return the number of a stack, whose first location is the innermost call."""
        return self._place(
            tuple(calls),
            self.made.stack_table,
            lambda: Stack(location_indices=[self._location(call) for call in reversed(calls)]),
        )

    def _location(self, call: PathStep) -> int:
        def make() -> Location:
            kinds = [self.attribute("profile.frame.type", "kernel")] if call.kind == "kernel" else []
            line = Line(function_index=self._function(call))
            return Location(mapping_index=self._file(call.module), lines=[line], attribute_indices=kinds)

        return self._place(call, self.made.location_table, make)

    def _function(self, call: PathStep) -> int:
        return self._place(
            ("function", call.title, call.module),
            self.made.function_table,
            lambda: Function(name_strindex=self.text(call.title)),
        )

    def _file(self, name: str) -> int:
        if not name:
            return 0
        return self._place(
            ("file", name), self.made.mapping_table, lambda: MappedFile(filename_strindex=self.text(name))
        )


def requested(rows: Rows, gadget: Gadget, resource: Mapping[str, str]) -> tuple[ExportProfilesServiceRequest, int]:
    """Return a request with the rows of one gadget, and the number of its profiles."""
    until = max(int(np.max(part.wall_ns())) for part in rows.parts)
    interval = max(int(np.max(part.raw("interval"))) for part in rows.parts)
    # Rows of one stack differ in addresses within its functions, which are left out here.
    of_containers: dict[tuple[str, ...], dict[_Key, list[int]]] = {}
    for row in samples(rows, gadget):
        found = of_containers.setdefault(row.owner[:4], {})
        key = row.calls, row.pid, row.owner[4]
        before = found.get(key)
        found[key] = list(row.values) if before is None else list(map(add, before, row.values))
    made, dictionary, number = ExportProfilesServiceRequest(), _Dictionary(), 0
    for (node, *names), found in of_containers.items():
        container = dict(zip(("namespace", "pod", "container"), names, strict=True))
        group = made.resource_profiles.add(resource=resource_of(resource, node, container), schema_url=SCHEMA_URL)
        scope: ScopeProfiles = group.scope_profiles.add(
            scope=InstrumentationScope(name=SCOPE, version=__version__), schema_url=SCHEMA_URL
        )
        for place, name in enumerate(gadget.totals.sums):
            unit = ValueType(type_strindex=dictionary.text(name), unit_strindex=dictionary.text(unit_of(gadget, name)))
            profile = Profile(
                sample_type=unit,
                samples=[_sample(key, values[place], dictionary) for key, values in found.items() if values[place]],
                time_unix_nano=until - interval,
                duration_nano=interval,
                profile_id=os.urandom(16),
                attribute_indices=[dictionary.attribute("gadget.name", f"profile {gadget.event}")],
            )
            scope.profiles.append(profile)
            number += 1
    made.dictionary.CopyFrom(dictionary.made)
    return made, number


def _sample(key: _Key, value: int, dictionary: _Dictionary) -> Sample:
    calls, pid, thread = key
    attributes = [dictionary.attribute("process.pid", pid), dictionary.attribute("thread.name", thread)]
    return Sample(stack_index=dictionary.stack(calls), attribute_indices=attributes, values=[value])


def rejected_profiles(answer: bytes) -> tuple[int, str]:
    """Return how many profiles a collector has not taken, and why. Raises Refused if it gives no such answer."""
    partial = answered(ExportProfilesServiceResponse, answer).partial_success
    return max(0, int(partial.rejected_profiles)), str(partial.error_message)
