"""The queue of a target: order, limits, what is tried again, and what is counted."""

from collections.abc import Callable, Sequence

import pytest

from kubectl_gadget.export import delivery
from kubectl_gadget.export.delivery import Delivery, Item, NotNow, Refused, TooLarge
from tests.waiting import wait_until


class Scripted:
    """A transport that fails as told."""

    linger = 0.0
    why = ""

    def __init__(self, *answers: Exception | int, most_items: int = 8) -> None:
        self.most_items = most_items
        self.taken = 0
        self.got: list[list[bytes]] = []
        self.took: list[bytes] = []
        self.answers = list(answers)
        self.ended = False

    def send(self, items: Sequence[Item]) -> int:
        self.taken = 0
        self.got.append([one for item in items for one in item.data])
        answer = self.answers.pop(0) if self.answers else 0
        if isinstance(answer, Exception):
            raise answer
        self.took += self.got[-1]
        return answer

    def end(self) -> None:
        self.ended = True


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE", 0.02)


def sent(transport: Scripted, *rows: int, said: Callable[[str], object] = print, seconds: float = 5.0) -> Delivery:
    """Deliver items with these numbers of rows, and wait for the end."""
    made = Delivery("x=y", transport)
    for number, count in enumerate(rows):
        made.offer([b"%d" % number], count)
    made.begin(said)
    wait_until(lambda: not transport.answers)
    made.finish(seconds)
    made.close()
    return made


def test_items_go_in_order_and_each_is_counted() -> None:
    transport = Scripted(most_items=2)
    made = sent(transport, 1, 2, 3, 4, 5)
    assert transport.took == [b"0", b"1", b"2", b"3", b"4"]
    assert max(map(len, transport.got)) == 2
    assert (made.counts().delivered, made.counts().lost) == (15, {})
    assert transport.ended


def test_what_failed_for_now_is_sent_again_before_the_rest() -> None:
    said: list[str] = []
    transport = Scripted(ConnectionRefusedError(111, "Connection refused"), NotNow("HTTP 503"), most_items=1)
    made = sent(transport, 1, 1, said=said.append)
    assert transport.got == [[b"0"], [b"0"], [b"0"], [b"1"]]
    assert made.counts().delivered == 2
    assert said == [
        "export x=y: Connection refused; rows wait, and it is tried again",
        "export x=y: it takes rows again",
    ]


def test_a_target_that_fails_again_and_again_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    reset = ConnectionResetError(104, "Connection reset by peer")
    transport = Scripted(*(reset, 0) * 5, most_items=1)
    sent(transport, *[1] * 6, said=said.append)
    waits = "export x=y: Connection reset by peer; rows wait, and it is tried again"
    again, fails = "export x=y: it takes rows again", "export x=y: it fails again and again: Connection reset by peer"
    assert said == [waits, again, f"{fails}; see what it logs"]
    # One that then takes rows for long enough is steady.
    monkeypatch.setattr(delivery, "STEADY_SECONDS", 0.0)
    said.clear()
    sent(Scripted(reset, 0, reset, 0, most_items=1), 1, 1, 1, said=said.append)
    assert said == [waits, again] * 2


def test_what_is_refused_is_dropped_and_counted_by_its_cause() -> None:
    said: list[str] = []
    transport = Scripted(Refused("HTTP 400"), 3, most_items=1)
    made = sent(transport, 2, 10, 1, said=said.append)
    assert made.counts().lost == {"HTTP 400": 2, "refused by the target": 3}
    assert made.counts().delivered == 8
    assert said[0] == "export x=y: 2 rows refused: HTTP 400"


def test_causes_that_a_target_invents_fill_no_memory() -> None:
    made = sent(Scripted(*(Refused(f"no {number}") for number in range(50)), most_items=1), *[1] * 50)
    lost = made.counts().lost
    assert len(lost) == 11
    assert sum(lost.values()) == 50


def test_what_is_too_large_is_sent_in_halves_and_alone_it_is_dropped() -> None:
    transport = Scripted(TooLarge("HTTP 413"), TooLarge("HTTP 413"), TooLarge("HTTP 413"), most_items=4)
    made = sent(transport, 1, 1, 1, 1)
    assert [len(got) for got in transport.got] == [4, 2, 1, 1, 1, 1]
    assert made.counts().lost == {"HTTP 413": 1}
    assert made.counts().delivered == 3


def test_a_long_retry_after_does_not_hold_up_the_end() -> None:
    transport = Scripted(NotNow("HTTP 429", after=1e9), NotNow("HTTP 429", after=1e9))
    made = Delivery("x=y", transport)
    made.offer([b"0"], 7)
    made.begin(print)
    wait_until(lambda: made.counts().problem)
    made.finish(5)
    made.close()
    assert len(transport.got) == 2, "it is asked once more at the end"
    assert made.counts().lost == {"the run had ended; HTTP 429": 7}


def test_the_queue_is_bounded_and_what_does_not_fit_is_counted() -> None:
    transport = Scripted()
    made = Delivery("x=y", transport, most_bytes=10)
    for _ in range(4):
        made.offer([b"1234"], 2)
    assert made.is_full, "the last ones did not fit"
    made.begin(print)
    wait_until(lambda: not made.is_full)
    made.offer([b"12345678901"], 1)
    assert not made.is_full, "what is too large for an empty queue does not fill it"
    made.finish()
    made.close()
    assert made.counts().lost == {"the queue was full": 5}
    made.offer([b"5"], 1)
    assert made.counts().lost["the run had ended"] == 1


def test_losses_are_said_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "REPORT_SECONDS", 0.05)
    said: list[str] = []
    made = Delivery("x=y", Scripted(Refused("HTTP 400")))
    made.begin(said.append)
    made.offer([b"0"], 1)
    wait_until(lambda: len(said) == 2)
    made.drop(5)
    wait_until(lambda: len(said) == 3)
    made.finish()
    made.close()
    assert said[1] == "export x=y: 1 row not delivered (1: HTTP 400)"
    assert said[2] == "export x=y: 6 rows not delivered (5: the queue was full, 1: HTTP 400)"
