"""What waits comes out in time, once."""

from kubectl_gadget.rows.views import PendingItems


def test_what_has_waited_long_enough_comes_out_oldest_first() -> None:
    waiting: PendingItems[str] = PendingItems()
    for time, name in enumerate("abc"):
        waiting.add(name, time)
    assert list(waiting.expired(1)) == ["a", "b"]
    assert list(waiting.expired(1)) == []
    assert list(waiting.rest()) == ["c"]


def test_what_is_done_does_not_come_out() -> None:
    waiting: PendingItems[str] = PendingItems()
    waiting.add("a", 0)
    waiting.done("a")
    waiting.done("b")
    assert list(waiting.expired(9)) == []


def test_only_so_many_wait() -> None:
    waiting: PendingItems[int] = PendingItems(most=3)
    for number in range(5):
        waiting.add(number, 100)
    assert list(waiting.expired(0)) == [0, 1]
