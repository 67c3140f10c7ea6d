"""Readers of values: what users type becomes what a run takes, checked before anything is started.

Each reader raises ValueError with the reason, worded to continue a sentence that begins with the flag. What is
rejected here costs nothing; what slips through is found after pods have been started in a cluster.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube import selectors
from kubectl_gadget.kube.cluster_options import BY_SPELLING, KINDS, kind_of
from kubectl_gadget.output.registry import Formats, UnknownFormatError
from kubectl_gadget.wording import meant

if TYPE_CHECKING:
    from kubectl_gadget.run.run_options import Moment


# Durations, sizes, counts and times

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
"""Entries of one BPF map; the kernel allocates most maps in full, on every node."""


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
    """Like duration(), but 0 is rejected."""
    seconds = duration(text)
    if seconds == 0:
        raise ValueError("must be more than 0; leave the flag out for its default")
    return seconds


def duration_or_none(text: str) -> float | None:
    """Like duration(); 0 means no limit, like kubectl's --request-timeout."""
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


# Words, choices and lists of words


SEVERITIES = ("error", "critical", "warning", "note")
"""of findings; a flag without a value has the first"""
COLORS = ("auto", "always", "never")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def hosts(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of hosts, with or without a port. No patterns: any name may be made to lead to this machine."""
    for name in names:
        if not re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", name):
            raise ValueError(f"{name!r} is not HOST or HOST:PORT")
    return names


def page_file(text: str) -> str:
    """The file in html=FILE."""
    kind, _, file = text.partition("=")
    if kind != "html" or file in ("", "-"):
        raise ValueError("must be html=FILE")
    folder = Path(file).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    return file


def debuginfo(text: str) -> str:
    """A folder, or the URL of a debuginfod server."""
    if "://" in text:
        from urllib.parse import urlsplit

        url = urlsplit(text)
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise ValueError("is not a URL like https://debuginfod.debian.net")
        return text
    if not text or not Path(text).is_dir():
        raise ValueError("is neither a folder nor a URL")
    return text


def exports(texts: Sequence[str]) -> tuple[str, ...]:
    """Targets of --export, each once."""
    from kubectl_gadget.export.targets import target

    return each(lambda text: text if target(text) else "", texts)


def export_headers(texts: Sequence[str]) -> tuple[str, ...]:
    """Headers, or files of them; an error does not show the value."""
    from kubectl_gadget.export.targets import headers

    for text in texts:
        headers(text)
    return tuple(texts)


def export_tls(text: str) -> str:
    """The files of --export-tls."""
    from kubectl_gadget.export.targets import tls

    return text if tls(text) else ""


def some_text(text: str) -> str:
    """Any text that is not blank."""
    if not text.strip():
        raise ValueError("is empty")
    return text


def one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text in choices:
            return text
        raise ValueError(f"must be one of {', '.join(choices)}{meant(text, choices)}")

    return read


def format_of(formats: Formats) -> Callable[[str], str]:
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
    """The results of `read` for each text, without duplicates. Raises ValueError, which names the invalid text."""
    result = []
    for text in texts:
        try:
            result.append(read(text))
        except ValueError as error:
            raise ValueError(f"{text!r} {error}") from None
    return tuple(dict.fromkeys(result))


# Names of pods, nodes, namespaces, labels, registries and functions


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_SUBDOMAIN = r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?"
_POD = r"[a-z0-9*]([-.a-z0-9*]*[a-z0-9*])?"
"""with `*` for any text"""
_REGISTRY = r"(?ai)[a-z0-9]([-.a-z0-9]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]+([-._]+[a-z0-9]+)*)*/?"


def label_selector(text: str) -> str:
    """A label selector in kubectl's syntax. Raises UsageError if it does not parse."""
    selectors.parse(text)
    return text


def registry(text: str) -> str:
    """A registry, or a path in one, without the scheme of a URL: registry.example:5000/ghcr."""
    if "://" in text:
        raise ValueError("is a URL; write it without https://, as in image names")
    if not re.fullmatch(_REGISTRY, text):
        raise ValueError("is not a registry like registry.example or registry.example:5000/ghcr")
    return text.rstrip("/")


def node_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Node names, comma-separated or repeated, also as node/NAME."""
    return each(lambda text: _resource_name(text, ("node", "nodes", "no"), "node", _SUBDOMAIN), commas(texts))


def pod_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Pod names, also as pod/NAME; other targets as KIND/NAME with the kinds of cluster.target_names.KINDS."""
    return each(_target, texts)


def pods_and_expression(texts: Sequence[str]) -> tuple[str, ...]:
    """Pods, and the words of a tcpdump filter expression, unchanged. Raises UsageError if it does not compile."""
    from kubectl_gadget.filters.pcap_filter import compile_filter, split_words

    pods, expression = split_words(texts)
    compile_filter(expression)
    named = (name if split_words([name])[0] else f"pod/{name}" for name in pod_names(pods))
    return (*named, *texts[len(pods) :])


def _target(text: str) -> str:
    if len(text.split()) > 1:
        raise ValueError("is not the name of a pod; conditions need a flag: --filter, or --pcap where there is one")
    if text.endswith(RECORDING):
        raise ValueError(f"is a recording and not a pod: kubectl gadget replay {text} shows it")
    prefix, slash, name = text.rpartition("/")
    kind = kind_of(prefix) if slash else "pod"
    if kind is None and prefix:
        raise ValueError(_wrong_kind(prefix, name))
    name = _resource_name(name if kind else text, (), kind or "pod", _POD if kind in (None, "pod") else _SUBDOMAIN)
    return name if kind == "pod" else f"{kind}/{name}"


RECORDING = ".kgr"
_FLAGS = {
    **dict.fromkeys(("node", "nodes", "no"), "--node {}"),
    **dict.fromkeys(("namespace", "namespaces", "ns"), "-n {}"),
    **dict.fromkeys(("container", "containers"), "-c {}"),
}
"""The flag that selects objects of a kind."""


def _wrong_kind(spelling: str, name: str) -> str:
    if "/" in spelling:
        return "is not the name of a pod"
    if flag := _FLAGS.get(spelling.lower()):
        return f"is not a pod or a workload; use {flag.format(name)}"
    return f"has the unknown kind {spelling!r}; kinds are {', '.join(KINDS)}{meant(spelling, BY_SPELLING)}"


def object_name(text: str) -> str:
    if not re.fullmatch(_SUBDOMAIN, text):
        raise ValueError("is not a valid Kubernetes name: use lower-case letters, digits, - and .")
    return text


def functions(text: str) -> str:
    """Comma-separated FILE:SYMBOL, unchanged."""
    for target in text.split(","):
        file, _, symbol = target.rpartition(":")
        if not file or not symbol:
            raise ValueError("is not a function; write FILE:SYMBOL, such as libc:getaddrinfo")
    return text


def functions_and_pods(texts: Sequence[str]) -> tuple[str, ...]:
    """Functions, which contain a colon, unchanged, and then pods."""
    of_functions = [functions(text) for text in texts if ":" in text]
    pods = [text for text in texts if ":" not in text]
    try:
        return (*of_functions, *pod_names(pods))
    except ValueError:
        for text in pods:
            if re.fullmatch(_IDENTIFIER, text):
                raise function_without_file(text) from None
        raise


def function_without_file(symbol: str) -> UsageError:
    """The error for a function without a file, in a place where a pod is also possible."""
    import ctypes

    if not re.fullmatch(_IDENTIFIER, symbol):
        return UsageError("no function was given", f"FILE:SYMBOL before the pods, such as libc:getaddrinfo {symbol}")
    try:
        is_of_libc = hasattr(ctypes.CDLL(None), symbol)
    except (OSError, TypeError):  # Windows
        is_of_libc = False
    others = f"/path/in/the/container:{symbol}, or libNAME:{symbol} for a function of a library"
    what = f"{symbol!r} has no file; write functions as FILE:SYMBOL"
    return UsageError(what, f"libc:{symbol}" if is_of_libc else others)


def namespace(text: str) -> str:
    if text.startswith("-"):
        raise ValueError("is a flag, and the name of a namespace was expected")
    if "," in text:
        raise ValueError('names more than one namespace; use -A with --filter \'namespace in ["a", "b"]\'')
    return _resource_name(text, ("namespace", "namespaces", "ns"), "namespace", _LABEL)


def _resource_name(text: str, kinds: tuple[str, ...], kind: str, allowed: str) -> str:
    prefix, slash, name = text.rpartition("/")
    if slash and prefix.lower() not in kinds:
        raise ValueError(f"is not the name of a {kind}")
    if not re.fullmatch(allowed, name) or len(name) > 253:
        raise ValueError(f"is not a valid {kind} name: use lower-case letters, digits and dashes")
    return name


def node_selector(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Labels of nodes as pairs: key=value,key=value."""
    pairs = {}
    for text in commas(texts):
        key, equals, value = text.partition("=")
        if not equals or not key or key.endswith("!") or value.startswith("="):
            raise ValueError(f"{text!r} is not key=value")
        pairs[key] = value
    return tuple(pairs.items())


# Gadgets' own parameters: system calls, addresses, paths, numbers that have names


def syscalls(text: str) -> str:
    """A list of system calls and classes of them: openat,read,%network. Raises UsageError."""
    from kubectl_gadget.linux.syscalls import select

    select(text)
    return text


def pcap(text: str) -> str:
    """A tcpdump filter expression. Raises UsageError."""
    from kubectl_gadget.filters.pcap_filter import compile_filter

    compile_filter(text)
    return text


def paths(text: str) -> str:
    from kubectl_gadget.filters.pushdown import read_paths

    read_paths(text)
    return text


def integer_of(size: int, *, signed: bool = False) -> Callable[[str], int]:
    """A reader of whole numbers that fit a C integer of `size` bytes."""
    bits = 8 * size
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def read(text: str) -> int:
        value = whole_number(text)
        if not lowest <= value <= highest:
            raise ValueError(f"must be between {lowest} and {highest}")
        return value

    return read


def number_of(kind: str) -> Callable[[str], int]:
    """A reader of numbers that have names: signals (SIGTERM, TERM), capabilities (CAP_KILL, KILL), errors."""

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
            article = "an" if kind == "errno" else "a"
            raise ValueError(f"is not the number or name of {article} {kind}{meant(name, names_of(kind))}")
        return found

    return read


def names_of(kind: str) -> list[str]:
    """All names that number_of() reads, in the order of their numbers."""
    _, spell, numbers = _named_numbers(kind)
    return [name for name in map(spell, numbers) if not name.isdecimal()]


def _named_numbers(kind: str) -> tuple[str, Callable[[int], str], range]:
    """The optional prefix of a name, the function from number to name, and the range of numbers."""
    from kubectl_gadget.linux.names import ERRNO_NAMES, capability_name, signal_name

    known: dict[str, tuple[str, Callable[[int], str], range]] = {
        "signal": ("SIG", signal_name, range(1, 65)),
        "capability": ("CAP_", capability_name, range(64)),
        "errno": ("", lambda number: ERRNO_NAMES.get(number, str(number)), range(1, 4096)),
    }
    return known[kind]


def ip(text: str) -> str:
    """An IPv4 or IPv6 address."""
    return str(ip_address(text))


def text_of(size: int) -> Callable[[str], str]:
    """A reader of texts that fit a C array of `size` bytes, including the NUL."""

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
                raise ValueError(f"{word!r} is not one of all, {', '.join(words)}{meant(word, words)}")
        return text

    return read
