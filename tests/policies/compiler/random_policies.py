"""Random policies for one hook, and random calls that have a chance to match them."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, get_args

from hypothesis import strategies as st

from kubectl_gadget.policies.model import Action, Hook, HookFilter, Policy, Range, Selector, Subject, Test, Value

TEXTS = st.text(alphabet="abA/é", max_size=5)
PATTERNS = st.text(alphabet="abA/", min_size=1, max_size=3)
GLOBS = st.lists(
    st.sampled_from(["a", "b", "A", "/", "*", "*", "**", "?", "[ab]", "[!a]", "[a-c/]", "é"]), min_size=1, max_size=6
).map("".join)
EDGES = st.sampled_from([-(1 << 63), -(1 << 31), -2, -1, 0, 1, 2, 255, (1 << 31) - 1, (1 << 31), (1 << 63) - 1])
SMALL = st.integers(-4, 4)
V4 = st.builds(IPv4Address, st.sampled_from([0, 1, 0x0A000001, 0x0A000002, 0x0AFF0000, 0x7F000001, 0xFFFFFFFF]))
V6 = st.builds(IPv6Address, st.sampled_from(["::", "::1", "::ffff:10.0.0.1", "fe80::1", "fe80::2", "ffff::"]))
ADDRESSES = st.one_of(st.none(), V4, V6)
PORTS = st.integers(0, 6)
NO_ACTIONS: st.SearchStrategy[tuple[Action, ...]] = st.just(())


def numbers(lowest: int, highest: int) -> st.SearchStrategy[int]:
    """Of a type with these ends, mostly near to each other."""
    return st.one_of(SMALL, EDGES).filter(lambda number: lowest <= number <= highest)


def ranges(values: st.SearchStrategy[int]) -> st.SearchStrategy[Range]:
    return st.tuples(values, values).map(lambda ends: Range(min(ends), max(ends)))


@st.composite
def networks(draw: st.DrawFn) -> IPv4Network | IPv6Network:
    address = draw(st.one_of(V4, V6.filter(lambda address: address.ipv4_mapped is None)))
    if isinstance(address, IPv4Address):
        return IPv4Network((address, draw(st.sampled_from([0, 1, 8, 16, 31, 32]))), strict=False)
    return IPv6Network((address, draw(st.sampled_from([0, 8, 64, 96, 104, 127, 128]))), strict=False)


@st.composite
def number_filters(draw: st.DrawFn, position: int, lowest: int, highest: int) -> HookFilter:
    values = numbers(lowest, highest)
    test: Test = draw(st.sampled_from(["equal", "less", "greater", "range", "mask"]))
    if test == "mask":
        chosen: st.SearchStrategy[Any] = st.integers(1, 7)
    else:
        chosen = ranges(values) if test == "range" else values
    return _filter(draw, Subject("argument", position), test, chosen)


@st.composite
def text_filters(draw: st.DrawFn, position: int) -> HookFilter:
    test: Test = draw(st.sampled_from(["equal", "prefix", "postfix", "substring", "substring_ignore_case"]))
    if draw(st.booleans()):
        return _filter(draw, Subject("argument", position), "glob", GLOBS)
    return _filter(draw, Subject("argument", position), test, PATTERNS)


EXPRESSIONS = (
    *("{a} + {b} == {c}", "{a} - {b} <= {c}", "and({a}, {b}) > xor({c}, {d})", "int32({a}) < uint32({b})"),
    *("not({a}) != or({b}, {c})", "!({a} < {b}) && ({c} >= {d} || {a} != {b})", "uint32(-{a}) == not({b})"),
)


@st.composite
def expression_filters(draw: st.DrawFn, *positions: int) -> HookFilter:
    """Over these arguments."""
    numbers = st.one_of(st.sampled_from([f"arg{position}" for position in positions]), st.integers(0, 3).map(str))
    chosen = [
        draw(st.sampled_from(EXPRESSIONS)).format(**{name: draw(numbers) for name in "abcd"})
        for _ in range(draw(st.integers(1, 3)))
    ]
    return HookFilter(Subject("argument"), "expression", tuple(chosen))


@st.composite
def file_filters(draw: st.DrawFn, position: int, folder: str, names: tuple[str, ...]) -> HookFilter:
    """Over files of these names in a folder, by their paths and by what they are."""
    paths, patterns = st.sampled_from([f"{folder}/{name}" for name in names]), PATTERNS
    values: dict[Test, st.SearchStrategy[str]] = {
        "equal": paths,
        "same_file": paths,
        "prefix": patterns.map(f"{folder}/{{}}".format) | paths,
        "postfix": patterns,
        "substring": patterns,
        "glob": GLOBS.map("**/{}".format),
    }
    test = draw(st.sampled_from(sorted(values)))
    return _filter(draw, Subject("argument", position), test, values[test])


@st.composite
def process_filters(draw: st.DrawFn, pid: int, binary: str) -> HookFilter:
    """Over this process and others."""
    if draw(st.booleans()):
        return _filter(draw, Subject("pid"), "equal", st.sampled_from([pid, 1, 2]))
    return _filter(draw, Subject("binary"), "equal", st.sampled_from([binary, "/bin/true", "/"]))


@st.composite
def socket_filters(draw: st.DrawFn, position: int) -> HookFilter:
    tests = ("source_address", "destination_address", "source_port", "destination_port", "protocol", "family")
    test: Test = draw(st.sampled_from(tests))
    values: dict[str, Any] = {"address": networks(), "port": ranges(PORTS)}
    return _filter(draw, Subject("argument", position), test, values.get(test.rpartition("_")[2], PORTS))


def _filter(draw: st.DrawFn, subject: Subject, test: Test, values: st.SearchStrategy[Any]) -> HookFilter:
    assert test in get_args(Test)
    chosen: list[Value] = draw(st.lists(values, min_size=1, max_size=6))
    return HookFilter(subject, test, tuple(chosen), draw(st.booleans()))


def policies(
    hook: Hook,
    filters: st.SearchStrategy[HookFilter],
    actions: st.SearchStrategy[tuple[Action, ...]] = NO_ACTIONS,
    least: int = 1,
) -> st.SearchStrategy[list[Policy]]:
    """At least so many for the same hook, with up to eight selectors of up to four filters each."""
    selector = st.builds(Selector, filters=st.lists(filters, max_size=4).map(tuple), actions=actions)
    selectors = st.lists(selector, max_size=8)

    def made(all: list[list[Selector]]) -> list[Policy]:
        return [Policy(str(number), hooks=(replace(hook, selectors=tuple(each)),)) for number, each in enumerate(all)]

    return st.lists(selectors, min_size=least, max_size=12).map(made)
