"""Reads durations, sizes, counts and times.

Each reader in this folder raises ValueError with the reason, worded to continue a sentence that begins with the flag.
The trap: what is rejected here costs nothing; what slips through is found after pods have been started in a cluster.
"""

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubectl_gadget.run.run_options import Moment

_NUMBER = r"[0-9]+(\.[0-9]*)?|\.[0-9]+"
_DURATION = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|k|K|M|G|)B?"
"""Patterns are compiled at first use: most command lines need none of them, and each takes 0.3 ms."""
_BYTES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
LONGEST_SECONDS = 366 * 86400.0
SMALLEST_RING = 64 << 10
"""Bytes. A ring consists of whole pages, and the largest page size (arm64) is 64 KiB."""
LARGEST_RING = 1 << 30
"""Bytes. The ring is locked memory on every node."""
SMALLEST_BUFFER = 1 << 20
MOST_ENTRIES = 1 << 24
"""Entries of one BPF map, most of which are allocated at once, on every node."""


def duration(text: str) -> float:
    """Seconds of a duration in Go's syntax (1h30m, 1.5s, 300ms); a plain number is in seconds."""
    if text.startswith("-"):
        raise ValueError("a duration cannot be negative")
    if re.fullmatch(_NUMBER, text):
        seconds = float(text)
    elif text and not re.sub(_DURATION, "", text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_DURATION, text))
    else:
        raise ValueError("not a duration like 30s, 5m or 1h30m")
    if seconds > LONGEST_SECONDS:
        raise ValueError("more than a year")
    return seconds


def duration_above_zero(text: str) -> float:
    """As duration(), but 0 is rejected."""
    seconds = duration(text)
    if seconds == 0:
        raise ValueError("must be more than 0; leave the flag out for its default")
    return seconds


def duration_or_none(text: str) -> float | None:
    """As duration(); 0 means no limit, as with kubectl's --request-timeout."""
    return duration(text) or None


def duration_in(unit: str, size: int) -> Callable[[str], int]:
    """A reader of durations as a number of `unit`s, one of NANOSECONDS, in a C integer of `size` bytes. A plain number
    is in this unit."""
    from kubectl_gadget.gadgets.schema import NANOSECONDS

    def read(text: str) -> int:
        units = counted(text)
        if units >= 1 << 8 * size:
            raise ValueError(f"must be at most {duration_text((1 << 8 * size) - 1, unit)}")
        return units

    def counted(text: str) -> int:
        if text.isdecimal():
            return int(text)
        if re.fullmatch(_NUMBER, text):
            raise ValueError(f"has no unit; write {text}s, or a whole number of {unit}")
        units, rest = divmod(round(duration(text) * 1e9), NANOSECONDS[unit])
        if rest:
            raise ValueError(f"is not a whole number of {unit}")
        return units

    return read


def duration_text(value: int, unit: str) -> str:
    """The shortest way to write `value` units in one unit; duration_in() reads it back."""
    from kubectl_gadget.gadgets.schema import NANOSECONDS

    nanoseconds = value * NANOSECONDS[unit]
    found = next(name for name, each in reversed(NANOSECONDS.items()) if nanoseconds % each == 0)
    return f"{nanoseconds // NANOSECONDS[found]}{found}" if value else "0"


def size(text: str) -> int:
    """Bytes of a size in Kubernetes' syntax: 4Mi, 512Ki, 4M, or plain bytes."""
    if text.startswith("-"):
        raise ValueError("a size cannot be negative")
    match = re.fullmatch(_SIZE, text)
    if not match:
        raise ValueError("not a size like 4Mi, 512Ki or 4194304")
    return int(float(match[1]) * _BYTES[match[2]])


def ring_size(text: str) -> int:
    """Bytes of a BPF ring buffer, which must be a power of two."""
    value = size(text)
    if not SMALLEST_RING <= value <= LARGEST_RING:
        raise ValueError("must be between 64Ki and 1Gi")
    if value & (value - 1):
        below = 1 << (value.bit_length() - 1)
        raise ValueError(f"must be a power of two; the nearest are {size_text(below)} and {size_text(below * 2)}")
    return value


def buffer_size(text: str) -> int:
    """Bytes of undecoded data that the client may hold."""
    value = size(text)
    if value < SMALLEST_BUFFER:
        raise ValueError("must be at least 1Mi, so that a batch fits")
    return value


def size_text(value: int) -> str:
    """The shortest exact way to write `value` bytes; size() reads it back."""
    for unit in ("Gi", "Mi", "Ki"):
        if value and value % _BYTES[unit] == 0:
            return f"{value // _BYTES[unit]}{unit}"
    return str(value)


def _whole_number_of(lowest: int, highest: float, wrong: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = whole_number(text)
        if not lowest <= value <= highest:
            raise ValueError(wrong)
        return value

    return read


count = _whole_number_of(1, math.inf, "must be 1 or more")
zero_or_more = _whole_number_of(0, math.inf, "must be 0 or more")
port = _whole_number_of(1, 65535, "must be between 1 and 65535")
map_entries = _whole_number_of(1, MOST_ENTRIES, f"must be between 1 and {MOST_ENTRIES}")


def whole_number(text: str) -> int:
    """A decimal number, or 0x… for a hexadecimal one."""
    try:
        return int(text, 16 if text.lower().lstrip("-").startswith("0x") else 10)
    except ValueError:
        raise ValueError("not a whole number") from None


def moment(text: str) -> "Moment":
    """A time before the end of a recording (10m), or a wall time in RFC 3339 (2026-05-01T10:00:00Z)."""
    from datetime import datetime

    from kubectl_gadget.run.run_options import Moment  # not for --help

    try:
        return Moment(ago_ns=round(duration(text) * 1e9))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is neither a duration like 10m nor a time like 2026-05-01T10:00:00Z") from None
    if found.tzinfo is None:
        found = found.astimezone()
    return Moment(absolute_ns=round(found.timestamp() * 1e6) * 1000)


def factor(text: str) -> float:
    """A factor of speed: 1, 0.5, 10."""
    try:
        found = float(text.removesuffix("x"))
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise ValueError("must be a number above 0, such as 1 or 10")
    return found
