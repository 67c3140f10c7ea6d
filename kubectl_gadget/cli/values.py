"""Values as users type them: durations, sizes, names. Each reader raises ValueError with the reason, in words that
continue a sentence which begins with the flag.

The trap: what is refused here costs nothing; what slips through is found after pods were started in a cluster.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.registry import Formats, UnknownFormatError

if TYPE_CHECKING:
    from kubectl_gadget.session.options import Moment

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", re.ASCII)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|k|K|M|G|)B?", re.ASCII)
_BYTES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", re.ASCII)

_REGISTRY = re.compile(
    r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]+([-._]+[a-z0-9]+)*)*/?", re.ASCII | re.IGNORECASE
)

LONGEST_SECONDS = 366 * 86400.0
SMALLEST_RING = 64 << 10
"""Bytes. A ring is whole pages, and the largest page (arm64) has 64 KiB."""
LARGEST_RING = 1 << 30
"""Bytes. The ring is locked memory on every node."""
SMALLEST_BUFFER = 1 << 20

COLORS = ("auto", "always", "never")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The names that `name` was probably meant to be, for a "try:" line; None when nothing is near."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=2, cutoff=0.6)
    return " or ".join(close) or None


def duration(text: str) -> float:
    """Seconds of a duration as Go writes it (1h30m, 1.5s, 300ms); a plain number counts seconds."""
    if text.startswith("-"):
        raise ValueError("a duration cannot be negative")
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif text and not _DURATION.sub("", text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))
    else:
        raise ValueError("not a duration like 30s, 5m or 1h30m")
    if seconds > LONGEST_SECONDS:
        raise ValueError("more than a year")
    return seconds


def duration_above_zero(text: str) -> float:
    """As duration(), but 0 is refused."""
    seconds = duration(text)
    if seconds == 0:
        raise ValueError("must be more than 0; leave the flag out for no limit")
    return seconds


def duration_or_none(text: str) -> float | None:
    """As duration(); 0 means no limit, as with kubectl's --request-timeout."""
    return duration(text) or None


def duration_in(unit: str, size: int) -> Callable[[str], int]:
    """A reader of durations as a number of `unit`s, one of NANOSECONDS, in a C integer of `size` bytes. A plain number
    counts these, too."""
    from kubectl_gadget.events.schema import NANOSECONDS

    def read(text: str) -> int:
        units = counted(text)
        if units >= 1 << 8 * size:
            raise ValueError(f"must be at most {duration_text((1 << 8 * size) - 1, unit)}")
        return units

    def counted(text: str) -> int:
        if text.isdecimal():
            return int(text)
        if _NUMBER.fullmatch(text):
            raise ValueError(f"has no unit; write {text}s, or a whole number of {unit}")
        units, rest = divmod(round(duration(text) * 1e9), NANOSECONDS[unit])
        if rest:
            raise ValueError(f"is not a whole number of {unit}")
        return units

    return read


def duration_text(value: int, unit: str) -> str:
    """The shortest way to write `value` units in one unit; duration_in() reads it back."""
    from kubectl_gadget.events.schema import NANOSECONDS

    nanoseconds = value * NANOSECONDS[unit]
    found = next(name for name, each in reversed(NANOSECONDS.items()) if nanoseconds % each == 0)
    return f"{nanoseconds // NANOSECONDS[found]}{found}" if value else "0"


def syscalls(text: str) -> str:
    """A list of system calls and classes of them: openat,read,%network."""
    from kubectl_gadget.events.linux.syscall_table import select

    try:
        select(text)
    except UsageError as error:
        raise ValueError(f"{error}; {error.remedy}") from None
    return text


def pcap(text: str) -> str:
    """An expression as tcpdump has them."""
    from kubectl_gadget.events.filters.pcap_filter import compile_filter

    try:
        compile_filter(text)
    except UsageError as error:
        raise ValueError(f"{error}; {error.remedy}" if error.remedy else str(error)) from None
    return text


