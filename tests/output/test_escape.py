"""Text that is safe to print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.output.escape import escape, escape_all, for_html, for_log, for_markdown, markdown_code


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


@pytest.mark.parametrize("marks", ["##", "###", "####", "#####"])
@pytest.mark.parametrize("command", ["[error]x", "vso[task.setvariable variable=a]x"])
def test_no_number_of_marks_makes_a_command(marks: str, command: str) -> None:
    for safe in (for_log, for_html, for_markdown, markdown_code):
        assert "##" not in safe(f"a {marks}{command}")


@pytest.mark.parametrize("text", ["::error::x", "  ::error::x", ":::error::x", "\t::error::x"])
def test_no_line_begins_as_a_command(text: str) -> None:
    for safe in (for_log, for_html, for_markdown):
        assert not safe(text).lstrip().startswith("::")


def test_other_text_stays_as_it_is() -> None:
    assert for_log("a # b std::move #1") == "a # b std::move #1"
    assert for_log("##[x") == "#\\#[x"
