"""Documents with one odd value somewhere, for tests of whatever reads them."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
_WORDS = (
    "",
    "a b",
    "-",
    "*",
    "node",
    "timestamp",
    "int",
    "gadget_string",
    "gadget_timestamp",
    "gadget_ip_addr",
    "--help",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a tree of lists and objects, the whole first."""
    found = [path]
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*path, key))
    return found


def spoilt(whole: Any) -> st.SearchStrategy[Any]:
    """`whole` with one value replaced by something odd."""
    return st.builds(lambda path, odd: _put(whole, path, odd), st.sampled_from(places(whole)), ODD)


def altered(whole: Any) -> st.SearchStrategy[Any]:
    """`whole` with one value replaced by another of the same type, which type checks cannot detect."""

    def other(path: tuple[Any, ...]) -> st.SearchStrategy[Any]:
        value = whole
        for key in path:
            value = value[key]
        made: st.SearchStrategy[Any] = st.just(value)
        match value:
            case bool():
                made = st.just(not value)
            case int():
                made = st.integers(-9, 300) | st.integers()
            case str():
                made = st.sampled_from(_WORDS) | st.text(max_size=8)
            case list() if value:
                made = st.sampled_from([value[1:], value * 2, value[::-1]])
            case dict() if value:
                made = st.sampled_from(sorted(value)).map(lambda name: {k: v for k, v in value.items() if k != name})
        return made.map(lambda odd: _put(whole, path, odd))

    return st.sampled_from(places(whole)).flatmap(other)


def _put(whole: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    made = copy.deepcopy(whole)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return made


def as_json(value: Any) -> bytes:
    """Encodes as JSON; values that JSON cannot represent become text."""
    return json.dumps(value, default=str).encode("utf-8", "replace")
