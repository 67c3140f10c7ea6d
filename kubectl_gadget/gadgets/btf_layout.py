"""Reads an object's BTF: the layout of the record, the variables that may be set, the names of the programs.

A typedef gives a field's meaning, so it must be kept; typedefs are resolved only to find size and sign.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Field, Global, RecordLayout
from kubectl_gadget.gadgets.typed import make

HEADS = ("gadget_record", "gadget_total")
"""The structs that a record may begin with: for an event or an existing object, or for the sums of an interval."""
_MARKER = "gadget_record_type"
"""The variable with which GADGET_RECORD keeps the record's type in the object."""

_SENT, _PRINTS = "gadget_sent_type", "gadget_prints"
"""Variables that mark what a program without YAML sends, and that it prints (bpf/include/single_file)."""

Type = dict[str, Any]


@dataclass(frozen=True)
class SentStruct:
    """A struct that a program without YAML sends. Offsets of fields are relative to the struct."""

    name: str
    size: int
    fields: tuple[Field, ...]


class BtfLayout:
    """The types of one object. `source` is used in errors."""

    def __init__(self, types: list[Type], source: str) -> None:
        self._source = source
        with self._understood():
            self._types = {item["id"]: item for item in types}

    def record(self, name: str) -> RecordLayout:
        """The layout of `struct NAME`. Raises UsageError when it is not a record."""
        with self._understood():
            struct = self._named("STRUCT", name)
            if struct is None:
                raise UsageError(f"{self._source} has no struct {name}, or lacks the line GADGET_RECORD({name});")
            first = struct["members"][0] if struct["members"] else None
            if first is None or self._types.get(first["type_id"], {}).get("name") not in HEADS:
                raise UsageError(f"{self._source}: struct {name} does not begin with a struct {' or '.join(HEADS)}")
            fields = tuple(self._fields(struct, 0))
            twice = {field.name for field in fields if [other.name for other in fields].count(field.name) > 1}
            if twice:
                raise UsageError(f"{self._source}: struct {name} has two fields {', '.join(sorted(twice))}")
            return make(RecordLayout, asdict(RecordLayout(name, struct["size"], fields)))

    def sent_structs(self) -> list[SentStruct]:
        """The structs that a program without YAML sends, each once. Raises UsageError for types that are not
        structs."""
        with self._understood():
            pointers = [item["type_id"] for item in self._types.values() if self._is_variable(item, _SENT)]
            types = {
                self._resolved(self._types[self._resolved(pointer)["type_id"]]["id"])["id"] for pointer in pointers
            }
            found = [self._types[id] for id in sorted(types)]
        for type_ in found:
            if type_["kind"] != "STRUCT":
                raise UsageError(f"{self._source} sends a {type_['kind'].lower()}", "send a pointer to a struct")
        with self._understood():
            return [self._sent(type_) for type_ in found]

    def _sent(self, struct: Type) -> SentStruct:
        """A struct; a field with the same name as one of the shared head gets the struct's name as a prefix."""
        name = struct["name"] if struct["name"] != "(anon)" else "sent"
        taken = {field.name for field in self._head().fields}
        fields = [
            replace(field, name=f"{name}_{field.name}" if field.name in taken else field.name)
            for field in self._fields(struct, 0)
        ]
        return SentStruct(name, struct["size"], tuple(fields))

    def sent_record(self, sent: SentStruct) -> RecordLayout:
        """The record that carries such a struct: the shared head, followed by the struct."""
        head = self._head()
        fields = [replace(field, offset=field.offset + head.size) for field in sent.fields]
        return make(RecordLayout, asdict(RecordLayout(sent.name, head.size + sent.size, (*head.fields, *fields))))

    def _head(self) -> RecordLayout:
        struct = self._named("STRUCT", HEADS[0])
        if struct is None:
            raise UsageError(f"{self._source} has no struct {HEADS[0]}")
        return RecordLayout(HEADS[0], struct["size"], tuple(self._fields(struct, 0)))

    def prints(self) -> bool:
        """True if a program without YAML calls bpf_printk()."""
        with self._understood():
            return any(self._is_variable(item, _PRINTS) for item in self._types.values())

    @staticmethod
    def _is_variable(item: Type, name: str) -> bool:
        """True if a type is this variable. Variables in functions have the function's name as a prefix, and a number as
        a suffix when there are several."""
        return item["kind"] == "VAR" and name in str(item["name"]).split(".")

    def _resolved(self, type_id: int) -> Type:
        """The type without typedef, const and volatile."""
        type_ = self._types[type_id]
        return self._resolved(type_["type_id"]) if type_["kind"] in ("TYPEDEF", "CONST", "VOLATILE") else type_

    def globals(self) -> dict[str, Global]:
        """The `const volatile` variables, which can be set before the object is loaded. Raises UsageError."""
        with self._understood():
            section = self._named("DATASEC", ".rodata")
            places = dict(self._place(variable) for variable in (section["vars"] if section else []))
        places.pop(_MARKER, None)
        return places

    def _place(self, variable: Type) -> tuple[str, Global]:
        declared = self._types[variable["type_id"]]
        type_ = self._resolved(declared["type_id"])
        signed = type_["kind"] == "INT" and type_.get("encoding") == "SIGNED"
        return str(declared["name"]), make(
            Global, {"offset": variable["offset"], "size": variable["size"], "signed": signed}
        )

    def functions(self) -> frozenset[str]:
        """Names of all functions, including the programs. Raises UsageError."""
        with self._understood():
            return frozenset(item["name"] for item in self._types.values() if item["kind"] == "FUNC")

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Reports malformed types: they come from another program, which may be newer, and from an object that may be
        damaged."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise UsageError(f"{self._source}: cannot read the types of its object: {error!r}") from None

    def _named(self, kind: str, name: str) -> Type | None:
        return next((item for item in self._types.values() if item["kind"] == kind and item["name"] == name), None)

    def _fields(self, struct: Type, base: int) -> Iterator[Field]:
        for member in struct["members"]:
            if member.get("bitfield_size"):
                raise UsageError(f"{self._source}: field {member['name']} is a bit field, which cannot be shown")
            offset = base + member["bits_offset"] // 8
            type_ = self._types[member["type_id"]]
            if type_["kind"] == "STRUCT":
                yield from self._fields(type_, offset)
            elif not member["name"].startswith("unused"):
                yield self._field(member["name"], offset, type_)

    def _field(self, name: str, offset: int, type_: Type) -> Field:
        resolved = self._resolved(type_["id"])
        is_enum = resolved["kind"] in ("ENUM", "ENUM64")
        values = enum_names([(value["val"], value["name"]) for value in resolved["values"]]) if is_enum else ()
        size, signed = self._size(name, resolved)
        return Field(name, offset, size, self._spelt(type_), signed, values)

    def _spelt(self, type_: Type) -> str:
        if type_["kind"] == "ARRAY":
            return f"{self._spelt(self._types[type_['type_id']])}[{type_['nr_elems']}]"
        if type_["kind"] in ("CONST", "VOLATILE"):
            return self._spelt(self._types[type_["type_id"]])
        return str(type_["name"])

    def _size(self, name: str, type_: Type) -> tuple[int, bool]:
        """Size in bytes, and whether it is a signed number. `type_` is resolved."""
        kind = type_["kind"]
        if kind == "ARRAY":
            return self._size(name, self._resolved(type_["type_id"]))[0] * type_["nr_elems"], False
        if kind in ("INT", "ENUM", "ENUM64"):
            return type_["size"], type_.get("encoding") == "SIGNED"
        if kind in ("STRUCT", "UNION"):
            return type_["size"], False
        raise UsageError(f"{self._source}: field {name} is a {kind.lower()}, which has no meaning outside the kernel")


def enum_names(values: Sequence[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    """The values of an enum and how they are shown: STATE_OPEN and STATE_HALF_CLOSED as `open` and `half closed`.

    Leading words that all names share are removed. When a value has several names, the first is used.
    """
    words = [name.lower().split("_") for _, name in values]
    common = 0
    while len(words) > 1 and min(map(len, words)) > common + 1 and len({one[common] for one in words}) == 1:
        common += 1
    names: dict[int, str] = {}
    for (number, _), one in zip(values, words, strict=True):
        names.setdefault(number, " ".join(one[common:]))
    return tuple(names.items())
