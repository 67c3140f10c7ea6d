"""Compiles tcpdump's filter expressions to classic BPF, for packets that begin with their IP header.

The programs interpret it (bpf/include/gadget/network/pcap_filter.h). libpcap compiles where it is installed; elsewhere
this module does, which knows the usual part of the language. Note: names of hosts and ports are resolved here, on the
client's machine.
"""

import ctypes
import ctypes.util
import re
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import count as counter
from typing import TypeVar

from kubectl_gadget.errors import UsageError

MOST_INSTRUCTIONS = 1024
"""As in bpf/include/gadget/network/pcap_filter.h."""
_DLT_RAW = 12
_MOST_TEXT = 1000
_SNAPSHOT = 262144
_NETMASK_UNKNOWN = 0xFFFFFFFF
_INSTRUCTION_BYTES = 8


def compile_filter(expression: str) -> bytes:
    """Return the expression's instructions, 8 bytes each, little-endian; empty if every packet matches.

    Raises UsageError if it does not parse, if it is too long, or if only libpcap knows it and is not installed.
    """
    if not expression.strip():
        return b""
    if "\0" in expression:
        raise UsageError("a filter expression cannot hold a NUL")
    if len(expression) > _MOST_TEXT:
        # libpcap takes minutes for very long expressions.
        raise UsageError(f"filter expression: {len(expression)} characters", f"at most {_MOST_TEXT}; or use --filter")
    library = _libpcap()
    code = compile_here(expression) if library is None else _compile(library, expression)
    count = len(code) // _INSTRUCTION_BYTES
    if count > MOST_INSTRUCTIONS:
        raise UsageError(
            f"filter expression: it compiles to {count} instructions", f"at most {MOST_INSTRUCTIONS} can be run"
        )
    return code


# Words of a command line: the pods, then the expression

_STARTS = frozenset(
    (
        *("host", "net", "port", "portrange", "src", "dst", "proto", "protochain", "less", "greater", "len"),
        *("tcp", "udp", "sctp", "icmp", "icmp6", "ip", "ip6", "igmp", "pim", "ah", "esp", "vrrp", "carp"),
        *("arp", "rarp", "ether", "vlan", "mpls", "not", "!", "("),
        *("broadcast", "multicast", "gateway", "inbound", "outbound"),
    )
)


