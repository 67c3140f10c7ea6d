"""Which executable file was mapped, from what the hook of `spec.loader` has read (policies/read/loader.py)."""

import struct
from collections.abc import Sequence

from kubectl_gadget.policy_events.event import Argument
from kubectl_gadget.policy_events.record import Value

_LONGEST = 20


def loaded_file(values: Sequence[Value | None]) -> tuple[str, str]:
    """Path and build id, in hexadecimal digits; empty when it has none."""
    file, size, *parts, _ = values
    assert file
    numbers = [part.numbers[0] if part else 0 for part in parts]
    length = min(size.numbers[0], _LONGEST) if size else 0
    return file.text.decode("utf-8", "backslashreplace"), struct.pack("<QQI", *numbers)[:length].hex()


def build_id(arguments: Sequence[Argument]) -> str:
    """Of an event of that hook, in hexadecimal digits."""
    return next((str(one.value) for one in arguments if one.kind == "build_id"), "")
