"""tcpdump's expressions become instructions, or an error that says why not."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters import pcap_filter
from kubectl_gadget.filters.pcap_filter import MOST_INSTRUCTIONS, compile_filter, compile_here
from tests.output import libpcap

RETURN = 6


def codes(expression: str) -> list[int]:
    return [code for code, _, _, _ in struct.iter_unpack("<HBBI", compile_filter(expression))]


@pytest.fixture
def _with_libpcap() -> None:
    libpcap.load()


@pytest.mark.usefixtures("_with_libpcap")
def test_an_expression_becomes_instructions_that_end_with_a_return() -> None:
    found = codes("tcp port 80 or icmp6")
    assert 4 < len(found) <= MOST_INSTRUCTIONS
    assert found[-1] & 7 == RETURN


def test_an_empty_text_is_not_a_filter() -> None:
    assert compile_filter("") == compile_filter("  ") == b""


@pytest.mark.usefixtures("_with_libpcap")
@pytest.mark.parametrize("expression", ["tcp porrt 80", "tcp and", "host", "\0"])
def test_what_does_not_parse_is_an_error(expression: str) -> None:
    with pytest.raises(UsageError):
        compile_filter(expression)


def test_what_is_too_long_is_an_error() -> None:
    with pytest.raises(UsageError, match="characters"):
        compile_filter(" or ".join(f"port {number}" for number in range(200)))


@given(st.text("tcpudo0 ()[]&|!=<>and:13", max_size=30))
def test_any_text_compiles_or_is_an_error(expression: str) -> None:
    try:
        compile_filter(expression)
    except UsageError as error:
        assert "filter expression" in str(error)  # noqa: PT017


# Without libpcap: the same verdict as libpcap on every packet


def test_what_is_not_known_without_libpcap_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcap_filter, "_libpcap", lambda: None)
    assert compile_filter("tcp port 80") == compile_here("tcp port 80") != b""
    for expression in ("vlan 3", "ether host 1:2:3:4:5:6", "tcp porrt 80", "tcp and", "host", "((", "net 10.0.0.1/8"):
        with pytest.raises(UsageError, match="filter expression") as caught:
            compile_filter(expression)
        assert "libpcap" in str(caught.value.remedy)


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    for expression in ("(" * 400 + "tcp" + ")" * 400, "not " * 240 + "tcp", "-" * 500 + "1=1"):
        with pytest.raises(UsageError, match=r"nested too deeply|expected"):
            compile_here(expression)


def test_jumps_beyond_255_instructions_arrive() -> None:
    code = compile_here("port " + " or ".join(map(str, range(1, 25))))
    udp = bytes.fromhex("4500001c00000000401100000a0000010a0000020018270f00080000")
    assert verdict(code, udp)
    assert not verdict(code, udp[:20] + b"\x27\x0e" + udp[22:])


@pytest.mark.usefixtures("_with_libpcap")
@pytest.mark.parametrize("seed", range(300))
def test_libpcap_decides_alike(seed: int) -> None:
    chance = random.Random(seed)
    expression = an_expression(chance)
    try:
        of_libpcap = compile_filter(expression)
    except UsageError as error:
        if "rejects all packets" not in str(error):
            raise
        return
    here = compile_here(expression)
    for _ in range(40):
        found = a_packet(chance)
        assert verdict(of_libpcap, found) == verdict(here, found), (expression, found.hex())


def an_expression(chance: random.Random, depth: int = 0) -> str:
    one, kind = chance.choice, chance.random()
    if depth < 3 and kind < 0.5:
        inner = an_expression(chance, depth + 1)
        if kind < 0.3:
            return f"{inner} {one(['and', 'or', '&&', '||'])} {an_expression(chance, depth + 1)}"
        return f"({inner})" if kind < 0.4 else f"not {inner}"
    way = one(["", "", "src ", "dst ", "src or dst ", "src and dst "])
    header = one(["tcp", "udp", "ip", "ip6", "icmp", "icmp6"])
    index, operator = (
        one(["0", "2:2", "13", "1+1:2", "(12 >> 1)", "0:4"]),
        one(["&", "+", "-", "*", "|", ">>", "<<", "/"]),
    )
    network = one(["10", "10.1", "10.0.0.0/8", "192.168.0.0 mask 255.255.0.0", "0.0.0.0/0", "fe80::/10", "::/0"])
    relation = one(["=", ">", "<", ">=", "<=", "!="])
    return one(
        [
            one(["tcp", "udp", "icmp", "icmp6", "ip", "ip6", "sctp", "igmp", "esp"]),
            f"{one(['', 'tcp ', 'udp '])}{way}port {one(['80', '443', '80 or 53', '(80 or 22)', 'domain'])}",
            f"{way}portrange {one(['50-90', '100-150', '150-100'])}",
            f"{one(['', 'ip '])}{way}host {one(['10.0.0.1', '10.1.2.3'])}",
            f"{one(['', 'ip6 '])}{way}host {one(['2001:db8::1', 'fe80::1'])}",
            f"{way}net {network}",
            f"{way or 'src '}10.0.0.1",
            f"{one(['', 'ip ', 'ip6 '])}proto {one([6, 17, 58])}",
            f"{one(['less', 'greater'])} {one([80, 84, 88])}",
            f"len {one(['>', '<=', '=='])} {one([80, 84, 88])}",
            f"tcp[tcpflags] & (tcp-syn|tcp-ack) {one(['!= 0', '== tcp-syn', '= 18'])}",
            f"{header}[{index}] {operator} {one([1, 3, 15])} {relation} {one([0, 2, 80])}",
            "ip[2:2] - ((ip[0]&0xf)<<2) - ((tcp[12]&0xf0)>>2) != 0",
            "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420",
        ]
    )


def a_packet(chance: random.Random) -> bytes:
    one = chance.choice
    protocol, length = one([6, 17, 132, 1, 58, 2, 44]), one([5, 5, 6, 7])
    ports = struct.pack(">HH", one([80, 443, 53, 22, 100]), one([80, 443, 53, 8080, 150]))
    body = ports + bytes(one([0, 2, 16, 18, 255]) for _ in range(60))
    if chance.random() < 0.6:
        fragment = one([0, 0, 0x4000, 0x2000, 0x10])
        head = struct.pack(">BBHHHBBH", 0x40 | length, 0, 100, 1, fragment, 64, protocol, 0)
        ends = b"".join(bytes(one([[10, 0, 0, 1], [10, 1, 2, 3], [192, 168, 0, 1]])) for _ in range(2))
        return head + ends + bytes(length * 4 - 20) + body
    ends = b"".join(bytes.fromhex(one(["20010db8" + "0" * 23 + "1", "fe80" + "0" * 27 + "1"])) for _ in range(2))
    return struct.pack(">BBHHBB", 0x60, 0, 0, 60, protocol, 64) + ends + body


_SIZES = {0x00: 4, 0x08: 2, 0x10: 1}


def verdict(code: bytes, packet: bytes) -> bool:
    """Runs classic BPF as the programs do: reading beyond the end, or dividing by zero, is no match."""
    instructions = list(struct.iter_unpack("<HBBI", code))
    at, a, x, memory = 0, 0, 0, [0] * 16

    def read(offset: int, size: int) -> int:
        if offset + size > len(packet):
            raise IndexError
        return int.from_bytes(packet[offset : offset + size], "big")

    try:
        while True:
            op, yes, no, k = instructions[at]
            at += 1
            mode, operand = op & 0xE0, x if op & 8 else k
            if op & 7 == RETURN:
                return bool(k if op & 0x18 == 0 else a)
            if op & 7 == 0:
                size = _SIZES[op & 0x18]
                a = {0: k, 0x60: memory[k % 16], 0x80: len(packet)}.get(mode, 0)
                a = read(k + (x if mode == 0x40 else 0), size) if mode in (0x20, 0x40) else a
            elif op & 7 == 1:
                x = (read(k, 1) & 15) * 4 if mode == 0xA0 else {0: k, 0x60: memory[k % 16], 0x80: len(packet)}[mode]
            elif op & 7 in (2, 3):
                memory[k] = a if op & 7 == 2 else x
            elif op & 7 == 4:
                a = calculate(op & 0xF0, a, operand) & 0xFFFFFFFF
            elif op & 7 == 5:
                if op & 0xF0 == 0:
                    at += k
                else:
                    holds = {0x10: a == operand, 0x20: a > operand, 0x30: a >= operand, 0x40: bool(a & operand)}
                    at += yes if holds[op & 0xF0] else no
            elif op & 0x80:
                a = x
            else:
                x = a
    except (IndexError, ZeroDivisionError):
        return False


def calculate(op: int, a: int, operand: int) -> int:
    if op in (0x60, 0x70):
        shifted = a << operand if op == 0x60 else a >> operand
        return shifted if operand < 32 else 0
    if op == 0x30:
        return a // operand
    return {0: a + operand, 0x10: a - operand, 0x20: a * operand, 0x40: a | operand, 0x50: a & operand, 0x80: -a}[op]