def split_words(words: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return the pods, and the expression, which begins with the first word that begins one for tcpdump, or with an
    address, which stands for its host or network."""
    at = next((at for at, word in enumerate(words) if begins_expression(word)), len(words))
    rest = [*words[at:]]
    if rest and _is_address(rest[0]):
        rest.insert(0, "net" if "/" in rest[0] else "host")
    return tuple(words[:at]), " ".join(rest)


def begins_expression(word: str) -> bool:
    """True if an expression may begin with this word, or with its first part."""
    first = re.match(r"[!(]|[^\s\[(]*", word)
    return first is None or first[0] in _STARTS or " " in word.strip() or "[" in word or _is_address(word)


def _is_address(word: str) -> bool:
    try:
        ip_address(word.partition("/")[0])
    except ValueError:
        return False
    return True


# libpcap


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def _compile(library: ctypes.CDLL, expression: str) -> bytes:
    handle = library.pcap_open_dead(_DLT_RAW, _SNAPSHOT)
    program = _Program()
    try:
        if library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, _NETMASK_UNKNOWN):
            why = library.pcap_geterr(handle).decode(errors="replace")
            raise UsageError(f"filter expression {expression!r}: {why}", "man pcap-filter explains them")
        code = ctypes.string_at(program.instructions, program.length * _INSTRUCTION_BYTES)
        library.pcap_freecode(ctypes.byref(program))
    finally:
        library.pcap_close(handle)
    return code


@cache
def _libpcap() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("pcap") or "libpcap.so.0.8"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = [ctypes.c_void_p]
    library.pcap_close.argtypes = [ctypes.c_void_p]
    library.pcap_freecode.argtypes = [ctypes.c_void_p]
    library.pcap_compile.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32),
    ]
    return library


# Without libpcap: the instructions. A condition emits code that ends in a jump to one of two labels

_LD_W, _LD_H, _LD_B, _LD_LEN, _LD_IMMEDIATE = 0x20, 0x28, 0x30, 0x80, 0x00
_INDIRECT = 0x20
"""Turns a load from a fixed place (BPF_ABS) into one relative to X (BPF_IND)."""
_LDX_HEADER, _LDX_MEMORY, _STORE, _TAX = 0xB1, 0x61, 0x02, 0x07
_ADD_X, _NEGATE = 0x0C, 0x84
_CALCULATE_X = {"+": 0x0C, "-": 0x1C, "*": 0x2C, "/": 0x3C, "|": 0x4C, "&": 0x5C, "<<": 0x6C, ">>": 0x7C}
_AND_K = 0x54
_JUMP, _JEQ, _JGT, _JGE, _JSET, _BY_X = 0x05, 0x15, 0x25, 0x35, 0x45, 0x08
_RETURN = 0x06
_MEMORY_WORDS = 16
_SIZES = {1: _LD_B, 2: _LD_H, 4: _LD_W}

_Plain = tuple[int, int]
"""code and k"""


@dataclass(frozen=True)
class _Branch:
    """A conditional jump to labels."""

    code: int
    k: int
    if_true: int
    if_false: int


class _Code:
    """Instructions with labels."""

    def __init__(self) -> None:
        self._items: list[_Plain | _Branch | int] = []
        """instructions, and labels where they stand"""
        self._labels = counter()

    def label(self) -> int:
        return next(self._labels)

    def add(self, *items: _Plain | _Branch | int) -> None:
        self._items += items

    def assemble(self) -> bytes:
        """Jumps reach 255 instructions; a longer one becomes two plain jumps behind it."""
        long: set[int] = set()
        while True:
            places, size = dict[int, int](), 0
            for number, item in enumerate(self._items):
                if isinstance(item, int):
                    places[item] = size
                else:
                    size += 3 if number in long else 1
            found, further = self._packed(places, long)
            if not further:
                return found
            long |= further

    def _packed(self, places: dict[int, int], long: set[int]) -> tuple[bytes, set[int]]:
        parts, further, at = [], set[int](), 0
        for number, item in enumerate(self._items):
            if isinstance(item, int):
                continue
            if isinstance(item, tuple):
                parts.append(struct.pack("<HBBI", item[0], 0, 0, item[1]))
                at += 1
                continue
            yes, no = (places[label] - at - 1 for label in (item.if_true, item.if_false))
            if number in long:
                parts.append(struct.pack("<HBBI", item.code, 0, 1, item.k))
                parts += [struct.pack("<HBBI", _JUMP, 0, 0, to) for to in (yes - 1, no - 2)]
                at += 3
                continue
            if max(yes, no) > 255:
                further.add(number)
            parts.append(struct.pack("<HBBI", item.code, min(yes, 255), min(no, 255), item.k))
            at += 1
        return b"".join(parts), further


_Condition = Callable[[_Code, int, int], None]
"""Emits code that jumps to the first label if it holds, and else to the second."""


def _and(*conditions: _Condition) -> _Condition:
    def both(one: _Condition, other: _Condition, code: _Code, yes: int, no: int) -> None:
        between = code.label()
        one(code, between, no)
        code.add(between)
        other(code, yes, no)

    return reduce(lambda one, other: partial(both, one, other), conditions)


def _not(condition: _Condition) -> _Condition:
    return lambda code, yes, no: condition(code, no, yes)


def _or(*conditions: _Condition) -> _Condition:
    return _not(_and(*map(_not, conditions)))


def _test(*loads: _Plain, jump: int = _JEQ, k: int) -> _Condition:
    return lambda code, yes, no: code.add(*loads, _Branch(jump, k, yes, no))


_IP4 = _test((_LD_B, 0), (_AND_K, 0xF0), k=0x40)
_IP6 = _test((_LD_B, 0), (_AND_K, 0xF0), k=0x60)
_WHOLE = _not(_test((_LD_H, 6), jump=_JSET, k=0x1FFF))
"""It is not a later fragment, which has no ports."""
_PROTOCOLS = {
    **{"tcp": (4, 6, 6), "udp": (4, 6, 17), "sctp": (4, 6, 132), "icmp": (4, 1), "icmp6": (6, 58), "igmp": (4, 2)},
    **{"ah": (4, 6, 51), "esp": (4, 6, 50), "pim": (4, 6, 103), "vrrp": (4, 112)},
}
"""IP versions and number"""
_WITH_PORTS = ("tcp", "udp", "sctp")


def _protocol(versions: Sequence[int], number: int) -> _Condition:
    fragment = _and(_test((_LD_B, 6), k=44), _test((_LD_B, 40), k=number))
    of_version = {
        4: _and(_IP4, _test((_LD_B, 9), k=number)),
        6: _and(_IP6, _or(_test((_LD_B, 6), k=number), fragment)),
    }
    return _or(*(of_version[version] for version in versions))


def _in_directions(direction: str, source: _Condition, destination: _Condition) -> _Condition:
    if direction in ("src", "dst"):
        return source if direction == "src" else destination
    return (_and if direction == "and" else _or)(source, destination)


def _port(direction: str, protocols: Sequence[str], low: int, high: int) -> _Condition:
    def at(*loads: _Plain) -> _Condition:
        if low == high:
            return _test(*loads, k=low)
        return _and(_test(*loads, jump=_JGE, k=low), _not(_test(*loads, jump=_JGT, k=high)))

    numbers = [_PROTOCOLS[name][-1] for name in protocols]
    ports4 = [at((_LDX_HEADER, 0), (_LD_H + _INDIRECT, place)) for place in (0, 2)]
    ports6 = [at((_LD_H, place)) for place in (40, 42)]
    return _or(
        _and(
            *(_IP4, _or(*(_test((_LD_B, 9), k=number) for number in numbers)), _WHOLE),
            _in_directions(direction, *ports4),
        ),
        _and(_IP6, _or(*(_test((_LD_B, 6), k=number) for number in numbers)), _in_directions(direction, *ports6)),
    )


def _network(direction: str, network: IPv4Network | IPv6Network) -> _Condition:
    address, mask = network.network_address.packed, network.netmask.packed
    words = [
        (at, *struct.unpack(">II", address[at : at + 4] + mask[at : at + 4]))
        for at in range(0, len(address), 4)
        if any(mask[at : at + 4])
    ]

    def at(place: int) -> _Condition:
        tests = [
            _test((_LD_W, place + at), *([(_AND_K, mask)] if mask != 0xFFFFFFFF else []), k=value)
            for at, value, mask in words
        ]
        return _and(*tests) if tests else _test((_LD_IMMEDIATE, 0), k=0)

    first, second = (12, 16) if network.version == 4 else (8, 24)
    return _and(_IP4 if network.version == 4 else _IP6, _in_directions(direction, at(first), at(second)))


# Arithmetic: emits code that leaves a number in A; needs what holds for the packets that have it

_Emit = Callable[[_Code, int], None]
"""Emits code that uses the memory from this word on."""


@dataclass(frozen=True)
class _Number:
    emit: _Emit
    needs: tuple[_Condition, ...] = ()


def _constant(value: int) -> _Number:
    return _Number(lambda code, _: code.add((_LD_IMMEDIATE, value)))


def _calculated(left: _Number, operator: str, right: _Number) -> _Number:
    def emit(code: _Code, memory: int) -> None:
        _into_x(code, left, right, memory)
        code.add((_CALCULATE_X[operator], 0))

    return _Number(emit, left.needs)  # as libpcap, which forgets what the right operand needs


def _into_x(code: _Code, left: _Number, right: _Number, memory: int) -> None:
    if memory >= _MEMORY_WORDS:
        raise UsageError("it is nested too deeply")
    right.emit(code, memory)
    code.add((_STORE, memory))
    left.emit(code, memory + 1)
    code.add((_LDX_MEMORY, memory))


def _loaded(protocol: str, index: _Number, size: int) -> _Number:
    """Return the bytes at an index of a header."""
    base, is_behind = 0, False
    if protocol in ("ip", "ip6"):
        needs: tuple[_Condition, ...] = (_IP4 if protocol == "ip" else _IP6,)
    elif protocol == "icmp6":
        needs, base = (_IP6, _test((_LD_B, 6), k=58)), 40
    else:  # libpcap reads headers behind IPv4's alone
        needs, is_behind = (_protocol((4,), _PROTOCOLS[protocol][-1]), _WHOLE), True

    def emit(code: _Code, memory: int) -> None:
        index.emit(code, memory)
        code.add(*(((_LDX_HEADER, 0), (_ADD_X, 0)) if is_behind else ()), (_TAX, 0), (_SIZES[size] + _INDIRECT, base))

    return _Number(emit, (*index.needs, *needs))


_RELATIONS = {
    **{"=": (_JEQ, False), "==": (_JEQ, False), "!=": (_JEQ, True)},
    **{">": (_JGT, False), "<=": (_JGT, True), ">=": (_JGE, False), "<": (_JGE, True)},
}


def _relation(left: _Number, operator: str, right: _Number) -> _Condition:
    jump, negated = _RELATIONS[operator]

    def compare(code: _Code, yes: int, no: int) -> None:
        _into_x(code, left, right, 0)
        code.add(_Branch(jump | _BY_X, 0, yes, no))

    return _and(*left.needs, *right.needs, _not(compare) if negated else compare)


# The language: `and` and `or` bind alike, from left to right, as for libpcap

_TOKEN = re.compile(
    r"\s*(?:(?P<ip6>(?=[0-9a-fA-F:]*:[0-9a-fA-F:]*:)[0-9a-fA-F:]+(?:\d+\.\d+\.\d+\.\d+)?)"
    r"|(?P<word>[A-Za-z][\w.-]*|\d+(?:\.\d+)+|\d+-\d+(?![\w.])|0[xX][0-9a-fA-F]+|\d+)"
    r"|(?P<sign>&&|\|\||<<|>>|[!=<>]=|[][()!=<>&|+*/:-]))"
)
_SIGNS = {"&&": "and", "||": "or", "!": "not"}
_NAMES = {
    **{"tcpflags": 13, "tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32},
    **{"tcp-ece": 64, "tcp-cwr": 128, "icmptype": 0, "icmpcode": 1, "icmp-echoreply": 0, "icmp-unreach": 3},
    **{"icmp-redirect": 5, "icmp-echo": 8, "icmp-timxceed": 11, "icmp6type": 0, "icmp6code": 1},
    **{"icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136},
}
_KINDS = ("host", "net", "port", "portrange")
_LEVELS = (("|", "&"), ("<<", ">>"), ("+", "-"), ("*", "/"))
"""Operators of arithmetic, the weakest first."""
_RESERVED = {*_STARTS, "and", "or", "mask"}


_Read = TypeVar("_Read")


class _Unknown(Exception):
    """The text is not of the part of the language that is known here."""


@dataclass(frozen=True)
class _Qualifiers:
    protocol: str = ""
    direction: str = ""
    kind: str = ""


def compile_here(expression: str) -> bytes:
    """Return what compile_filter does, without libpcap. Raises UsageError."""
    try:
        parser = _Parser(_tokens(expression))
        condition = parser.expression()
        if not parser.at_end:
            raise _Unknown(f"{parser.peek()!r} is not expected there")
    except (_Unknown, UsageError) as error:
        raise UsageError(
            f"filter expression {expression!r}: {error}",
            "for all of man pcap-filter, install libpcap (Debian, Ubuntu: apt-get install libpcap0.8); or use --filter",
        ) from None
    code = _Code()
    yes, no = code.label(), code.label()
    condition(code, yes, no)
    code.add(yes, (_RETURN, _SNAPSHOT), no, (_RETURN, 0))
    return code.assemble()


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _Unknown(f"{text[at:].split()[0]!r} is not known")
        found.append(_SIGNS.get(match[0].strip(), match[0].strip()))
        at = match.end()
    return found


class _Parser:
    """Reads tokens to conditions. Raises _Unknown."""

    _DEEPEST = 50

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._last: _Qualifiers | None = None
        """of the last primitive, for a value that follows `or`"""

    @property
    def at_end(self) -> bool:
        return self._at == len(self._tokens)

    def peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _next(self) -> str:
        found = self.peek()
        if not found:
            raise _Unknown("it ends too early")
        self._at += 1
        return found

    def _take(self, *tokens: str) -> str:
        """Return the next token if it is one of these, and else nothing."""
        return self._next() if self.peek() in tokens else ""

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise _Unknown(f"{token!r} is missing" + (f" before {self.peek()!r}" if self.peek() else ""))

    def expression(self) -> _Condition:
        found = self._term()
        while operator := self._take("and", "or"):
            found = (_and if operator == "and" else _or)(found, self._term())
        return found

    def _term(self) -> _Condition:
        if self._take("not"):
            return _not(self._nested(self._term))
        start, last = self._at, self._last
        try:
            return self._nested(self._comparison)
        except _Unknown:
            self._at, self._last = start, last
        if self._take("("):
            found = self._nested(self.expression)
            self._expect(")")
            return found
        return self._primitive()

    def _nested(self, read: Callable[[], _Read]) -> _Read:
        self._depth += 1
        if self._depth > self._DEEPEST:
            raise UsageError("it is nested too deeply")
        try:
            return read()
        finally:
            self._depth -= 1

    # `tcp port 80`, `src net 10.0.0.0/8`, `icmp`, `less 100`

    def _primitive(self) -> _Condition:
        word = self.peek()
        if word in ("less", "greater"):
            self._next()
            length = self._number()
            at_least = partial(_test, (_LD_LEN, 0), jump=_JGE)
            return at_least(k=length) if word == "greater" else _not(at_least(k=length + 1))
        if word not in _RESERVED and self._last is not None:
            return self._value(self._last)
        protocol = self._take("ip", "ip6", *_PROTOCOLS)
        direction, kind = self._direction(), ""
        if not direction and self._take("proto"):
            return self._of_protocol(protocol)
        kind = self._take(*_KINDS)
        if not direction and not kind:
            if not protocol:
                raise _Unknown(f"{word!r} is not known here" if word else "it ends too early")
            self._last = None
            return _IP4 if protocol == "ip" else _IP6 if protocol == "ip6" else self._protocols(protocol)
        self._last = found = _Qualifiers(protocol, direction, kind or "host")
        return self._values(found)

    def _protocols(self, name: str) -> _Condition:
        *versions, number = _PROTOCOLS[name]
        return _protocol(versions, number)

    def _direction(self) -> str:
        found = self._take("src", "dst")
        if found and self.peek() in ("and", "or") and self.peek(1) in ("src", "dst"):
            operator = self._next()
            return operator if self._next() != found else found
        return found

    def _of_protocol(self, version: str) -> _Condition:
        self._last = None
        text = self._next()
        versions = {"": (4, 6), "ip": (4,), "ip6": (6,)}.get(version)
        if versions is None:
            raise _Unknown(f"proto cannot follow {version}")
        number = _PROTOCOLS[text][-1] if text in _PROTOCOLS else _integer(text)
        if not 0 <= number < 256:
            raise _Unknown(f"{number} is not the number of a protocol")
        return _protocol(versions, number)

    def _values(self, of: _Qualifiers) -> _Condition:
        """Reads a value, or several in parentheses: `port (80 or 443)`."""
        if self._take("not"):
            return _not(self._nested(lambda: self._values(of)))
        if not self._take("("):
            return self._value(of)
        found = self._nested(lambda: self._values(of))
        while operator := self._take("and", "or"):
            found = (_and if operator == "and" else _or)(found, self._nested(lambda: self._values(of)))
        self._expect(")")
        return found

    def _value(self, of: _Qualifiers) -> _Condition:
        text = self._next()
        if of.kind in ("port", "portrange"):
            if of.protocol and of.protocol not in _WITH_PORTS:
                raise _Unknown(f"{of.protocol} has no ports")
            low, high, protocols = _ports(text, of)
            return _port(of.direction, protocols, low, high)
        if of.protocol not in ("", "ip", "ip6"):
            raise _Unknown(f"{of.kind} cannot follow {of.protocol}")
        networks = self._networks(text) if of.kind == "net" else _hosts(text)
        wanted = {"": (4, 6), "ip": (4,), "ip6": (6,)}[of.protocol]
        found = [_network(of.direction, network) for network in networks if network.version in wanted]
        if not found:
            raise _Unknown(f"{text!r} has no address of {of.protocol}")
        return _or(*found)

    def _networks(self, text: str) -> list[IPv4Network | IPv6Network]:
        parts = text.split(".")
        if ":" not in text:
            text, bits = ".".join(parts + ["0"] * (4 - len(parts))), str(8 * len(parts))
        else:
            bits = "128"
        if self._take("/", "mask"):
            bits = self._next()
        try:
            return [ip_network(f"{text}/{bits}")]
        except ValueError as error:
            raise _Unknown(str(error)) from None

    def _number(self) -> int:
        self._last = None
        return _integer(self._next())

    # `tcp[tcpflags] & (tcp-syn|tcp-fin) != 0`, `len > 100`

    def _comparison(self) -> _Condition:
        left = self._sum(0)
        operator = self._take(*_RELATIONS)
        if not operator:
            raise _Unknown(f"{self.peek()!r} is not expected there")
        found = _relation(left, operator, self._sum(0))
        self._last = None
        return found

    def _sum(self, level: int) -> _Number:
        if level == len(_LEVELS):
            return self._factor()
        found = self._sum(level + 1)
        while operator := self._take(*_LEVELS[level]):
            found = _calculated(found, operator, self._sum(level + 1))
        return found

    def _factor(self) -> _Number:
        if self._take("("):
            found = self._nested(lambda: self._sum(0))
            self._expect(")")
            return found
        if self._take("-"):
            inner = self._nested(self._factor)

            def negate(code: _Code, memory: int) -> None:
                inner.emit(code, memory)
                code.add((_NEGATE, 0))

            return _Number(negate, inner.needs)
        word = self._next()
        if word == "len":
            return _Number(lambda code, _: code.add((_LD_LEN, 0)))
        if self.peek() != "[":
            return _constant(_NAMES[word] if word in _NAMES else _integer(word))
        if word not in ("ip", "ip6", *_PROTOCOLS):
            raise _Unknown(f"{word}[…] is not known here")
        self._next()
        index = self._nested(lambda: self._sum(0))
        size = _integer(self._next()) if self._take(":") else 1
        self._expect("]")
        if size not in _SIZES:
            raise _Unknown("the size is 1, 2 or 4 bytes")
        return _loaded(word, index, size)


def _integer(text: str) -> int:
    try:
        found = int(text, 16 if text[:2].lower() == "0x" else 10)
    except ValueError:
        raise _Unknown(f"{text!r} is not a number") from None
    if found >= 1 << 32:
        raise _Unknown(f"{text} is too large")
    return found


def _ports(text: str, of: _Qualifiers) -> tuple[int, int, Sequence[str]]:
    """Return the lowest and highest port, and the protocols."""
    protocols: tuple[str, ...] = (of.protocol,) if of.protocol else _WITH_PORTS
    first, dash, last = text.partition("-")
    if of.kind == "portrange" and dash and first.isdecimal():
        ends = sorted((_integer(first), _integer(last)))
    elif text.isdecimal():
        ends = [_integer(text)] * 2
    else:
        named = {name: port for name in protocols if (port := _service_port(text, name)) is not None}
        if not named:
            raise _Unknown(f"{text!r} is not a port")
        ends = [*named.values()][:1] * 2
        if set(named) != {"tcp", "udp"} or len({*named.values()}) > 1:
            protocols = tuple(name for name, port in named.items() if port == ends[0])
    if ends[-1] > 65535:
        raise _Unknown(f"{ends[-1]} is not a port")
    return ends[0], ends[1], protocols


def _service_port(name: str, protocol: str) -> int | None:
    try:
        return socket.getservbyname(name, protocol)
    except OSError:
        return None


def _hosts(text: str) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(text)]
    except ValueError:
        pass
    if re.fullmatch(r"[\d.]+|0[xX].*", text) or text in _RESERVED:
        raise _Unknown(f"{text!r} is not a host")
    try:
        return [ip_network(address) for address in _resolved(text)]
    except OSError as error:
        raise _Unknown(f"{text!r} cannot be resolved: {error.strerror}") from None


def _resolved(name: str) -> Iterator[str]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    yield from dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found)
