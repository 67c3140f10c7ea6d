"""Decodes a hook's records into events without the policies, using the metadata that the client generated.

The trap: one record contains several events, one for each policy whose selector matched.
"""

import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.wire.policy_events.event import PolicyEvent
from kubectl_gadget.wire.policy_events.event_metadata import EventMetadata, make_event, match_of, read_metadata
from kubectl_gadget.wire.policy_events.policy_record import Form, Found, Type, Value, verdict_text


@dataclass(frozen=True)
class SelectorMetadata:
    """The static metadata of a selector's events, and the slots that their values come from."""

    description: EventMetadata
    policy: int
    """number of its policy among the installed ones"""
    slots: tuple[int | None, ...]
    data: tuple[int | None, ...]
    returned: int | None
    called: int | None


class HookReader:
    """Reads the records of one hook. Raises KeyError, TypeError or ValueError when `value` does not come from the
    client's metadata_spec()."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.forms = [Form(Type(type), int(size), bool(signed)) for type, size, signed in value["forms"]]
        self.selectors = [None if one is None else _selector(one) for one in value["selectors"]]
        self._slots = {form.type: number for number, form in enumerate(self.forms)}

    def of_process(self, found: Found, type: Type) -> Value | None:
        """A property of the process that a record contains: Type.BINARY, …"""
        return found.values.get(self._slots.get(type, -1))

    def events(self, found: Found, tid: int) -> Iterator[tuple[SelectorMetadata, PolicyEvent]]:
        """One event for each policy."""
        for bit in found.selectors:
            selector = self.selectors[bit]
            if selector is None:
                continue
            slots = (selector.slots, selector.data, selector.returned, selector.called)
            matched = match_of(found, selector, *slots)
            yield selector, make_event(selector.description, matched, tid, _verdict, os.uname().machine)


def _selector(value: dict[str, Any]) -> SelectorMetadata:
    return SelectorMetadata(
        *(read_metadata(value["metadata"]), value["policy"], tuple(value["slots"]), tuple(value["data"])),
        *(value["returned"], value["called"]),
    )


def _verdict(verdict: int, sent: int) -> str:
    """Uses this machine's names, since a record is decoded where it was made."""
    parts = [verdict_text(verdict, lambda error: errno.errorcode.get(error, str(error)))] if verdict else []
    if sent:
        known = sent in signal.Signals.__members__.values()
        parts.append(signal.Signals(sent).name if known else str(sent))
    return " ".join(parts)