def paths(text: str) -> str:
    """Absolute paths with commas between them."""
    from kubectl_gadget.events.filters.path_tails import read_paths

    read_paths(text)
    return text


def size(text: str) -> int:
    """Bytes of a size as Kubernetes writes it: 4Mi, 512Ki, 4M, or plain bytes."""
    if text.startswith("-"):
        raise ValueError("a size cannot be negative")
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError("not a size like 4Mi, 512Ki or 4194304")
    return int(float(match[1]) * _BYTES[match[2]])


def ring_size(text: str) -> int:
    """Bytes of a BPF ring buffer: the kernel takes powers of two only."""
    value = size(text)
    if not SMALLEST_RING <= value <= LARGEST_RING:
        raise ValueError("must be between 64Ki and 1Gi")
    if value & (value - 1):
        below = 1 << (value.bit_length() - 1)
        raise ValueError(f"must be a power of two; the nearest are {size_text(below)} and {size_text(below * 2)}")
    return value


def buffer_size(text: str) -> int:
    """Bytes that the client may hold undecoded."""
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


def count(text: str) -> int:
    """A whole number of 1 or more."""
    value = whole_number(text)
    if value < 1:
        raise ValueError("must be 1 or more")
    return value


def zero_or_more(text: str) -> int:
    """A whole number of 0 or more."""
    value = whole_number(text)
    if value < 0:
        raise ValueError("must be 0 or more")
    return value


def whole_number(text: str) -> int:
    """A decimal number, or 0x… for a hexadecimal one."""
    try:
        return int(text, 16 if text.lower().lstrip("-").startswith("0x") else 10)
    except ValueError:
        raise ValueError("not a whole number") from None


def label_selector(text: str) -> str:
    """A label selector as kubectl takes it. Raises UsageError where it does not parse."""
    from kubectl_gadget.kube import label_selectors

    label_selectors.parse(text)
    return text


def moment(text: str) -> "Moment":
    """A time before the end of a recording (10m), or a wall time of RFC 3339 (2026-05-01T10:00:00Z)."""
    from datetime import datetime

    from kubectl_gadget.session.options import Moment  # not for --help

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
    """How many times as fast: 1, 0.5, 10."""
    try:
        found = float(text.removesuffix("x"))
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise ValueError("must be a number above 0, such as 1 or 10")
    return found


def some_text(text: str) -> str:
    """Any text that is not blank."""
    if not text.strip():
        raise ValueError("is empty")
    return text


def registry(text: str) -> str:
    """A registry, or a path in one, without what makes a URL: registry.example:5000/ghcr."""
    if "://" in text:
        raise ValueError("is a URL; write it without https://, as in image names")
    if not _REGISTRY.fullmatch(text):
        raise ValueError("is not a registry like registry.example or registry.example:5000/ghcr")
    return text.rstrip("/")


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader that takes exactly these words."""

    def read(text: str) -> str:
        if text in choices:
            return text
        by_lower = {choice.lower(): choice for choice in choices}
        meant = by_lower.get(text.lower()) or nearest(text, choices)
        raise ValueError(f"must be one of {', '.join(choices)}" + (f"; did you mean {meant}?" if meant else ""))

    return read


def format_of(formats: Formats) -> Callable[[str], str]:
    """A reader of what -o takes."""

    def read(text: str) -> str:
        try:
            return formats.check(text)
        except UnknownFormatError:
            return one_of(*formats.spelled)(text)

    return read


def commas(texts: Sequence[str]) -> tuple[str, ...]:
    """The parts of one or more comma-separated lists, in order, each once."""
    parts = [part.strip() for text in texts for part in text.split(",")]
    if not all(parts):
        raise ValueError("the list has an empty name")
    return tuple(dict.fromkeys(parts))


def each(read: Callable[[str], str], texts: Sequence[str]) -> tuple[str, ...]:
    """What `read` makes of each text, each once. Raises ValueError that names the text at fault."""
    result = []
    for text in texts:
        try:
            result.append(read(text))
        except ValueError as error:
            raise ValueError(f"{text!r} {error}") from None
    return tuple(dict.fromkeys(result))


def node_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Node names, also as node/NAME, with commas between several."""
    return each(lambda text: _resource_name(text, ("node", "nodes", "no"), "node", _SUBDOMAIN), commas(texts))


