import asyncio
import itertools

import pytest

from tests.waiting import read_until, until, wait_until


def never() -> bool:
    return False


def test_it_returns_when_the_condition_holds() -> None:
    numbers = itertools.count()
    wait_until(lambda: next(numbers) == 2)
    assert next(numbers) == 3


def test_the_error_has_the_source_text_of_the_condition() -> None:
    with pytest.raises(AssertionError, match=r'in vain for: wait_until\(lambda: not "a row", seconds=0\)$'):
        wait_until(lambda: not "a row", seconds=0)


def test_the_error_has_what_is_passed_and_the_state() -> None:
    with pytest.raises(AssertionError, match=r"in vain for: the row\nhalf of it$"):
        wait_until(never, "the row", state=lambda: "half of it", seconds=0)


def test_a_condition_without_source_text_is_named() -> None:
    with pytest.raises(AssertionError, match="built-in method"):
        wait_until(b"".decode, seconds=0)


def test_it_gives_up_when_it_is_over_and_looks_a_last_time() -> None:
    ended = list[bool]()

    def ends() -> bool:
        ended.append(True)
        return True

    wait_until(lambda: ended, over=ends)
    with pytest.raises(AssertionError, match="def never"):
        wait_until(never, over=lambda: True)


async def test_in_an_event_loop_the_condition_may_be_a_coroutine_function() -> None:
    numbers = itertools.count()

    async def is_two() -> bool:
        return next(numbers) == 2

    await until(is_two)
    await until(lambda: next(numbers) == 5)
    with pytest.raises(AssertionError, match="async def is_two"):
        await until(is_two, seconds=0)


async def test_a_stream_is_read_until_all_texts_came_and_its_end_is_an_error() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"one two")
    assert await read_until(stream, "two", "one") == b"one two"
    stream.feed_eof()
    with pytest.raises(AssertionError, match=r"ended before it said \['three'\], and said: one two$"):
        await read_until(stream, "two", "three", said=b"one two")
