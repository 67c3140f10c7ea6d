"""Finds the parts of a filter that the kernel can evaluate.

Only parts joined by `&&` at the top level count, and of those only `column == literal` and `column.startsWith("…")`, if
the gadget has a parameter that tests this column. The kernel must let through every row that the filter
would, so a text that does not fit the parameter is shortened for a prefix and left out for an equality.
"""

import struct
from typing import Any

from kubectl_gadget.filters import cel
from kubectl_gadget.gadgets.schema import Gadget, Parameter


def kernel_parameters(filter: Any, gadget: Gadget) -> dict[str, object]:
    """Values of the gadget's parameters that follow from the filter, by name. The filter must still be applied.

    Parameters set by the user take precedence: both conditions must hold, so the caller keeps the user's value.
    """
    found: dict[str, object] = {}
    for part in cel.conjuncts(filter.tree):
        test = _equality(part) or _prefix(part)
        if test is None:
            continue
        name, column, literal = test
        for parameter in gadget.parameters:
            if parameter.column == column and parameter.name not in found:
                value = _value(parameter, name, literal, gadget)
                if value is not None:
                    found[parameter.name] = value
    return found


def _value(parameter: Parameter, test: str, literal: Any, gadget: Gadget) -> object:
    """The parameter's value for the test; None if the parameter cannot express it."""
    if isinstance(literal, str):
        room = _room(parameter, gadget)
        if parameter.type != "string" or room is None or not literal or "\0" in literal or "\ufffd" in literal:
            return None
        data = literal.encode("utf-8", "surrogatepass")
        if parameter.test == "prefix":
            return data[:room].decode("utf-8", "ignore") or None
        return literal if parameter.test == "equal" and test == "equal" and len(data) <= room else None
    if test != "equal" or parameter.test != "equal":
        return None
    fits = parameter.type == ("bool" if isinstance(literal, bool) else "int")
    if fits and parameter.type == "int":
        size = gadget.agent.globals[parameter.variable].size if parameter.variable in gadget.agent.globals else 8
        fits = -(1 << (8 * size - 1)) <= literal < 1 << (8 * size)
    return literal if fits else None


def _room(parameter: Parameter, gadget: Gadget) -> int | None:
    """The bytes of text that the global can hold, without its NUL."""
    place = gadget.agent.globals.get(parameter.variable)
    return place.size - 1 if place is not None else None


def _equality(part: cel.Tree) -> tuple[str, str, object] | None:
    if part.data != "relation" or part.children[0].data != "relation_eq":
        return None
    left, right = cel.unwrap(part.children[0].children[0]), cel.unwrap(part.children[1])
    if left.data == "literal":
        left, right = right, left
    if left.data != "ident" or right.data != "literal":
        return None
    return _with_literal("equal", left, right)


def _prefix(part: cel.Tree) -> tuple[str, str, object] | None:
    if part.data != "member_dot_arg" or part.children[1].value != "startsWith":
        return None
    items = cel.arguments(part, 2)
    receiver = cel.unwrap(part.children[0])
    if len(items) != 1 or receiver.data != "ident" or cel.unwrap(items[0]).data != "literal":
        return None
    return _with_literal("prefix", receiver, cel.unwrap(items[0]))


def _with_literal(test: str, ident: cel.Tree, literal: cel.Tree) -> tuple[str, str, object] | None:
    try:
        value = cel.literal(literal)
    except LookupError:
        return None
    return None if value is None else (test, ident.children[0].value, value)


# Paths in the form in which BPF programs compare them, to test whether a file is, or is below, one of them.


PATHS, PATH_BYTES = 8, 124
"""Maximum number of paths and bytes of a tail, as in bpf/trace_fileuse.bpf.c."""


def tail(path: str) -> bytes:
    """The final bytes of every gadget_path that is `path` or below it. Raises ValueError."""
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    parts = [part for part in path.split("/") if part]
    if ".." in parts or "." in parts:
        raise ValueError(f"{path!r} has . or .. in it")
    data = b"".join(part.encode("utf-8", "surrogateescape") + b"\0" for part in reversed(parts))
    if len(data) > PATH_BYTES:
        raise ValueError(f"{path!r} is longer than {PATH_BYTES} bytes")
    return data


def read_paths(text: str) -> list[bytes]:
    """The tails of comma-separated paths; an empty list if one of them is /. Raises ValueError."""
    tails = [tail(part.strip()) for part in text.split(",")]
    if len(tails) > PATHS:
        raise ValueError(f"{len(tails)} paths were given; at most {PATHS} are supported")
    return [] if b"" in tails else tails


def table(tails: list[bytes]) -> bytes:
    """The contents of the array `wanted_paths`."""
    packed = b"".join(struct.pack(f"<I{PATH_BYTES}s", len(item), item) for item in tails)
    return packed.ljust(PATHS * (4 + PATH_BYTES), b"\0")
