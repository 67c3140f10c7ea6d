"""Readers of protocol buffers' JSON that reject a field, an enum value or a type that is not in the schema.

A schema is written as facts: enums as words in order (`NAME=5` after a gap in the numbers), messages as fields with
their types. `*` is a list, `map` is a map of texts, and of the fields that begin with `|` only one may be present.
"""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.json_format import Parse

_KINDS = {
    **{"string": 9, "bytes": 12, "bool": 8, "uint32": 13, "int32": 5, "uint64": 4, "int64": 3},
}
_MESSAGE, _LIST, _OPTIONAL = 11, 3, 1


def strict_reader(enums: Mapping[str, str], messages: Mapping[str, str], root: str) -> Callable[[str], Any]:
    """A function that reads a text to a message of the type `root`. Raises ParseError."""
    file = descriptor_pb2.FileDescriptorProto(name="schema.proto", package="schema", syntax="proto3")
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, struct_pb2, timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        file.dependency.append(known.DESCRIPTOR.name)
    for name, words in enums.items():
        _add_enum(file.enum_type.add(name=name), words)
    for name, fields in messages.items():
        _add_fields(file.message_type.add(name=name), fields)
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"schema.{root}"))
    return lambda text: Parse(text, message(), descriptor_pool=pool)


def _add_enum(enum: Any, words: str) -> None:
    number = -1
    for word in words.split():
        name, _, given = word.partition("=")
        number = int(given) if given else number + 1
        enum.value.add(name=name, number=number)


def _add_fields(message: Any, fields: str) -> None:
    for number, text in enumerate(fields.split(), 1):
        name, _, kind = text.strip("|*").partition(":")
        field = message.field.add(name=name, number=number, label=_LIST if text.endswith("*") else _OPTIONAL)
        if text.startswith("|"):
            if not message.oneof_decl:
                message.oneof_decl.add(name="one")
            field.oneof_index = 0
        if kind == "map":
            entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
            entry.options.map_entry = True
            _add_fields(entry, "key:string value:string")
            field.label, field.type, field.type_name = _LIST, _MESSAGE, f".schema.{message.name}.{entry.name}"
        elif kind in _KINDS:
            field.type = _KINDS[kind]
        else:
            field.type_name = f".{kind}" if "." in kind else f".schema.{kind}"
