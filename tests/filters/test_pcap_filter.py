"""tcpdump's expressions become instructions, or an error that says why not."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters.pcap_filter import MOST_INSTRUCTIONS, compile_filter
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
