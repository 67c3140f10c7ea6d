"""Types, looked up in BTF through libbpf: the kernel's functions and structs, and the variables of an object.

The trap: BTF knows functions that nobody can hook, and a kernel may have several types of one name.
"""

import ctypes
from functools import cache
from typing import NamedTuple

from kubectl_gadget.agent import libbpf
from kubectl_gadget.errors import AgentError

_PTR, _ARRAY, _STRUCT, _UNION, _FUNC, _DATASEC = 2, 3, 4, 5, 12, 15
_SIZED = {1: "int", 4: "struct", 5: "union", 6: "enum", 16: "float", 19: "enum64"}
_LOOK_THROUGH = (8, 9, 10, 11, 18)
"""typedef, volatile, const, restrict, type tag"""


class _Type(ctypes.Structure):
    _fields_ = (("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size", ctypes.c_uint32))

    @property
    def kind(self) -> int:
        return int(self.info) >> 24 & 0x1F

    @property
    def count(self) -> int:
        return int(self.info) & 0xFFFF

    @property
    def is_bitfields(self) -> bool:
        return bool(self.info >> 31)


class Prototype(NamedTuple):
    """`result` is 0 for void. Two equal ones are of functions that take and give the same."""

    result: int
    parameters: tuple[int, ...]


class Btf:
    """`pointer` is libbpf's struct btf."""

    def __init__(self, pointer: int) -> None:
        self._lib = libbpf.load()
        self._btf = pointer

    def variables(self, section: str) -> dict[str, tuple[int, int]]:
        """Offset and size of each variable in a section of an object."""
        id = self._find(section, _DATASEC)
        if id is None:
            return {}
        at, type = self._type(id)
        words = (ctypes.c_uint32 * (3 * type.count)).from_address(at + ctypes.sizeof(_Type))
        entries = (words[3 * number : 3 * number + 3] for number in range(type.count))
        return {self._name(self._type(variable)[1].name): (offset, size) for variable, offset, size in entries}

    def prototype(self, function: str) -> Prototype | None:
        """None: the kernel has no such function, or none that BTF knows."""
        id = self._find(function, _FUNC)
        if id is None:
            return None
        at, proto = self._type(self._type(id)[1].size)
        words = (ctypes.c_uint32 * (2 * proto.count)).from_address(at + ctypes.sizeof(_Type))
        return Prototype(proto.size, tuple(words[1::2]))

    def follow(self, id: int, path: list[str | int]) -> tuple[list[int], bool]:
        """From a type, of which a pointer is looked through first, along members and elements: offsets, with a load
        after each but the last; and whether there is an array or struct at the end, and not a value. Raises
        AgentError."""
        offsets = [0]
        id, kind = self._plain(id)
        if kind == _PTR:
            id, _ = self._plain(self._type(id)[1].size)
        for number, step in enumerate(path):
            at, type = self._type(id)
            if number and type.kind == _PTR:
                offsets.append(0)
                id, _ = self._plain(type.size)
                at, type = self._type(id)
            if isinstance(step, int):
                id, offset = self._element(at, type, step, path)
            else:
                found = self._member(id, step)
                if found is None:
                    raise AgentError(f"the kernel's {self._name(type.name) or 'struct'} has no member {step}")
                id, offset = found
            offsets[-1] += offset
            id, _ = self._plain(id)
        return offsets, self._type(id)[1].kind in (_ARRAY, _STRUCT, _UNION)

    def _element(self, at: int, type: _Type, index: int, path: list[str | int]) -> tuple[int, int]:
        if type.kind != _ARRAY:
            raise AgentError(f"{'.'.join(map(str, path))}: [{index}] follows what is no array")
        element, _, length = (ctypes.c_uint32 * 3).from_address(at + ctypes.sizeof(_Type))
        if index >= length:
            raise AgentError(f"{'.'.join(map(str, path))}: the array has {length} elements")
        return element, index * self._size(element)

    def _member(self, id: int, name: str) -> tuple[int, int] | None:
        """Type and offset; those of structs without a name are looked at as well."""
        at, type = self._type(id)
        if type.kind not in (_STRUCT, _UNION):
            return None
        words = (ctypes.c_uint32 * (3 * type.count)).from_address(at + ctypes.sizeof(_Type))
        for number in range(type.count):
            found_name, member, bits = words[3 * number : 3 * number + 3]
            offset = (bits & 0xFFFFFF if type.is_bitfields else bits) // 8
            text = self._name(found_name)
            if text == name:
                return member, offset
            if not text and (inner := self._member(self._plain(member)[0], name)) is not None:
                return inner[0], offset + inner[1]
        return None

    def _size(self, id: int) -> int:
        id, kind = self._plain(id)
        at, type = self._type(id)
        if kind == _PTR:
            return 8
        if kind == _ARRAY:
            element, _, length = (ctypes.c_uint32 * 3).from_address(at + ctypes.sizeof(_Type))
            return self._size(element) * length
        return type.size if kind in _SIZED else 0

    def _plain(self, id: int) -> tuple[int, int]:
        while (type := self._type(id)[1]).kind in _LOOK_THROUGH:
            id = type.size
        return id, type.kind

    def _find(self, name: str, kind: int) -> int | None:
        id = int(self._lib.raw("btf__find_by_name_kind", self._btf, name.encode(), kind))
        return id if id > 0 else None

    def _type(self, id: int) -> tuple[int, _Type]:
        at = int(self._lib.call("btf__type_by_id", self._btf, id))
        return at, _Type.from_address(at)

    def _name(self, offset: int) -> str:
        name: bytes = self._lib.raw("btf__name_by_offset", self._btf, offset)
        return name.decode()


@cache
def kernel() -> Btf:
    """The running kernel's. Read once: it takes some 10 ms and 10 MB. Raises AgentError when it has none."""
    try:
        return Btf(libbpf.load().call("btf__load_vmlinux_btf"))
    except libbpf.Failure as failure:
        what = f"the kernel's BTF cannot be read: {failure}"
        raise AgentError(what, "a kernel built with CONFIG_DEBUG_INFO_BTF=y") from None
