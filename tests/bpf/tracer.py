"""Runs one gadget of the catalogue in this kernel, through the agent's own binding, and gives its records as dicts.

    with Tracer("trace_open", pid=os.getpid(), failed=True) as tracer:
        …
        records = tracer.records()

Records are decoded here by the schema alone, not by kubectl_gadget.rows, or mistakes
there could hide one here.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import (
    CUT_STRINGS,
    LOST_MAP_FULL,
    LOST_RING_FULL,
    LOST_UNEXAMINED,
    CpuCounters,
    HashMap,
)
from kubectl_gadget.agent.bpf.object import BpfObject, variable_bytes
from kubectl_gadget.agent.bpf.packet_programs import PacketDispatcher, SocketOwners
from kubectl_gadget.agent.bpf.ring import open_ring
from kubectl_gadget.agent.bpf.syscall_programs import ALL, NATIVE, SyscallDispatcher, SyscallObject
from kubectl_gadget.agent.kernel.refusal import failed_program
from kubectl_gadget.gadgets.load import BUILT, object_bytes, read_gadget
from kubectl_gadget.gadgets.schema import ARCHITECTURES, Field, Gadget
from kubectl_gadget.linux import syscalls
from kubectl_gadget.run.request import packed_address

HEADER = 8
CUT = 0x8000
CPUS = os.cpu_count() or 1
MACHINE = os.uname().machine
CALLS = SyscallDispatcher()
"""Of all tracers and policies of this process, as an agent has one for all gadgets: the kernel's verifier takes as long
for it as for a gadget, which is most of the time of a test in a virtual machine."""


class Tracer:
    """One gadget, attached. `parameters` go by the gadget's names, `variables` by those of the C. `compat` has calls of
    32-bit programs followed, too. `packets` calls its programs for packets. `owners` has gadgets share the owners of
    sockets."""

    def __init__(
        self,
        name: str,
        *,
        built: Path = BUILT,
        ring_bytes: int = 4 << 20,
        verdicts: dict[int, int] | None = None,
        variables: dict[str, Any] | None = None,
        compat: bool = False,
        packets: PacketDispatcher | None = None,
        owners: SocketOwners | None = None,
        **parameters: Any,
    ) -> None:
        self.gadget = read_gadget(built / "gadgets" / f"{name}.json")
        self._elf = object_bytes(name, MACHINE, built)
        self._ring_bytes = ring_bytes
        self._compat = compat
        self._packets = packets
        self._owners = owners
        self._values = {"gadget_node_pid_level": pid_level()} | (variables or {})
        given = {key.replace("_", "-"): value for key, value in parameters.items()}
        self._parameters = {parameter.name: parameter.default for parameter in self.gadget.parameters} | given
        by_name = {parameter.name: parameter.variable for parameter in self.gadget.parameters}
        lists = {parameter.name for parameter in self.gadget.parameters if parameter.type == "syscalls"}
        self._values |= {by_name[name]: value for name, value in given.items() if by_name[name] and name not in lists}
        for packed in (item for item in self.gadget.parameters if item.type == "address" and item.name in given):
            self._values[packed.variable] = packed_address(given[packed.name])
        for listed in lists & given.keys():
            calls = syscalls.select(given[listed])
            self._values |= {f"{by_name[listed]}_{m}": syscalls.kernel_table(m, calls) for m in ARCHITECTURES}
        self._verdicts = HashMap("verdicts", 65536)
        for cgroup, verdict in (verdicts or {}).items():
            self._verdicts.add(cgroup, verdict)

    def __enter__(self) -> "Tracer":
        self.object = self._load(self.gadget)
        cpus, events = self.object.map("gadget_cpus"), self.object.map("gadget_events")
        assert cpus is not None
        assert events is not None
        self.counters = CpuCounters(cpus.fd, cpus.entries)
        self._ring = open_ring(events.fd, events.entries, self.counters)
        # Attaching opens files of tracefs itself, so what comes before it is done stands apart.
        self._at_start = self.data()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ring.close()
        self.counters.close()
        self.object.close()
        self._verdicts.close()

    @property
    def programs(self) -> list[str]:
        """Those that were loaded."""
        return self.object.chosen

    def stopped(self) -> dict[str, str]:
        """Those that something else has stopped, and why."""
        return self.object.stopped()

    @property
    def lost(self) -> int:
        return sum(self.counters.total(cause) for cause in (LOST_RING_FULL, LOST_MAP_FULL, LOST_UNEXAMINED))

    @property
    def unexamined(self) -> int:
        return self.counters.total(LOST_UNEXAMINED)

    @property
    def cut(self) -> int:
        return self.counters.total(CUT_STRINGS)

    @property
    def at_start(self) -> list[dict[str, Any]]:
        """The records of the time before all was attached."""
        return [self._decode(record) for record in split(self._at_start)]

    def records(self) -> list[dict[str, Any]]:
        """All records since the last call."""
        return [self._decode(record) for record in split(self.data())]

    def data(self) -> bytes:
        """The same as the ring holds them."""
        while not self._ring.settle():
            pass
        batch = self._ring.batch()
        data = bytes(batch)
        batch.release()
        self._ring.advance(len(data))
        return data

    def _load(self, gadget: Gadget) -> BpfObject:
        """Loads and attaches the first sets of programs that this kernel takes, without the optional ones that it does
        not."""
        wanted = [choice for choice in gadget.agent.programs if choice.is_wanted(self._parameters)]
        choices = [[*choice.any_of, ()] if choice.optional else [*choice.any_of] for choice in wanted]
        while True:
            object = self._open([program for choice in choices for program in choice[0]])
            attaching = None
            try:
                object.load()
                for attaching in object.chosen:
                    object.attach(attaching)
                    if gadget.kind != "snapshot" and object.section(attaching).startswith("iter"):
                        object.iterate(attaching)
            except Failure as failure:
                object.close()
                refused = attaching or failed_program(failure.log)
                choice = next((choice for choice in choices if refused in choice[0]), [])
                if len(choice) < 2:
                    raise
                del choice[0]
            else:
                if self._owners:
                    self._owners.keep(object, self._filters)
                return object

    @property
    def _filters(self) -> dict[str, Any]:
        return {name: value for name, value in self._values.items() if name.startswith("gadget_filter_")}

    def _open(self, programs: Sequence[str]) -> BpfObject:
        # As for the agent, a gadget that names no programs has all of its object.
        chosen = programs if self.gadget.agent.programs else None
        name = self.gadget.name
        object = SyscallObject(self._elf, name, chosen, CALLS, ALL if self._compat else NATIVE)
        self._set_variables(object)
        object.frequency = int(self._parameters.get("frequency") or 0)
        for name, entries in (("gadget_events", self._ring_bytes), ("gadget_cpus", CPUS)):
            found = object.map(name)
            assert found is not None
            found.resize(entries)
        containers = object.map("gadget_containers")
        if containers is not None:
            containers.reuse(self._verdicts.fd)
        if self._owners:
            self._owners.share(object, self._filters)
        if self._packets:
            self._packets.adopt(object)
        return object

    def _set_variables(self, object: BpfObject) -> None:
        for name, value in self._values.items():
            place = self.gadget.agent.globals[name]
            object.set_variable(place.offset, variable_bytes(value, place.size))

    def _decode(self, record: bytes) -> dict[str, Any]:
        return {field.name: value(record, field) for field in self.gadget.record.fields} | {"record_bytes": len(record)}


_kept: dict[tuple[object, ...], Tracer] = {}


def kept(name: str, **parameters: Any) -> Tracer:
    """A tracer that all tests of a file share, without the records of earlier tests: the verifier takes seconds for it
    in a virtual machine. conftest.py closes it."""
    key = (name, *sorted(parameters.items()))
    if key not in _kept:
        tracer = Tracer(name, **parameters)
        _kept[key] = tracer.__enter__()
    _kept[key].data()
    return _kept[key]


def close_kept() -> None:
    """Ends those of a file."""
    while _kept:
        _kept.popitem()[1].__exit__(None, None, None)


@cache
def pid_level() -> int:
    """How deep this process's PID namespace lies."""
    object = BpfObject(object_bytes("containers", MACHINE), "containers", ["locate"])
    try:
        object.load()
        return object.run("locate")
    finally:
        object.close()


