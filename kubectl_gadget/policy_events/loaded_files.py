"""The executable file that was mapped, from the values that `spec.loader`'s hook read (policies/read/loader.py)."""

import struct
from collections.abc import Sequence

from kubectl_gadget.policy_events.event import EventArgument
from kubectl_gadget.policy_events.policy_record import Value

_LONGEST = 20


def loaded_file(values: Sequence[Value | None]) -> tuple[str, str]:
    """Path, and build ID in hexadecimal; the latter is empty when the file has none."""
    file, size, *parts, _ = values
    assert file
    numbers = [part.numbers[0] if part else 0 for part in parts]
    length = min(size.numbers[0], _LONGEST) if size else 0
    return file.text.decode("utf-8", "backslashreplace"), struct.pack("<QQI", *numbers)[:length].hex()


def build_id(arguments: Sequence[EventArgument]) -> str:
    """The build ID in an event of that hook, in hexadecimal."""
    return next((str(one.value) for one in arguments if one.kind == "build_id"), "")
