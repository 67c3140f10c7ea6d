"""The tables of messages in docs/protocol.md are those of the code."""

import pytest

from kubectl_gadget.wire import agent_messages
from kubectl_gadget.wire.message import Message
from tests.wire import protocol_tables


def test_the_tables_of_messages_are_not_stale() -> None:
    assert protocol_tables.main(["--check"]) == 0, "python -m tests.wire.protocol_tables"


def test_a_member_that_is_new_makes_them_stale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Newer(Message):
        """A message that the page does not have."""

        __module__ = agent_messages.__name__

    monkeypatch.setattr(agent_messages, "Newer", Newer, raising=False)
    assert protocol_tables.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().err


def test_a_page_without_a_place_for_the_tables_is_an_error() -> None:
    with pytest.raises(ValueError, match="lost the two comments"):
        protocol_tables.written("# The protocol\n")
