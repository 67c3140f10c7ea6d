"""Threads that take turns, and wait for each other."""

import threading

import pytest

from kubectl_gadget.agent.bpf.object import Turns


def test_only_one_thread_has_its_turn_but_for_those_aside() -> None:
    turns, inside, most = Turns(), [0], [0]
    together = threading.Barrier(4, timeout=20)

    def work() -> None:
        with turns:
            for _ in range(50):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1
                with turns.aside():
                    together.wait()  # which all four reach only if none keeps its turn

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]
    assert not any(thread.is_alive() for thread in threads)


def test_a_thread_waits_for_what_another_does_in_its_turn() -> None:
    turns, done = Turns(), list[str]()

    def first() -> None:
        with turns:
            turns.wait_while(lambda: "second" not in done)
            done.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    with turns:
        done.append("second")
    thread.join(20)
    assert done == ["second", "first"]


def test_a_turn_ends_with_an_error_and_without_one_nothing_waits() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns, turns.aside():
        raise ZeroDivisionError
    with turns:
        pass
    with turns.aside():
        pass
    turns.wait_while(lambda: True)


def test_who_waits_tells_others_first_what_it_has_done() -> None:
    turns, done = Turns(), list[str]()

    def first() -> None:
        with turns:
            turns.wait_while(lambda: "second" not in done)
            done.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    with turns:
        done.append("second")
        turns.wait_while(lambda: "first" not in done)
        done.append("third")
    thread.join(20)
    assert done == ["second", "first", "third"]
