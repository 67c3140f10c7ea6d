"""DNS numbers by their names."""

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.rows.gadget_kinds import dns_flag_names, dns_rcode_name, dns_type_name


def test_types_have_their_names() -> None:
    assert [dns_type_name(number) for number in (0, 1, 28, 65, 65534)] == ["", "A", "AAAA", "HTTPS", "TYPE65534"]


def test_codes_have_their_names_and_two_are_our_own() -> None:
    numbers = (0, 2, 3, 16, -1, -2)
    names = ["NOERROR", "SERVFAIL", "NXDOMAIN", "BADVERS", "NOANSWER", "MALFORMED"]
    assert [dns_rcode_name(number) for number in numbers] == names


def test_flags_are_written_as_dig_does() -> None:
    assert dns_flag_names(0x8580) == "qr aa rd ra"
    assert dns_flag_names(0x2800) == "update"


@given(st.integers(-(2**31), 2**31 - 1))
def test_every_number_has_some_name(number: int) -> None:
    assert dns_rcode_name(number)
    dns_type_name(number & 0xFFFF)
    dns_flag_names(number & 0xFFFF)
