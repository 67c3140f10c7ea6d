"""Circles in orders of locking."""

from itertools import combinations

import pytest

from kubectl_gadget.protocols import deadlock
from kubectl_gadget.protocols.deadlock import LockRequest, _Process


def step(source: int, target: int, thread: int, *others: int) -> LockRequest:
    return LockRequest(source, target, thread, frozenset((source, *others)), b"", {})


def circles(*steps: LockRequest) -> list[list[tuple[int, int]]]:
    process = _Process()
    found = map(process.add, steps)
    return [[(each.source, each.target) for each in circle] for circle in found if circle]


def test_two_threads_that_take_two_mutexes_in_both_orders_make_a_circle() -> None:
    assert circles(step(1, 2, 10), step(2, 1, 11)) == [[(2, 1), (1, 2)]]


def test_one_thread_alone_makes_no_deadlock_until_another_does_the_same() -> None:
    assert circles(step(1, 2, 10), step(2, 1, 10)) == []
    assert circles(step(1, 2, 10), step(2, 1, 10), step(1, 2, 11)) == [[(1, 2), (2, 1)]]


def test_a_mutex_that_always_guards_both_prevents_the_report() -> None:
    assert circles(step(1, 2, 10, 9), step(2, 1, 11, 9)) == []
    assert circles(step(1, 2, 10, 9), step(2, 1, 11, 9), step(2, 1, 11)) == [[(2, 1), (1, 2)]]


def test_a_longer_circle_needs_a_thread_for_each_step() -> None:
    assert circles(step(1, 2, 10), step(2, 3, 11), step(3, 1, 12)) == [[(3, 1), (1, 2), (2, 3)]]
    assert circles(step(1, 2, 10), step(2, 3, 11), step(3, 1, 10)) == []


def test_a_circle_is_reported_once() -> None:
    steps = [step(1, 2, 10), step(2, 1, 11), step(1, 2, 12), step(2, 1, 13)]
    assert len(circles(*steps)) == 1


def test_mutexes_that_all_follow_each_other_do_not_take_for_ever() -> None:
    process = _Process()
    for thread, (source, target) in enumerate(combinations(range(60), 2)):
        assert process.add(step(source, target, thread)) == []
    assert process.add(step(59, 0, 10**6))


def test_what_would_be_too_much_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlock, "MOST_STEPS", 100)
    process = _Process()
    for number in range(110):
        process.add(step(2 * number, 2 * number + 1, 1))
    assert sum(len(steps) for steps in process._steps.values()) == 10
