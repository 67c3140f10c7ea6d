"""trace bpf: programs and maps, made a prime number of times by hand."""

import ctypes
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.deeds import syscall
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
BPF = 321 if deeds.X86 else 280
MAP_CREATE, LOOKUP, PROG_LOAD, OBJ_GET, PROG_BY_ID, RAW_OPEN = 0, 1, 5, 7, 13, 17
HASH, SOCKET_FILTER, RAW_TRACEPOINT = 1, 1, 17
NONE = 2**32 - 1
NOT_READ = 2
RETURN_0 = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
"""r0 = 0; exit"""


def call(command: int, attributes: bytes) -> int:
    return syscall(BPF, command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes))


def load(kind: int, instructions: bytes = RETURN_0, name: bytes = b"a_program") -> int:
    """A file descriptor, or a negative errno."""
    code, licence = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"GPL")
    addresses = (ctypes.addressof(code), ctypes.addressof(licence))
    head = struct.pack("<IIQQIIQII", kind, len(instructions) // 8, *addresses, 0, 0, 0, 0, 0)
    return call(PROG_LOAD, head + name.ljust(16, b"\0"))


def make_map(kind: int = HASH, name: bytes = b"a_map") -> int:
    return call(MAP_CREATE, struct.pack("<IIIIIII", kind, 4, 8, 16, 0, 0, 0) + name.ljust(16, b"\0"))


def identifier(fd: int, kind: str) -> int:
    with open(f"/proc/self/fdinfo/{fd}") as file:
        (line,) = [line for line in file if line.startswith(f"{kind}_id")]
    return int(line.split()[1])


def traced(deed: Callable[[], object], **parameters: Any) -> list[dict[str, Any]]:
    """The records of `deed`, run in this very process, whose numbers it can then compare."""
    with Tracer("trace_bpf", **parameters) as tracer:
        deed()
        records = [record for record in tracer.records() if record["pid"] == os.getpid()]
        assert tracer.lost == 0
    return records


def test_each_program_is_seen_once_with_its_number() -> None:
    numbers = []

    def deed() -> None:
        for _ in range(TIMES):
            fd = load(SOCKET_FILTER)
            assert fd >= 0, os.strerror(-fd)
            numbers.append((fd, identifier(fd, "prog")))
            os.close(fd)

    records = traced(deed)
    assert [(record["fd"], record["id"]) for record in records] == numbers
    fields = ("command", "program_type", "map_type", "instructions", "object", "errno")
    assert {tuple(record[name] for name in fields) for record in records} == {
        (PROG_LOAD, SOCKET_FILTER, NONE, 2, "a_program", 0)
    }


def test_each_map_is_seen_once_with_its_sizes() -> None:
    numbers = []

    def deed() -> None:
        for _ in range(TIMES):
            fd = make_map()
            numbers.append(identifier(fd, "map"))
            os.close(fd)

    records = traced(deed)
    assert [record["id"] for record in records] == numbers
    fields = ("command", "map_type", "program_type", "key_size", "value_size", "max_entries", "object")
    assert {tuple(record[name] for name in fields) for record in records} == {(0, HASH, NONE, 4, 8, 16, "a_map")}


def test_what_is_refused_says_why() -> None:
    def deed() -> None:
        assert make_map() >= 0
        for _ in range(TIMES):
            assert make_map(9999) < 0
            assert load(SOCKET_FILTER, RETURN_0[:8]) < 0
            assert call(PROG_BY_ID, struct.pack("<III", 0x7FFFFFF0, 0, 0)) < 0

    records = traced(deed, failed=True)
    assert [(record["command"], record["errno"], record["id"]) for record in records] == [
        (MAP_CREATE, 22, 0),
        (PROG_LOAD, 22, 0),
        (PROG_BY_ID, 2, 0x7FFFFFF0),
    ] * TIMES
    assert {record["fd"] for record in records} == {-1}


def test_what_is_attached_and_reached_by_its_number_is_named() -> None:
    numbers = []

    def deed() -> None:
        program = load(RAW_TRACEPOINT)
        numbers.append(identifier(program, "prog"))
        name = ctypes.create_string_buffer(b"sched_switch")
        link = call(RAW_OPEN, struct.pack("<QI", ctypes.addressof(name), program) + bytes(4))
        assert link >= 0, os.strerror(-link)
        other = call(PROG_BY_ID, struct.pack("<III", numbers[0], 0, 0))
        for fd in (program, link, other):
            os.close(fd)

    loaded, attached, reached = traced(deed)
    assert {record["id"] for record in (loaded, attached, reached)} == set(numbers)
    assert {record["object"] for record in (loaded, attached, reached)} == {"a_program"}
    assert (attached["command"], attached["path"], attached["program_type"]) == (
        RAW_OPEN,
        "sched_switch",
        RAW_TRACEPOINT,
    )
    assert (reached["command"], reached["program_type"]) == (PROG_BY_ID, RAW_TRACEPOINT)


def test_a_pinned_object_shows_its_path() -> None:
    path = ctypes.create_string_buffer(b"/sys/fs/bpf/no such thing")
    (record,) = traced(lambda: call(OBJ_GET, struct.pack("<QII", ctypes.addressof(path), 0, 0)))
    assert (record["command"], record["path"]) == (OBJ_GET, "/sys/fs/bpf/no such thing")
    assert record["errno"] > 0


@pytest.mark.parametrize("every", [False, True])
def test_reading_and_writing_maps_is_seen_on_request_only(every: bool) -> None:
    def deed() -> None:
        fd = make_map()
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
        for _ in range(TIMES):
            call(LOOKUP, struct.pack("<IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0))
        os.close(fd)

    records = traced(deed, every=every)
    assert [record["command"] for record in records] == [MAP_CREATE, *([LOOKUP] * TIMES if every else [])]


def test_attributes_that_cannot_be_read_are_not_shown_as_zeros() -> None:
    records = traced(lambda: [syscall(BPF, command, 0, 48) for command in (PROG_LOAD, MAP_CREATE, OBJ_GET, PROG_BY_ID)])
    assert [record["attributes_read"] for record in records] == [NOT_READ] * 4
    assert {record["id"] for record in records} == {NONE}
    assert [record["instructions"] for record in records] == [NONE, 0, 0, 0]
    assert [record["max_entries"] for record in records] == [0, NONE, 0, 0]


def test_attributes_that_were_read_say_so() -> None:
    (record,) = traced(lambda: os.close(make_map()))
    assert (record["attributes_read"], record["key_size"], record["value_size"], record["max_entries"]) == (1, 4, 8, 16)
