"""Makes dataclasses from JSON by their annotations, so that wrong types are found when JSON is read.

It supports str, int, float, bool, None, Literal, texts of an enum, tuples, dicts by name, unions, dataclasses, Any and
object.
bool is an int in Python, but here neither is accepted for the other.
"""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Made = TypeVar("Made")


def make(kind: type[Made], value: object) -> Made:
    """Converts `value` to `kind`. Raises TypeError with the place and reason if it does not fit."""
    made: Made = _make(kind, value, kind.__name__)
    return made


def _make(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    if origin is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return value
    elif origin in (Union, types.UnionType):
        return _union(get_args(kind), value, where)
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return _tuple(get_args(kind), value, where)
    elif origin in (dict, Mapping):
        if isinstance(value, dict):
            _, inner = get_args(kind)
            return {str(key): _make(inner, item, f"{where}.{key}") for key, item in value.items()}
    elif kind in (Any, object) or type(value) is kind or (kind is float and type(value) is int):
        return value
    elif isinstance(kind, type) and issubclass(kind, StrEnum) and value in tuple(kind):
        return kind(value)
    raise _wrong(kind, value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(kind, value, where)
    kinds = _kinds(kind)
    if unknown := value.keys() - kinds.keys():
        raise TypeError(f"{where} has {sorted(map(str, unknown))[0]!r}, which is an unknown member")
    return kind(**{name: _make(kinds[name], item, f"{where}.{name}") for name, item in value.items()})


@cache
def _kinds(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}


def _union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    failure: TypeError | None = None
    for one in kinds:
        try:
            return _make(one, value, where)
        except TypeError as error:
            failure = failure or error
    assert failure
    raise failure


def _tuple(kinds: tuple[Any, ...], value: list[Any] | tuple[Any, ...], where: str) -> Any:
    if kinds[1:] == (...,):
        return tuple(_make(kinds[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if len(kinds) != len(value):
        raise TypeError(f"{where} has {len(value)} elements, not {len(kinds)}")
    return tuple(_make(one, item, where) for one, item in zip(kinds, value, strict=True))


def _wrong(kind: object, value: object, where: str) -> TypeError:
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return TypeError(f"{where} is {str(value)[:40]!r}, not {name}")
