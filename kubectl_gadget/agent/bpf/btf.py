"""BTF types, looked up through libbpf: the kernel's functions and structs, and an object's variables.

BTF lists functions that cannot be hooked, and a kernel may have several types with the same name.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.host.foreign_files import open_inside
from kubectl_gadget.errors import AgentError

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _TYPEDEF, _FUNC, _DATASEC = 1, 2, 3, 4, 5, 8, 12, 15
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


class Prototype(NamedTuple):
    """`result` is 0 for void. Functions with equal prototypes have the same parameter and return types."""

    result: int
    parameters: tuple[int, ...]


class ValueType(NamedTuple):
    """The way to read values of a type."""

    name: str
    """of the struct that it is or points to, or of the number type"""
    size: int
    signed: bool
    is_pointer: bool
    is_text: bool
    """characters, or a pointer to them"""
    is_in_place: bool
    """a struct or an array"""


class Btf:
    """`pointer` is libbpf's struct btf; `whose` names its owner in messages."""

    def __init__(self, pointer: int, whose: str = "the kernel") -> None:
        self._lib = libbpf.load()
        self.pointer = pointer
        self.whose = whose

    def variables(self, section: str) -> dict[str, tuple[int, int]]:
        """Returns the offset and size of each variable in a section of an object."""
        id = self._find(section, _DATASEC)
        if id is None:
            return {}
        at, type = self._type(id)
        words = _words(at, 3 * type.count)
        entries = (words[3 * number : 3 * number + 3] for number in range(type.count))
        return {self._name(self._type(variable)[1].name): (offset, size) for variable, offset, size in entries}

    def prototype(self, function: str) -> Prototype | None:
        """Returns None when the kernel has no such function, or BTF does not list it."""
        id = self._find(function, _FUNC)
        if id is None:
            return None
        at, proto = self._type(self._type(id)[1].size)
        return Prototype(proto.size, tuple(_words(at, 2 * proto.count)[1::2]))

    def tracepoint(self, name: str) -> Prototype | None:
        """Returns the prototype of a raw tracepoint, or None when the kernel has none of that name."""
        id = self._find(f"btf_trace_{name}", _TYPEDEF)
        if id is None:
            return None
        pointer = self._plain(id)[0]
        at, proto = self._type(self._plain(self._type(pointer)[1].size)[0])
        # The first argument is the data pointer that the program was registered with.
        return Prototype(proto.size, tuple(_words(at, 2 * proto.count)[3::2]))

    def struct(self, name: str) -> int | None:
        """Returns the id of the struct or union with that name, or None."""
        return self._find(name, _STRUCT) or self._find(name, _UNION)

    def value_type(self, id: int) -> ValueType:
        """Returns how to read values of this type."""
        id, kind = self._plain(id)
        at, type = self._type(id)
        if kind == _PTR:
            inner, inner_kind = self._plain(type.size) if type.size else (0, 0)
            name = self._name(self._type(inner)[1].name) if inner else "void"
            is_text = inner_kind == _INT and self._size(inner) == 1
            return ValueType(name if inner_kind in (_STRUCT, _UNION) else "", 8, False, True, is_text, False)
        name = self._name(type.name)
        if kind == _ARRAY:
            element = _words(at, 1)[0]
            is_text = self._plain(element)[1] == _INT and self._size(element) == 1
            return ValueType(name, self._size(id), False, False, is_text, True)
        signed = kind == _INT and bool(_words(at, 1)[0] >> 24 & 1)
        return ValueType(name, self._size(id), signed, False, False, kind in (_STRUCT, _UNION))

    def follow(self, id: int, path: Sequence[str | int]) -> tuple[list[int], int]:
        """Follows a path of members and elements from a type; a pointer at the start is dereferenced first. Returns the
        offsets, with a load after each but the last, and the type at the end. Raises AgentError."""
        offsets = [0]
        id, kind = self._plain(id)
        is_pointed_to = kind == _PTR
        if is_pointed_to:
            id, _ = self._plain(self._type(id)[1].size)
        for number, step in enumerate(path):
            at, type = self._type(id)
            # In a pointer to pointers, an element is one of those pointers; a member belongs to what the first one
            # points to.
            while type.kind == _PTR and not (number == 0 and is_pointed_to and isinstance(step, int)):
                offsets.append(0)
                id, _ = self._plain(type.size)
                at, type = self._type(id)
                is_pointed_to = True
                if isinstance(step, int):
                    break
            if isinstance(step, int) and is_pointed_to and type.kind != _ARRAY:
                offset = step * self._size(id)
            elif isinstance(step, int):
                id, offset = self._element(at, type, step, path)
            else:
                found = self._member(id, step)
                if found is None:
                    raise AgentError(f"{self.whose}'s {self._name(type.name) or 'struct'} has no member {step}")
                id, offset = found
            offsets[-1] += offset
            id, _ = self._plain(id)
            is_pointed_to = False
        return offsets, id

    def _element(self, at: int, type: _Type, index: int, path: Sequence[str | int]) -> tuple[int, int]:
        if type.kind != _ARRAY:
            raise AgentError(f"{'.'.join(map(str, path))}: [{index}] follows something that is not an array")
        element, _, length = _words(at, 3)
        if index >= length:
            raise AgentError(f"{'.'.join(map(str, path))}: the array has {length} elements")
        return element, index * self._size(element)

    def _member(self, id: int, name: str) -> tuple[int, int] | None:
        """Returns type and offset. Members of anonymous structs are found as well."""
        at, type = self._type(id)
        if type.kind not in (_STRUCT, _UNION):
            return None
        words = _words(at, 3 * type.count)
        for number in range(type.count):
            found_name, member, bits = words[3 * number : 3 * number + 3]
            offset = (bits & 0xFFFFFF if type.info >> 31 else bits) // 8
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
            element, _, length = _words(at, 3)
            return self._size(element) * length
        return type.size if kind in _SIZED else 0

    def _plain(self, id: int) -> tuple[int, int]:
        """Returns a type without typedefs and qualifiers, and its kind."""
        while (type := self._type(id)[1]).kind in _LOOK_THROUGH:
            id = type.size
        return id, type.kind

    def _find(self, name: str, kind: int) -> int | None:
        id = int(self._lib.raw("btf__find_by_name_kind", self.pointer, name.encode(), kind))
        return id if id > 0 else None

    def _type(self, id: int) -> tuple[int, _Type]:
        at = int(self._lib.call("btf__type_by_id", self.pointer, id))
        return at, _Type.from_address(at)

    def _name(self, offset: int) -> str:
        name: bytes = self._lib.raw("btf__name_by_offset", self.pointer, offset)
        return name.decode(errors="replace")


