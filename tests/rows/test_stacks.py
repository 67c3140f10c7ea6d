"""Stacks as agents tell them, and the numbers that stand for them."""

import tracemalloc

import numpy as np
import pytest

from kubectl_gadget.errors import FrameError
from kubectl_gadget.rows.stacks import (
    LOST,
    NONE,
    CallFrame,
    NodeStacks,
    StackTable,
    demangle,
    innermost,
    read_frame,
    stack_of,
)
from kubectl_gadget.wire.agent_messages import StackNames

A, B = "read\t/usr/lib/libc.so.6\t0x1f", "main\t/bin/x\t"


def told(first: int = 0, frames: list[str] | None = None, **stacks: list[int]) -> StackNames:
    places = {int(id.lstrip("_")): tuple(numbers) for id, numbers in stacks.items()}
    return StackNames(gadget=0, first=first, frames=tuple(frames or ()), stacks=places)


def test_the_same_stack_of_two_nodes_has_one_number() -> None:
    one, other = NodeStacks(), NodeStacks()
    one.apply(told(frames=[A, B], _71=[0, 1], _72=[1]))
    other.apply(told(frames=[B, A], _99=[1, 0]))
    assert one.numbers(np.array([71], np.uint64)).tolist() == other.numbers(np.array([99], np.uint64)).tolist()
    (number,) = one.numbers(np.array([72], np.uint64)).tolist()
    assert stack_of(number) == (CallFrame("main", "/bin/x", ""),)


def test_what_was_not_reported_was_lost_and_null_stays_null() -> None:
    stacks = NodeStacks()
    assert stacks.numbers(np.array([5, 0, 1, 5], np.uint64)).tolist() == [LOST, NONE, LOST, LOST]
    assert stacks.numbers(np.array([], np.uint64)).tolist() == []
    assert stack_of(LOST) is None
    assert stack_of(NONE) == ()


def test_a_number_may_be_reported_again_and_frames_begin_again() -> None:
    stacks = NodeStacks()
    stacks.apply(told(frames=[A], _7=[0]))
    before = stacks.numbers(np.array([7], np.uint64)).tolist()
    stacks.apply(told(first=0, frames=[B], _7=[0]))
    after = stacks.numbers(np.array([7], np.uint64)).tolist()
    assert [stack_of(number) for (number,) in (before, after)] == [(read_frame(A),), (read_frame(B),)]


@pytest.mark.parametrize(
    "broken",
    [told(_7=[3]), told(frames=[A], _7=[-1]), told(frames=[A], _7=[0, 1]), told(first=1), told(first=-1, frames=[A])],
)
def test_stacks_of_frames_that_were_not_sent_are_refused(broken: StackNames) -> None:
    with pytest.raises(FrameError):
        NodeStacks().apply(broken)


def test_names_are_those_of_the_source() -> None:
    assert demangle("_ZN3foo3barIiEEvT_") == "void foo::bar<int>(int)"
    assert demangle("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE") == "core::fmt::Formatter::pad"
    assert demangle("_RNvCs1234_7mycrate3foo") == "mycrate::foo"
    assert demangle("_Znonsense") == "_Znonsense"
    assert demangle("main") == "main"


def test_frames_say_where_they_are() -> None:
    assert read_frame(A).text() == "read+0x1f (libc.so.6)"
    assert read_frame("vfs_read\t\t0x3").text() == "vfs_read+0x3"
    assert read_frame("[unknown]\t/usr/lib/libx.so\t0x12").text() == "[unknown] (libx.so+0x12)"
    assert read_frame("[unknown]\t/usr/lib/libx.so\t0x12").title == "[libx.so+0x12]"
    assert read_frame("[unknown]\t[anon]\t").title == "[anon]"
    assert read_frame("[unknown]\t\t").text() == "[unknown]"


def test_the_kernels_part_is_the_innermost() -> None:
    user, kernel = (read_frame(B),), (read_frame("vfs_read\t\t"),)
    assert innermost([kernel, user]) == "vfs_read"
    assert innermost([(), user]) == "main"
    assert innermost([None, user]) == "[lost]"
    assert innermost([(), ()]) == ""


def test_memory_for_stacks_is_limited_however_many_names_containers_choose() -> None:
    table = StackTable(1 << 20)
    tracemalloc.start()
    for number in range(30_000):
        table.number_of((table.read_frame(f"function_{number}_{'x' * 100}\t/bin/x\t"), table.read_frame(A)))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.bytes <= 1 << 20
    assert used < 2 << 20
    # Without a limit, the names alone take 3 MB.


def test_a_stack_that_rows_use_is_kept_and_one_that_none_uses_is_forgotten() -> None:
    table = StackTable(1 << 17)
    used, unused = ((CallFrame(name, "/bin/x", ""),) for name in ("used", "unused"))
    kept, forgotten = table.number_of(used), table.number_of(unused)
    for number in range(2000):
        table.number_of((CallFrame(f"other_{number}", "/bin/x", ""),))
        assert table.keep(kept) == kept
    assert table.stack_of(kept) == used
    assert table.number_of(used) == kept
    assert table.stack_of(forgotten) is None
    assert table.keep(forgotten) == LOST
    assert table.number_of(unused) not in (forgotten, kept, LOST, NONE)
