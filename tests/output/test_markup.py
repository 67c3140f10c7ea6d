"""No text from a container becomes a command to the runner that shows a log."""

import pytest

from kubectl_gadget.output.markup import for_html, for_log, for_markdown, markdown_code


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