def _words(at: int, count: int) -> list[int]:
    """Returns the u32 that follow the type at this address: its members, parameters or elements."""
    return list((ctypes.c_uint32 * count).from_address(at + ctypes.sizeof(_Type)))


@cache
def kernel() -> Btf:
    """Returns the running kernel's BTF, read at the first call (some 10 ms and 10 MB). Raises AgentError when there is
    none."""
    try:
        return Btf(libbpf.load().call("btf__load_vmlinux_btf"))
    except libbpf.Failure as failure:
        what = f"the kernel's BTF cannot be read: {failure}"
        raise AgentError(what, "a kernel built with CONFIG_DEBUG_INFO_BTF=y") from None


@cache
def module(name: str) -> Btf:
    """Returns a kernel module's BTF on top of the kernel's. Raises AgentError when it is not loaded or has no BTF."""
    base = kernel()
    try:
        return Btf(libbpf.load().call("btf__load_module_btf", name.encode(), base.pointer), f"the module {name}")
    except libbpf.Failure as failure:
        what = f"the BTF of the kernel module {name} cannot be read: {failure}"
        raise AgentError(what, f"modprobe {name}, and see /sys/kernel/btf/{name}") from None


@cache
def in_file(path: str) -> Btf:
    """Returns the BTF of a file on the node: an ELF file with a .BTF section, or raw BTF. Raises AgentError."""
    try:
        file = open_inside(1 if this_node.host() else "self", path)
    except OSError as error:
        raise AgentError(f"btfPath {path} cannot be read on the node: {error.strerror}") from None
    try:
        return Btf(libbpf.load().call("btf__parse", f"/proc/self/fd/{file}".encode(), None), path)
    except libbpf.Failure as failure:
        what = f"btfPath {path} has no BTF that can be read: {failure}"
        raise AgentError(what, "pahole --btf_encode_detached=FILE PROGRAM, of a program built with -g") from None
    finally:
        os.close(file)
