"""BPF maps: of an open object (BpfMap), of a descriptor from elsewhere (OpenMap), and maps that the agent makes
(HashMap); and the counters in one of them (CpuCounters).

Sizes can be set only before the object is loaded.
"""

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure

HASH, ARRAY = 1, 2
"""From enum bpf_map_type."""
_NO_PREALLOC = 1


class BpfMap:
    """A map of an object."""

    def __init__(self, lib: libbpf.Libbpf, pointer: int) -> None:
        self._lib = lib
        self._pointer = pointer

    @property
    def fd(self) -> int:
        """The file descriptor, if the object is loaded. It is closed with the object."""
        return int(self._lib.call("bpf_map__fd", self._pointer))

    @property
    def entries(self) -> int:
        """max_entries; for a ring buffer, its size in bytes."""
        return int(self._lib.raw("bpf_map__max_entries", self._pointer))

    @property
    def key_size(self) -> int:
        """In bytes."""
        return int(self._lib.raw("bpf_map__key_size", self._pointer))

    @property
    def value_size(self) -> int:
        """In bytes."""
        return int(self._lib.raw("bpf_map__value_size", self._pointer))

    @property
    def inner_value_size(self) -> int:
        """Size in bytes of the values of a map of maps' inner maps. Only before the object is loaded."""
        return int(self._lib.raw("bpf_map__value_size", self._lib.raw("bpf_map__inner_map", self._pointer)))

    def resize(self, entries: int) -> None:
        """Sets max_entries, before the object is loaded."""
        self._lib.call("bpf_map__set_max_entries", self._pointer, entries)

    def resize_values(self, bytes: int) -> None:
        """Sets the size of values, before the object is loaded. For maps whose C declaration has no value type."""
        self._lib.call("bpf_map__set_value_size", self._pointer, bytes)

    def make_hash(self) -> None:
        """Changes the map's type to a hash, before the object is loaded."""
        self._lib.call("bpf_map__set_type", self._pointer, HASH)

    def leave_out(self) -> None:
        """Does not create the map when the object is loaded. For maps that none of the loaded programs uses."""
        self._lib.call("bpf_map__set_autocreate", self._pointer, False)

    def put(self, key: bytes | None, value: bytes) -> None:
        """Sets one entry, after the object was loaded. `key` None: adds to a queue."""
        self._lib.call("bpf_map_update_elem", self.fd, key, value, 0)

    def freeze(self) -> None:
        """Prevents all further changes by system calls, whatever rights a process has. Programs can still change it."""
        self._lib.call("bpf_map_freeze", self.fd)

    def remove(self, key: bytes) -> None:
        """Removes an entry, if there is one."""
        self._lib.raw("bpf_map_delete_elem", self.fd, key)

    def get(self, key: bytes) -> bytes | None:
        """Returns the value of an entry, or None. Not for per-CPU maps."""
        value = ctypes.create_string_buffer(self.value_size)
        return None if self._lib.raw("bpf_map_lookup_elem", self.fd, key, value) else value.raw

    def keys(self) -> Iterator[bytes]:
        """Yields all keys. Entries that change at the same time may be left out."""
        key = None
        following = ctypes.create_string_buffer(self.key_size)
        while not self._lib.raw("bpf_map_get_next_key", self.fd, key, following):
            key = following.raw
            yield key

    def per_cpu(self, key: int) -> tuple[int, ...]:
        """Returns the u64 value of each possible CPU, from a per-CPU array."""
        values = (ctypes.c_uint64 * int(self._lib.call("libbpf_num_possible_cpus")))()
        self._lib.call("bpf_map_lookup_elem", self.fd, ctypes.byref(ctypes.c_uint32(key)), values)
        return tuple(values)

    def initial_value(self) -> bytes:
        """Returns the content of a map of variables, before the object is loaded."""
        size = ctypes.c_size_t()
        start = self._lib.raw("bpf_map__initial_value", self._pointer, ctypes.byref(size))
        return ctypes.string_at(start, size.value)

    def text(self) -> str:
        """Returns the content of a constant map as UTF-8, up to its first NUL."""
        return self.initial_value().partition(b"\0")[0].decode(errors="replace")

    def set(self, key: int, value: int) -> None:
        """Sets one entry of a map from numbers to u32, after the object was loaded."""
        self.put(key.to_bytes(self.key_size, "little"), struct.pack("<I", value))

    def set_text(self, key: int, text: str) -> None:
        """Sets one entry of a map from u32 to texts, truncated or padded with NULs, after the object was loaded."""
        size = self.value_size
        self.put(struct.pack("<I", key), text.encode(errors="surrogateescape")[: size - 1].ljust(size, b"\0"))

    def reuse(self, fd: int) -> None:
        """Makes the object use the existing map `fd` instead of its own, before it is loaded."""
        self._lib.call("bpf_map__reuse_fd", self._pointer, fd)


class NumberMap:
    """Reads a map from u32 to u32 by its descriptor. Lookups allocate nothing, since each STATS makes many."""

    def __init__(self, fd: int) -> None:
        self._lookup = libbpf.load().raw
        self._fd = fd
        self._key, self._value = ctypes.c_uint32(), ctypes.c_uint32()
        self._pointers = ctypes.byref(self._key), ctypes.byref(self._value)

    def get(self, key: int) -> int | None:
        """Returns the value of an entry, or None."""
        self._key.value = key
        return None if self._lookup("bpf_map_lookup_elem", self._fd, *self._pointers) else self._value.value