def pod_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Pod names, also as pod/NAME; other targets as KIND/NAME with the kinds of cluster.target_names.KINDS."""
    return each(_target, texts)


def _target(text: str) -> str:
    from kubectl_gadget.cluster.selection.target_names import kind_of

    prefix, slash, name = text.rpartition("/")
    kind = kind_of(prefix) if slash else "pod"
    if kind is None and prefix:
        raise ValueError(_wrong_kind(prefix, name))
    name = _resource_name(name if kind else text, (), kind or "pod", _SUBDOMAIN)
    return name if kind == "pod" else f"{kind}/{name}"


_FLAGS = {
    **dict.fromkeys(("node", "nodes", "no"), "--node {}"),
    **dict.fromkeys(("namespace", "namespaces", "ns"), "-n {}"),
    **dict.fromkeys(("container", "containers"), "-c {}"),
}
"""For what is chosen by a flag."""


def _wrong_kind(spelling: str, name: str) -> str:
    from kubectl_gadget.cluster.selection.target_names import BY_SPELLING, KINDS

    if "/" in spelling:
        return "is not the name of a pod"
    if flag := _FLAGS.get(spelling.lower()):
        return f"is not a pod or a workload; use {flag.format(name)}"
    meant = nearest(spelling.lower(), BY_SPELLING)
    known = ", ".join(KINDS)
    return f"has the unknown kind {spelling!r}; kinds are {known}" + (f"; did you mean {meant}?" if meant else "")


def object_name(text: str) -> str:
    """As Kubernetes has names of objects."""
    if not _SUBDOMAIN.fullmatch(text):
        raise ValueError("is not a name for Kubernetes: lower-case letters, digits, - and .")
    return text


def functions(text: str) -> str:
    """FILE:SYMBOL, several with commas, as they were given."""
    for target in text.split(","):
        file, _, symbol = target.rpartition(":")
        if not file or not symbol:
            raise ValueError("is not a function; write FILE:SYMBOL, such as libc:getaddrinfo")
    return text


def functions_and_pods(texts: Sequence[str]) -> tuple[str, ...]:
    """Functions, which have a colon, as they were given, and then pods."""
    of_functions = [functions(text) for text in texts if ":" in text]
    pods = [text for text in texts if ":" not in text]
    try:
        return (*of_functions, *pod_names(pods))
    except ValueError:
        for text in pods:
            if _IDENTIFIER.fullmatch(text):
                raise function_without_file(text) from None
        raise


def function_without_file(symbol: str) -> UsageError:
    """For a function that stands where a pod may stand, as its file is not named."""
    import ctypes

    if not _IDENTIFIER.fullmatch(symbol):
        return UsageError("no function is named", f"name some as FILE:SYMBOL, such as libc:getaddrinfo {symbol}")
    try:
        is_of_libc = hasattr(ctypes.CDLL(None), symbol)
    except (OSError, TypeError):  # Windows
        is_of_libc = False
    others = f"/path/in/the/container:{symbol}, or libNAME:{symbol} for a function of a library"
    what = f"{symbol!r} has no file; write functions as FILE:SYMBOL"
    return UsageError(what, f"libc:{symbol}" if is_of_libc else others)


def namespace(text: str) -> str:
    """The name of one namespace."""
    if "," in text:
        raise ValueError('names more than one namespace; use -A with --filter \'namespace in ["a", "b"]\'')
    return _resource_name(text, ("namespace", "namespaces", "ns"), "namespace", _LABEL)


def _resource_name(text: str, kinds: tuple[str, ...], kind: str, allowed: re.Pattern[str]) -> str:
    prefix, slash, name = text.rpartition("/")
    if slash and prefix.lower() not in kinds:
        raise ValueError(f"is not the name of a {kind}")
    if not allowed.fullmatch(name) or len(name) > 253:
        raise ValueError(f"is not a valid {kind} name: use lower-case letters, digits and dashes")
    return name


def node_selector(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Labels of nodes, as pairs: key=value,key=value."""
    pairs = {}
    for text in commas(texts):
        key, equals, value = text.partition("=")
        if not equals or not key or key.endswith("!") or value.startswith("="):
            raise ValueError(f"{text!r} is not key=value")
        pairs[key] = value
    return tuple(pairs.items())