def split(data: bytes) -> Iterator[bytes]:
    """The records in bytes of a ring buffer."""
    position = 0
    while position < len(data):
        length = struct.unpack_from("<I", data, position)[0] & ~(1 << 30)
        yield data[position + HEADER : position + HEADER + length]
        position += HEADER + (length + 7) // 8 * 8


def value(record: bytes, field: Field) -> Any:
    """A number, a text, a list of texts; None for what could not be read or is not there."""
    raw = record[field.offset : field.offset + field.size]
    if field.type in ("gadget_comm", "gadget_operation") or field.type.startswith("char["):
        return raw.rstrip(b"\0").decode()
    if field.type == "gadget_buckets":
        return list(struct.unpack(f"<{field.size // 8}Q", raw))
    if field.type not in ("gadget_string", "gadget_strings", "gadget_path", "gadget_path_at"):
        return int.from_bytes(raw, "little", signed=field.signed)
    offset, length = struct.unpack("<HH", raw)
    if not offset:
        return None
    data = record[offset : offset + (length & ~CUT)]
    assert len(data) == length & ~CUT, f"{field.name} ends behind the record"
    if field.type in ("gadget_string", "gadget_path_at"):
        return data.decode() + ("…" if length & CUT else "")
    names = data.decode().split("\0")
    if names[-1] == "":
        del names[-1]
    if field.type == "gadget_strings":
        return [*names, "…"] if length & CUT else names
    return ("…/" if length & CUT else "/") + "/".join(reversed(names))
