"""Kind `recorder`: flight recordings, sent at a crash, at SHOW, or at the end of a container or of the session.

They are kept by BPF programs (bpf/include/gadget/recorder.h) and taken when a trigger asks for them.

Each cgroup has a recording, an array that is mapped and read here without a system call per record. The agent makes
spare ones in advance, so that a new container is recorded from its first call on. The trap: a recording may be read
only after another one has replaced it; the kernel completes the replacement when no program still writes to the old
one.
"""

import ctypes
import math
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import ARRAY, make_map
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.ring import Ring, framed, records
from kubectl_gadget.agent.sources.gadget_source import PiecesSource
from kubectl_gadget.agent.sources.output import EventsOutput
from kubectl_gadget.agent.sources.source import NodeContext
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.client_messages import GadgetSpec, RecorderSpec

MOST_SPARES = 128
"""Spare recordings: the number of new containers and crashes until the agent has to make more."""
MOST_RECORDS = 65536
_MMAPABLE, _INNER_MAP = 1 << 10, 1 << 12
_ENOENT, _EINVAL, _ENOTSUPP = 2, 22, 524
_EXIT, _END, _ASKED = 3, 4, 5
"""enum gadget_because"""
_TRIGGER = struct.Struct("<IIII")
"""The end of struct gadget_trigger: place, because, signal."""
_RECORD_HEAD = struct.Struct("<QQI")
"""The head of struct gadget_record: timestamp, cgroup, pid."""
_COMM = slice(40, 56)
_RECORDED = struct.Struct("<QQ")
_RECORDER = struct.Struct("<QII")
_BECAUSE = struct.Struct("<III4x16s")


def _reason(because: int, signal: int = 0, pid: int = 0, comm: bytes = b"") -> bytes:
    """Returns the fields of a record that say why it is sent."""
    return _BECAUSE.pack(because, signal, pid, comm)