def integer_of(size: int, *, signed: bool = False) -> Callable[[str], int]:
    """A reader of whole numbers that a C integer of `size` bytes holds."""
    bits = 8 * size
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def read(text: str) -> int:
        value = whole_number(text)
        if not lowest <= value <= highest:
            raise ValueError(f"must be between {lowest} and {highest}")
        return value

    return read


def number_of(kind: str) -> Callable[[str], int]:
    """A reader of numbers that have names: of signals (SIGTERM, TERM), capabilities (CAP_KILL, KILL), errors."""

    def read(text: str) -> int:
        prefix, spell, numbers = _named_numbers(kind)
        if text.isdecimal():
            if int(text) not in numbers:
                raise ValueError(f"invalid {kind} number; expected {numbers[0]}–{numbers[-1]}")
            return int(text)
        names = {spell(number): number for number in numbers}
        name = text.upper()
        found = names.get(name, names.get(prefix + name))
        if found is None:
            meant = nearest(name, names_of(kind))
            article = "an" if kind == "errno" else "a"
            raise ValueError(
                f"is not the number or name of {article} {kind}" + (f"; did you mean {meant}?" if meant else "")
            )
        return found

    return read


def names_of(kind: str) -> list[str]:
    """All names that number_of() reads, in the order of their numbers."""
    _, spell, numbers = _named_numbers(kind)
    return [name for name in map(spell, numbers) if not name.isdecimal()]


def _named_numbers(kind: str) -> tuple[str, Callable[[int], str], range]:
    """What may be left out in front of a name, how a number is spelt, and the numbers."""
    from kubectl_gadget.events.linux.errno_and_open import ERRNO_NAMES
    from kubectl_gadget.events.linux.process import capability_name, signal_name

    known: dict[str, tuple[str, Callable[[int], str], range]] = {
        "signal": ("SIG", signal_name, range(1, 65)),
        "capability": ("CAP_", capability_name, range(64)),
        "errno": ("", lambda number: ERRNO_NAMES.get(number, str(number)), range(1, 4096)),
    }
    return known[kind]


def ip(text: str) -> str:
    """An address of IPv4 or IPv6."""
    from ipaddress import ip_address

    return str(ip_address(text))


def text_of(size: int) -> Callable[[str], str]:
    """A reader of texts that a C array of `size` bytes holds, with its NUL."""

    def read(text: str) -> str:
        if "\0" in text or not text:
            raise ValueError("is empty, or holds a NUL")
        if len(text.encode()) >= size:
            raise ValueError(f"is longer than {size - 1} bytes, the most that the kernel can compare")
        return text

    return read


def words_of(words: Sequence[str]) -> Callable[[str], str]:
    """A reader of a comma-separated list of these words, or of "all"."""

    def read(text: str) -> str:
        for word in map(str.strip, text.split(",")):
            if word not in words and word != "all":
                meant = nearest(word, words)
                raise ValueError(
                    f"{word!r} is not one of all, {', '.join(words)}" + (f"; did you mean {meant}?" if meant else "")
                )
        return text

    return read
