"""Converts the values of filters from text into what is compared: numbers, ranges, names, addresses, ports, texts.

The trap: numbers are parsed as the API's own tools do (0x…, 0b…, 0o… and a leading 0 for octal), from the text and not
from YAML's interpretation of it.
"""

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from kubectl_gadget.policies.language.argument_types import BUFFERS, ArgumentType, range_of
from kubectl_gadget.policies.language.linux_names import (
    BPF_COMMANDS,
    CAPABILITIES,
    ERRORS,
    FAMILIES,
    FILE_TYPES,
    PROTOCOLS,
    STATES,
    is_known,
    system_call,
    system_calls,
)
from kubectl_gadget.policies.language.path_patterns import check_glob
from kubectl_gadget.policies.model import Range, SystemCall, Test, Value
from kubectl_gadget.similar_names import did_you_mean
from kubectl_gadget.yaml_reader import Scalar, WrongYaml

_GREATEST_PORT = 65535
_PRIVILEGED = Range(0, 1023)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAMES: Mapping[str, Mapping[str, int]] = {"capability": CAPABILITIES, "bpf_cmd": BPF_COMMANDS}
_NETWORK_NAMES: Mapping[Test, tuple[Mapping[str, int], int]] = {
    "protocol": (PROTOCOLS, 0xFFFF),
    "family": (FAMILIES, 0xFFFF),
    "state": (STATES, 0xFF),
}


def number(text: str) -> int | None:
    """A whole number as Go's ParseInt(…, 0, …) parses it; None when it is not a number."""
    sign, digits = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    if len(digits) > 1 and digits[0] == "0" and digits[1:].replace("_", "").isdigit():
        digits = f"0o{digits[1:]}"
    try:
        value = int(digits, 0)
    except ValueError:
        return None
    return None if digits[:1] in ("-", "+") or not digits.isascii() else -value if sign == "-" else value


def need_number(scalar: Scalar, least: int, greatest: int, names: Mapping[str, int] | None = None) -> int:
    """A number, or one of the names, between two bounds, both included. Raises WrongYaml."""
    value = number(scalar.text)
    if value is None and names:
        value = names.get(scalar.text)
    if value is None:
        hint = did_you_mean(scalar.text, names) if names else ""
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not a number{' or the name of one' if names else ''}{hint}")
    if not least <= value <= greatest:
        raise WrongYaml(scalar.place, f"{scalar.text} is out of range: {least} to {greatest}")
    return value


def error_number(scalar: Scalar) -> int:
    """The return value of a call: a number, -EPERM, or EPERM, which means -EPERM."""
    name = scalar.text.removeprefix("-")
    return -ERRORS[name] if name in ERRORS else need_number(scalar, -(1 << 31), (1 << 31) - 1, ERRORS)


def capability_bits(scalars: Sequence[Scalar]) -> int:
    """The named capabilities as a set of bits."""
    bits = 0
    for scalar in scalars:
        if scalar.text not in CAPABILITIES:
            raise WrongYaml(
                scalar.place, f"{scalar.text!r} is not a capability{did_you_mean(scalar.text, CAPABILITIES)}"
            )
        bits |= 1 << CAPABILITIES[scalar.text]
    return bits


def argument_values(test: Test, operator: str, type_name: str, type: ArgumentType, given: list[Scalar]) -> list[Value]:
    """The values of a filter on an argument, for a test that fits the type."""
    if operator.endswith("Priv"):
        return [_PRIVILEGED]
    if test in _NETWORK_NAMES:
        names, greatest = _NETWORK_NAMES[test]
        return [need_number(scalar, 0, greatest, names) for scalar in given]
    reader = _READERS.get(test)
    if reader is not None:
        return [reader(scalar) for scalar in given]
    if type.group == "capabilities":
        return [_capability_set(scalar) for scalar in given]
    if type.group == "number" and (test == "range" or any(":" in scalar.text for scalar in given)):
        return [one for scalar in given for one in _number_ranges(scalar, type_name, type)]
    if type.group == "number":
        return [_number(scalar, test, type_name, type) for scalar in given]
    if type.group == "auto":
        return [_number_or_text(scalar, test) for scalar in given]
    return [_text(scalar, test, type_name in BUFFERS) for scalar in given]


def _text(scalar: Scalar, test: Test, buffer: bool = False) -> str:
    # Some policies include the NUL at the end of a text; in a buffer it is a byte like any other.
    text = scalar.text if buffer else scalar.text.rstrip("\0")
    if not text:
        raise WrongYaml(scalar.place, "is empty")
    if "\0" in text and not buffer:
        raise WrongYaml(scalar.place, "contains a NUL, which no text of the kernel does")
    if test == "glob":
        check_glob(scalar)
    if test == "same_file" and not text.startswith("/"):
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not an absolute path")
    return text