class OpenMap(BpfMap):
    """A map that belongs to no object of this process, by its file descriptor, which close() closes."""

    def __init__(self, fd: int) -> None:
        super().__init__(libbpf.load(), 0)
        self._fd = fd
        info, size = (ctypes.c_uint32 * 10)(), ctypes.c_uint32(40)
        # The head of struct bpf_map_info: type, id, key_size, value_size, max_entries, flags, and 16 bytes of name.
        self._lib.call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))
        self._sizes = info[2:5]
        self.name = bytes(info)[24:].partition(b"\0")[0].decode(errors="replace")
        """as the kernel stores it, truncated to 15 bytes"""

    @property
    def fd(self) -> int:
        return self._fd

    @property
    def entries(self) -> int:
        return self._sizes[2]

    @property
    def key_size(self) -> int:
        return self._sizes[0]

    @property
    def value_size(self) -> int:
        return self._sizes[1]

    def close(self) -> None:
        os.close(self._fd)


def make_map(type: int, name: str, value_size: int, entries: int, flags: int = 0, key_size: int = 4) -> int:
    """Makes a map that belongs to no object. Returns its file descriptor."""
    options = libbpf.MapOptions(size=ctypes.sizeof(libbpf.MapOptions), map_flags=flags)
    arguments = (type, name.encode(), key_size, value_size, entries, ctypes.byref(options))
    return int(libbpf.load().call("bpf_map_create", *arguments))


class HashMap(OpenMap):
    """A hash from u64 to u32 that the agent makes, and that several objects can share by `fd`."""

    def __init__(self, name: str, entries: int) -> None:
        super().__init__(make_map(HASH, name, 4, entries, _NO_PREALLOC, key_size=8))

    def add(self, key: int, value: int) -> bool:
        """Sets one entry. Returns False when the map is full."""
        try:
            self.put(struct.pack("<Q", key), struct.pack("<I", value))
        except Failure as failure:
            if failure.errno not in (errno.E2BIG, errno.ENOMEM):
                raise
            return False
        return True


class Batches:
    """Removes all entries from a hash, many at a time and as often as needed. `room`: entries per system call at first.
    Needs Linux 5.6.

    When a batch is too small for one of the hash's buckets, the kernel refuses it with ENOSPC; it is retried with more
    room.
    """

    def __init__(self, map: BpfMap, room: int) -> None:
        self._fd = map.fd
        self._sizes = map.key_size, map.value_size
        # The kernel's position is as large as a key, and at least 4 bytes.
        self._places = [ctypes.create_string_buffer(max(4, map.key_size)) for _ in range(2)]
        self._make(room)

    def take(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Yields keys and values of all entries, and removes them. Raises Failure."""
        lib = libbpf.load()
        position: object = None
        end = False
        while not end:
            count = ctypes.c_uint32(self._room)
            arguments = (self._fd, position, self._places[0], *self._buffers, ctypes.byref(count), None)
            try:
                lib.call("bpf_map_lookup_and_delete_batch", *arguments)
            except Failure as failure:
                if failure.errno == errno.ENOSPC:
                    self._make(2 * self._room)
                    continue
                if failure.errno != errno.ENOENT:
                    raise
                end = True
            if count.value:
                keys, values = map(_split, self._buffers, self._sizes, (count.value,) * 2)
                yield keys, values
            position = self._places[0]
            self._places.reverse()

    def _make(self, room: int) -> None:
        self._room = room
        self._buffers = [ctypes.create_string_buffer(room * size) for size in self._sizes]


def _split(data: "ctypes.Array[ctypes.c_char]", size: int, count: int) -> list[bytes]:
    whole = memoryview(data)
    return [bytes(whole[start : start + size]) for start in range(0, count * size, size)]


# The per-CPU counters of BPF programs: the map `gadget_cpus`, which is mapped with mmap and read without system
# calls.
#
# The layout is struct gadget_cpu in bpf/include/gadget/counters.h. The trap: a CPU's words must be read as aligned
# u64, which a memoryview cast to "Q" does.

WORDS = 16
"""u64 per CPU: two cache lines."""

IN_FLIGHT, EVENTS, BYTES, LOST_RING_FULL, LOST_MAP_FULL, CUT_STRINGS, LOST_UNEXAMINED = range(7)


class CpuCounters:
    """Reads the map `fd`, which has `cpus` entries."""

    def __init__(self, fd: int, cpus: int) -> None:
        size = -(-cpus * WORDS * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        self._words = memoryview(self._memory).cast("Q")[: cpus * WORDS]

    def column(self, word: int) -> list[int]:
        """Returns one counter (IN_FLIGHT, …) of every CPU."""
        return self._words[word::WORDS].tolist()

    def busy(self, cpus: list[int] | None = None) -> list[int]:
        """Returns the members of `cpus` (None: all CPUs) on which a program is between reserving and committing a
        record."""
        if cpus is None:
            return [cpu for cpu, count in enumerate(self.column(IN_FLIGHT)) if count]
        words = self._words
        return [cpu for cpu in cpus if words[cpu * WORDS]]

    def total(self, word: int) -> int:
        """Returns one counter, summed over all CPUs."""
        return sum(self.column(word))

    def by_cpu(self, word: int) -> dict[str, int]:
        """Returns the count by CPU number (as text, for JSON in the STATS frame); CPUs with 0 are left out."""
        return {str(cpu): count for cpu, count in enumerate(self.column(word)) if count}

    def close(self) -> None:
        self._words.release()
        self._memory.close()
