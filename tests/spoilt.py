"""Documents with something odd at one of their places, for tests of whatever reads them."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in a tree of lists and objects, the whole first."""
    found = [path]
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*path, key))
    return found


def spoilt(whole: Any) -> st.SearchStrategy[Any]:
    """`whole` with something odd at one of its places."""

    def put(path: tuple[Any, ...], odd: Any) -> Any:
        if not path:
            return odd
        made = copy.deepcopy(whole)
        inner = made
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = odd
        return made

    return st.builds(put, st.sampled_from(places(whole)), ODD)


def as_json(value: Any) -> bytes:
    """What JSON has no word for becomes text."""
    return json.dumps(value, default=str).encode("utf-8", "replace")