class FlightRecorder:
    """The recorder of one object, which `prepare` has set up. `spec` is RUN's gadget of kind `recorder`."""

    def __init__(self, object: BpfObject, ring: Ring, spec: RecorderSpec, record_bytes: int) -> None:
        self._lib = libbpf.load()
        self._ring = ring
        self._last = spec.last
        self._offset = spec.offset
        self._on_exit, self._on_end = spec.exit, spec.end
        self._outer, self._queue, self._recorders = map(object.required_map, _MAPS)
        self._fds: dict[int, int] = {}  # of the recordings, by index
        self._spare: set[int] = set()
        self._removed: list[int] = []
        self._reasons: list[int] = []
        self._record_bytes = record_bytes
        self._places = self._outer.entries
        self._spares = self._places - self._recorders.entries
        self._supply(set())

    def take(self) -> Iterator[bytes]:
        """Yields, as ring buffer bytes, the records of each recording that was triggered or requested, or whose
        container ended, since the last call. Callers must consume it to the end."""
        triggered = self._triggers()
        used = self._used()
        gone = {cgroup: used.pop(cgroup) for cgroup in self._removed if cgroup in used}
        self._removed = []
        for cgroup in gone:
            self._recorders.remove(struct.pack("<Q", cgroup))
        taken = [*triggered, *((place, _reason(_EXIT) if self._on_exit else b"") for place in gone.values())]
        taken += [(place, _reason(because)) for because in self._reasons[:1] for place in used.values()]
        self._reasons = []
        # If there was no spare recording, two triggers at the same time have the same one.
        reasons = dict(reversed(taken))
        records = self._exchange(list(reasons))
        for place, reason in reversed(reasons.items()):
            if reason and records[place]:
                start, end = self._offset, self._offset + len(reason)
                yield b"".join(framed(row[:start] + reason + row[end:]) for row in records[place])
        still_used = set(used.values())
        for place in reasons:
            if place not in still_used:
                self._give_back(place)
        self._supply(still_used)

    def removed(self, cgroups: Sequence[int]) -> None:
        """Call it when these cgroups were removed, and their events have been sent."""
        self._removed += cgroups

    def show(self) -> None:
        """Makes take() yield what was recorded so far, at the user's request."""
        self._reasons.append(_ASKED)

    def end(self) -> None:
        """Call it after the programs were detached: take() then yields all recordings, if the user wants that."""
        if self._on_end:
            self._reasons.append(_END)

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _triggers(self) -> list[tuple[int, bytes]]:
        """Returns the indexes of recordings that programs have triggered since the last call, with the reasons."""
        found: list[tuple[int, bytes]] = []
        if not self._ring.settle():
            return found
        batch = self._ring.batch()
        data = bytes(batch)
        batch.release()
        self._ring.advance(len(data))
        for record in records(data):
            if len(record) < _RECORD_HEAD.size + _TRIGGER.size:
                continue  # its only purpose is to wake the agent
            place, because, signal, _ = _TRIGGER.unpack(record[-_TRIGGER.size :])
            if place in self._fds:
                pid = _RECORD_HEAD.unpack_from(record)[2]
                found.append((place, _reason(because, signal, pid, record[_COMM])))
        return found

    def _exchange(self, places: Sequence[int]) -> dict[int, list[bytes]]:
        """Replaces recordings by empty ones. Returns the old ones' records by index, oldest first."""
        full = [self._fds[place] for place in places]
        self._make(places, wait=True)
        try:
            return {place: self._read(fd) for place, fd in zip(places, full, strict=True)}
        finally:
            for fd in full:
                os.close(fd)

    def _read(self, fd: int) -> list[bytes]:
        size = self._record_bytes
        found: list[tuple[int, bytes]] = []
        with mmap.mmap(fd, self._last * size, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
            for start in range(0, self._last * size, size):
                number, length = _RECORDED.unpack_from(memory, start)
                if number:
                    begin = start + _RECORDED.size
                    found.append((number, memory[begin : begin + length]))
        return [record for _, record in sorted(found)]

    def _make(self, places: Sequence[int], wait: bool) -> None:
        """Makes empty recordings at these indexes. With `wait`, no program still writes to the old ones on return.

        The kernel waits for programs after each update, some 20 ms; after a batch only one time, or, before Linux 6.8,
        not at all.
        """
        for place in places:
            self._fds[place] = make_map(ARRAY, "gadget_record", self._record_bytes, self._last, _MMAPABLE | _INNER_MAP)
        batch, last = (places[:-1], places[-1:]) if wait else (places, ())
        if not self._update(batch):
            last = places
        for place in last:
            self._outer.set(place, self._fds[place])

    def _update(self, places: Sequence[int]) -> bool:
        """Updates all in one batch. Returns False when this kernel cannot."""
        numbers = ctypes.c_uint32 * len(places)
        keys, values = numbers(*places), numbers(*(self._fds[place] for place in places))
        count = ctypes.c_uint32(len(places))
        try:
            if places:
                self._lib.call("bpf_map_update_batch", self._outer.fd, keys, values, ctypes.byref(count), None)
        except Failure as failure:
            if failure.errno not in (_EINVAL, _ENOTSUPP):
                raise
            return False
        return True

    def _give_back(self, place: int) -> None:
        self._queue.put(None, struct.pack("<I", place))
        self._spare.add(place)

    def _supply(self, used: set[int]) -> None:
        """Makes spare recordings, up to the limit. `used` are the indexes of those in use."""
        self._spare -= used
        free = (place for place in range(self._places) if place not in self._fds)
        new = list(islice(free, max(0, self._spares - len(self._spare))))
        self._make(new, wait=False)
        for place in new:
            self._give_back(place)

    def _used(self) -> dict[int, int]:
        """Returns indexes by cgroup."""
        room = self._recorders.entries
        keys = (ctypes.c_uint64 * room)()
        values = ctypes.create_string_buffer(room * _RECORDER.size)
        count, position = ctypes.c_uint32(room), ctypes.create_string_buffer(8)
        arguments = (self._recorders.fd, None, position, keys, values, ctypes.byref(count), None)
        try:
            self._lib.call("bpf_map_lookup_batch", *arguments)
        except Failure as failure:
            if failure.errno != _ENOENT:  # ENOENT: it has read all entries
                raise
        rows = _RECORDER.iter_unpack(values.raw[: count.value * _RECORDER.size])
        return {keys[row]: place for row, (_, place, _) in enumerate(rows)}


_MAPS = ("gadget_recordings", "gadget_spare_places", "gadget_recorders")


def prepare(object: BpfObject, spec: RecorderSpec) -> int:
    """Makes room for as many recorders as `spec` allows, before the object is loaded. Returns the size of a record in
    bytes. Raises AgentError."""
    last, recorded = spec.last, object.required_map(_MAPS[0]).inner_value_size
    if not 0 < last <= MOST_RECORDS:
        raise AgentError(f"cannot record the last {last} records", f"--last with 1 to {MOST_RECORDS}")
    places = spec.bytes // (last * recorded)
    if places < 2:
        what = f"two recordings of {last} records need {2 * last * recorded:,} bytes, more than {spec.bytes:,}"
        raise AgentError(what, "fewer records (--last), or more memory (--memory)")
    spares = max(1, min(MOST_SPARES, places // 4))
    for name, entries in zip(_MAPS, (places, places, places - spares), strict=True):
        object.required_map(name).resize(entries)
    return recorded


# The source.


class RecorderSource(PiecesSource):
    """Sends the recordings that were triggered or requested."""

    _recorder: FlightRecorder
    _record_bytes = 0
    due = math.inf

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        if spec.recorder is None:
            raise FrameError(f"RUN: {spec.name} is a recorder without `recorder`")
        self._wanted = spec.recorder
        super().__init__(spec, elf, context)
        context.callbacks.show.append(self._recorder.show)
        context.callbacks.removed.append(self._recorder.removed)

    def _prepare(self, object: BpfObject) -> None:
        self._record_bytes = prepare(object, self._wanted)

    def _open(self, object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
        self._recorder = FlightRecorder(object, output.ring, self._wanted, self._record_bytes)
        resources.callback(self._recorder.close)

    def settle(self, is_blocked: bool) -> bool:
        if not is_blocked:
            for recording in self._recorder.take():
                self._add([recording])
        self._take_stacks()
        return self.programs.output.ring.settle()

    @property
    def is_quiet(self) -> bool:
        """Never: containers use up spare recordings without waking the session."""
        return False

    @property
    def empty(self) -> bool:
        return super().empty and not len(self.programs.output.ring.batch())

    def detach(self) -> None:
        super().detach()
        self._recorder.end()