def _number(scalar: Scalar, test: Test, type_name: str, type: ArgumentType) -> int | SystemCall:
    if type.bits == 64 and not type.signed and (call := system_call(scalar.text)):
        if not is_known(call):
            close = did_you_mean(call.name, system_calls(call.abi))
            raise WrongYaml(scalar.place, f"{scalar.text!r} is not a system call{close}")
        if call.abi and type_name != "syscall64":
            raise WrongYaml(scalar.place, f"{scalar.text!r} needs the type syscall64, which has the call's ABI")
        if test != "equal":
            raise WrongYaml(scalar.place, f"{scalar.text!r} is a name, which only Equal and InMap can compare")
        return call
    least, greatest = range_of(type)
    if type.signed and scalar.text.startswith("-") and scalar.text[1:] in ERRORS:
        return -ERRORS[scalar.text[1:]]
    # As an int, 0xffffffff and -1 are equal.
    wraps = test in ("equal", "mask") and type.signed
    value = need_number(scalar, least, (1 << type.bits) - 1 if wraps else greatest, _NAMES.get(type_name))
    return value - (1 << type.bits) if value > greatest else value


def _number_ranges(scalar: Scalar, type_name: str, type: ArgumentType) -> list[Range]:
    """One range, or two where a range of a signed type extends beyond its greatest number: 5:4294967295 of an int is 5
    to 2147483647, and all negative numbers."""
    whole = _range(scalar, lambda bound: _bound(bound, type_name, type))
    greatest, wrap = range_of(type)[1], 1 << type.bits
    if whole.last <= greatest:
        return [whole]
    if whole.first > greatest:
        return [Range(whole.first - wrap, whole.last - wrap)]
    if whole.first < 0:
        raise WrongYaml(scalar.place, f"{scalar.text!r} has both -1 and {whole.last}, which are the same {type_name}")
    return [Range(whole.first, greatest), Range(greatest + 1 - wrap, whole.last - wrap)]


def _bound(scalar: Scalar, type_name: str, type: ArgumentType) -> int:
    """One bound of a range; values of the unsigned type of the same width are allowed too."""
    if type.signed and scalar.text.startswith("-") and scalar.text[1:] in ERRORS:
        return -ERRORS[scalar.text[1:]]
    if type.bits == 64 and not type.signed and system_call(scalar.text):
        raise WrongYaml(scalar.place, f"{scalar.text!r} is a name, which only Equal and InMap can compare")
    return need_number(scalar, range_of(type)[0], (1 << type.bits) - 1, _NAMES.get(type_name))


def _number_or_text(scalar: Scalar, test: Test) -> Value:
    if test in ("less", "greater", "mask"):
        return need_number(scalar, -(1 << 63), (1 << 64) - 1)
    if test == "range":
        return _range(scalar, lambda bound: need_number(bound, -(1 << 63), (1 << 64) - 1))
    value = number(scalar.text) if test == "equal" else None
    return _text(scalar, test) if value is None else value


def _range(scalar: Scalar, read: Callable[[Scalar], int]) -> Range:
    """FIRST:LAST, or one number, which is both."""
    first, colon, last = scalar.text.partition(":")
    start = read(Scalar(first, scalar.place))
    end = read(Scalar(last, scalar.place)) if colon else start
    if start > end:
        raise WrongYaml(scalar.place, f"{scalar.text!r} begins after its end")
    return Range(start, end)


def _capability_set(scalar: Scalar) -> int:
    value = number(scalar.text)
    if value is not None:
        return need_number(scalar, 0, (1 << 64) - 1)
    return capability_bits([Scalar(name.strip(), scalar.place) for name in scalar.text.split(",")])


def _network(scalar: Scalar) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(scalar.text, strict=False)
    except ValueError:
        hint = ": it must be filled in" if "$" in scalar.text else " such as 10.0.0.0/8, 10.1.2.3, 2001:db8::/32"
        raise WrongYaml(scalar.place, f"{scalar.text!r} is neither an address nor a network{hint}") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        address = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((address, network.prefixlen - 96))
    return network


def _ports(scalar: Scalar) -> Range:
    return _range(scalar, lambda bound: need_number(bound, 0, _GREATEST_PORT))


def _file_type(scalar: Scalar) -> int:
    found = FILE_TYPES.get(scalar.text)
    if found is None:
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not a type of files{did_you_mean(scalar.text, FILE_TYPES)}")
    return found


_READERS: Mapping[Test, Callable[[Scalar], Value]] = {
    "source_address": _network,
    "destination_address": _network,
    "source_port": _ports,
    "destination_port": _ports,
    "file_type": _file_type,
}
