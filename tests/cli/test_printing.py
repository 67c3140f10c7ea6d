"""Tables that are printed once."""

import pytest

from kubectl_gadget.cli.printing import print_table
from kubectl_gadget.output import terminal

ROWS = [("first", "a text of several words"), ("second", "short")]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (80, "NAME    SHOWS\nfirst   a text of several words\nsecond  short\n"),
        (22, "NAME    SHOWS\nfirst   a text of\n        several words\nsecond  short\n"),
        (10, "NAME    SHOWS\nfirst   a text of several words\nsecond  short\n"),
    ],
)
def test_on_a_narrow_terminal_cells_are_wrapped_between_words(
    width: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "find_terminal", lambda *_: terminal.Terminal(lambda: width))
    print_table(("NAME", "SHOWS"), ROWS)
    assert capsys.readouterr().out == shown
