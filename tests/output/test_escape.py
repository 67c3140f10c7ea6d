"""Text that is safe to print."""

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.output.escape import escape, escape_all


def test_what_is_not_printable_is_escaped() -> None:
    assert escape("a\x1b[31m\n\t\r\x00\x7f\x9b\u202eb") == r"a\x1b[31m\n\t\r\x00\x7f\u009b\u202eb"


def test_a_byte_that_is_not_utf8_is_shown_as_a_byte() -> None:
    assert escape(b"/x\xff\xc3\xa4".decode("utf-8", "surrogateescape")) == "/x\\xffä"


def test_printable_text_stays_as_it_is() -> None:
    assert escape("/päth/日本 \\x2d [red]") == "/päth/日本 \\x2d [red]"


@given(st.lists(st.binary(max_size=30)))
def test_nothing_can_leave_its_line_or_move_the_cursor(data: list[bytes]) -> None:
    texts = [item.decode("utf-8", "surrogateescape") for item in data]
    escaped = escape_all(texts)
    assert list(escaped) == [escape(text) for text in texts]
    assert all(text.isprintable() for text in escaped)
    "".join(escaped).encode("utf-8")
