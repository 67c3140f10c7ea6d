"""The types of arguments, and how each can be compared.

Sizes are those of the policy API, not of C: `size_t` and `long` have 64 bits. The trap: `fd`, `kiocb` and
`linux_binprm` are compared as the path of their file, `filename` as the text that the program passed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kubectl_gadget.policies.model import Test
from kubectl_gadget.yaml_files import own_data

Group = Literal["number", "text", "path", "socket", "address", "unix address", "capabilities", "opaque", "auto"]

_TEXT: tuple[Test, ...] = ("equal", "prefix", "postfix", "substring", "substring_ignore_case", "glob")
TESTS_OF_GROUP: Mapping[Group, tuple[Test, ...]] = {
    "number": ("equal", "less", "greater", "range", "mask", "expression"),
    "text": _TEXT,
    "path": (*_TEXT, "file_type", "same_file"),
    "socket": (
        *("source_address", "destination_address", "source_port", "destination_port"),
        *("protocol", "family", "state"),
    ),
    "address": ("source_address", "source_port", "family"),
    "unix address": (*_TEXT, "family"),
    "capabilities": ("equal", "mask", "capabilities_gained"),
    "opaque": (),
    "auto": ("equal", "less", "greater", "range", "mask", "expression", *_TEXT[1:]),
}


@dataclass(frozen=True)
class ArgumentType:
    """One type. `bits` and `signed` apply to numbers only."""

    group: Group
    description: str
    bits: int = 0
    signed: bool = False


def _type(group: Group, description: str = "", bits: int = 0, signed: bool = False) -> ArgumentType:
    number = f"{'signed' if signed else 'unsigned'} number of {bits} bits"
    return ArgumentType(group, description or number, bits, signed)


ARGUMENT_TYPES: Mapping[str, ArgumentType] = {
    name: _type(**type) for name, type in own_data(Path(__file__).with_suffix(".yaml")).items()
}
BUFFERS = ("char_buf", "char_iovec", "const_buf")
"""Types whose size is given elsewhere."""


def range_of(type: ArgumentType) -> tuple[int, int]:
    """The least and the greatest value of a numeric type."""
    return (-(1 << type.bits - 1), (1 << type.bits - 1) - 1) if type.signed else (0, (1 << type.bits) - 1)
