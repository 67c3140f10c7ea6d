"""Dataclasses with few methods of their own, for modules that are imported before a run is attached.

@dataclass(frozen=True) of the standard library compiles six functions for each class, an eighth of the instructions of
a client's start. Here only `__init__` is compiled. The trap: that nothing is assigned to a frozen object is checked by
mypy only.
"""

import dataclasses
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(kind: type | None = None, *, frozen: bool = False) -> Any:
        """Makes a dataclass, whose objects can be hashed if it is `frozen`."""
        if kind is None:
            return partial(dataclass, frozen=frozen)
        made = dataclasses.dataclass(kind, eq=False, repr=False)
        values = attrgetter("__class__", *(field.name for field in dataclasses.fields(made)))

        def is_equal(one: object, other: object) -> bool:
            return values(one) == values(other) if other.__class__ is one.__class__ else NotImplemented

        hashed = (lambda one: hash(values(one))) if frozen else None
        for name, method in {"__eq__": is_equal, "__hash__": hashed, "__repr__": _shown}.items():
            setattr(made, name, method)
        return made


def _shown(one: Any) -> str:
    values = (f"{field.name}={getattr(one, field.name)!r}" for field in dataclasses.fields(one))
    return f"{type(one).__qualname__}({', '.join(values)})"
