"""light_dataclasses.py makes what the standard library's decorator makes."""

import dataclasses
from dataclasses import asdict, field, replace
from typing import Any

import pytest

from kubectl_gadget import light_dataclasses


def _pair(decorator: Any) -> tuple[Any, Any]:
    @decorator(frozen=True)
    class Point:
        x: int
        y: tuple[int, ...] = ()

        @property
        def doubled(self) -> int:
            return 2 * self.x

    @decorator
    class Box:
        points: list[Any] = field(default_factory=list)

    return Point, Box


@pytest.mark.parametrize("decorator", [dataclasses.dataclass, light_dataclasses.dataclass])
def test_objects_are_compared_hashed_shown_and_replaced(decorator: Any) -> None:
    point, box = _pair(decorator)
    other, _ = _pair(decorator)
    assert point(1, (2,)) == point(1, y=(2,))
    assert point(1) != point(2)
    assert point(1) != other(1)
    assert len({point(1), point(1), point(2)}) == 2
    assert repr(point(1)).endswith("Point(x=1, y=())")
    assert replace(point(1), x=3).doubled == 6
    assert asdict(box([point(1)])) == {"points": [{"x": 1, "y": ()}]}
    with pytest.raises(TypeError, match="unhashable"):
        hash(box())
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        point(1, z=1)
