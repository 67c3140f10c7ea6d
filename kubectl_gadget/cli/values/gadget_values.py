"""Reads values of gadgets' own parameters: system calls, addresses, paths, numbers that have names."""

from collections.abc import Callable, Sequence

from kubectl_gadget.cli.values.amounts import whole_number
from kubectl_gadget.similar_names import meant


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
    from kubectl_gadget.linux.files import ERRNO_NAMES
    from kubectl_gadget.linux.processes import capability_name, signal_name

    known: dict[str, tuple[str, Callable[[int], str], range]] = {
        "signal": ("SIG", signal_name, range(1, 65)),
        "capability": ("CAP_", capability_name, range(64)),
        "errno": ("", lambda number: ERRNO_NAMES.get(number, str(number)), range(1, 4096)),
    }
    return known[kind]


def ip(text: str) -> str:
    """An IPv4 or IPv6 address."""
    from ipaddress import ip_address

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
