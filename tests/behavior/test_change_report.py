"""Reports of changes: what containers wrote in them is shown, and never obeyed."""

import json
import re
from collections.abc import Callable, Iterator

import pytest

from kubectl_gadget.behavior.comparison import (
    Change,
    compare,
    html_report,
    json_report,
    markdown_report,
    text_report,
    verdict,
)
from tests.behavior.made import behavior, fact

OLD = behavior(fact("program", "/bin/cart", ""), images=("cart:1",))
HOSTILE = (
    "/tmp/<script>alert(1)</script>|`x`\n::error::[a](javascript:x) www.evil.example ##[error]x ##vso[x]y\u202e\x1b[31m"
)
CHANGES = compare(
    OLD,
    behavior(
        fact("program", "/usr/bin/curl", "/bin/cart", images=("cart:2",)),
        fact("open", "/usr/bin/curl", "read /etc/hosts", images=("cart:2",)),
        fact("open", "/usr/bin/curl", "read /etc/nsswitch.conf", images=("cart:2",)),
        fact("open", "/bin/cart", f"write {HOSTILE}", images=("cart:1",)),
        images=("cart:2",),
    ),
)


def test_text_parts_images_and_folds_what_a_new_program_reads() -> None:
    lines = list(text_report(CHANGES, ()))

    assert lines[0] == verdict(CHANGES, ()) == "4 new, 1 gone"
    assert "NEW with another image" in lines
    assert "NEW with the same image" in lines
    assert "             and 2 notes of this program" in lines
    assert not any("nsswitch" in line for line in lines)


def test_json_has_everything() -> None:
    found = json.loads(json_report(CHANGES, ("events were lost",)))

    assert [change["change"] for change in found["changes"]] == ["new"] * 4 + ["gone"]
    assert found["changes"][0]["attack"] == ["T1059"]
    assert found["inconclusive"] == ["events were lost"]


@pytest.mark.parametrize("report", [markdown_report, html_report])
def test_no_line_of_a_report_is_a_containers(report: Callable[..., Iterator[str]]) -> None:
    text = "\n".join(report(CHANGES, (HOSTILE,)))

    assert not re.search("<script", text)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not re.search(r"^::", text, re.MULTILINE)
    assert "/usr/bin/curl" in text


def test_markdown_escapes_what_would_end_a_cell_or_be_a_link() -> None:
    text = "\n".join(markdown_report(CHANGES, ()))

    assert "&#124;&#96;x&#96;" in text
    assert "&#91;a&#93;(javascript&#58;" in text
    assert "www.evil.example" not in text


def test_markdown_shows_twenty_and_folds_the_rest() -> None:
    many = compare(OLD, behavior(*(fact("listen", "/bin/cart", f"{port}/tcp") for port in range(30))))

    text = "\n".join(markdown_report(many, ()))

    assert "<details><summary>11 more</summary>" in text


def test_nothing_seen_is_not_the_same_as_no_changes() -> None:
    assert verdict((), ()) == "no changes"
    assert "inconclusive" in verdict((), ("events were lost",))
    assert "events were lost" in "\n".join(text_report((), ("events were lost",)))


def test_many_notes_are_folded_in_linear_time() -> None:
    compared = 0

    class Counted(Change):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = Change.__hash__

    many = [fact("open", "/usr/bin/curl", f"read /etc/{number}") for number in range(200)]
    found = compare(OLD, behavior(fact("program", "/usr/bin/curl", "/bin/cart"), *many))

    lines = list(text_report([Counted(**vars(change)) for change in found], ()))

    assert "             and 200 notes of this program" in lines
    assert compared == 0
