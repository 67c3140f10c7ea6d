"""Records in a ring as the log of installed policies takes them: so many at a time, and never a part of one."""

import json
import struct

from kubectl_gadget.agent.bpf.ring import records, whole_records
from kubectl_gadget.wire.policy_events import (
    Credentials,
    EventArgument,
    ExecId,
    PolicyEvent,
    StackEntry,
    event_spec,
    read_event,
)
from kubectl_gadget.wire.policy_record import comm_of

_DISCARDED = 1 << 30


def ring(*texts: bytes, discarded: bytes = b"") -> bytes:
    found = b"".join(struct.pack("<II", len(text), 0) + text.ljust((len(text) + 7) // 8 * 8, b"\0") for text in texts)
    return found + (struct.pack("<II", len(discarded) | _DISCARDED, 0) + discarded if discarded else b"")


def test_as_many_whole_records_are_taken_as_fit() -> None:
    data = ring(b"a" * 16, b"b" * 3, b"c" * 8, discarded=b"d" * 8)
    # They take 24, 16, 16 and 16 bytes.
    sizes = [whole_records(data, most) for most in (24, 39, 40, 56, 71, 72, 1000)]
    assert sizes == [24, 24, 40, 56, 56, 72, 72]
    assert list(records(data[:40])) == [b"a" * 16, b"b" * 3]
    assert list(records(data[40:])) == [b"c" * 8]


def test_a_larger_record_is_taken_alone() -> None:
    assert whole_records(ring(b"a" * 100, b"b"), 10) == 112
    assert whole_records(b"", 10) == 0


def test_an_event_survives_a_round_trip_through_json() -> None:
    head = bytes(40) + b"vi".ljust(40, b"\0")
    event = PolicyEvent(
        "kprobe",
        ExecId(7, 8),
        args=(EventArgument("int", 3),),
        returned=EventArgument("int", 0),
        user_stack=(StackEntry(1),),
        credentials=Credentials(*range(12)),
        namespaces=(1, 2),
        comm="vi",
    )
    assert read_event(json.loads(json.dumps(event_spec(event))), comm_of(head)) == event
