"""Flags' values, read with the readers that stand beside a flag's declaration.

    Annotated[int | None, flag(SHOW, "--max-events", …), values.count]

The trap: an error names the value as it was written and where, so the reader's own words must continue a sentence.
"""

from collections.abc import Callable
from typing import Any, get_args, get_origin, get_type_hints

from kubectl_gadget.errors import UsageError

Reader = Callable[[Any], Any]


def read_value(hint: Any, value: Any, spelling: str) -> Any:
    """What the readers of `hint` make of a value that was given as `spelling`. Raises UsageError."""
    readers: list[Reader] = [item for item in get_args(hint)[2:] if callable(item)]
    for reader in readers:
        try:
            value = reader(value)
        except ValueError as error:
            what = [spelling] * bool(spelling) + [repr(value)] * isinstance(value, str)
            raise UsageError(": ".join([" ".join(what)] * bool(what) + [str(error)])) from None
    return value


def repeats(hint: Any) -> bool:
    """Whether a flag may be given more than once."""
    return any(get_origin(item) in (tuple, list) for item in (hint, *get_args(hint), *get_args(get_args(hint)[0])))


def spelling(kind: type, name: str) -> str:
    """The long spelling of the flag in field `name` of the set `kind`."""
    declaration = get_args(get_type_hints(kind, include_extras=True)[name])[1]
    return str(declaration.default).partition("/")[0]
