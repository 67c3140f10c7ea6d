"""Warnings of sources: kept until they can be sent, but not without end."""

from kubectl_gadget.agent.sources.source import Warnings


def test_warnings_come_in_their_order_and_once() -> None:
    warnings = Warnings()
    for text in ("one", "two", "three"):
        warnings.add(text)
    assert warnings.take() == "one"
    assert warnings.take_all() == ["two", "three"]
    assert warnings.take() is None


def test_a_warning_is_not_repeated_after_it_was_sent() -> None:
    warnings = Warnings()
    for text in ("one", "two", "one"):
        warnings.add(text)
    assert warnings.take_all() == ["one", "two"]
    warnings.add("one")
    assert warnings.take() is None


def test_a_container_cannot_fill_the_agents_memory_with_warnings() -> None:
    warnings = Warnings()
    for number in range(100_000):
        warnings.add(f"file {number} cannot be followed")
    found = warnings.take_all()
    assert found[0] == "file 0 cannot be followed"
    assert len(found) < 1000
    assert found[-1].startswith(f"{100_001 - len(found)} more warnings were dropped")
    assert warnings.take() is None
