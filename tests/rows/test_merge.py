"""Rows of many nodes in one order."""

import weakref

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.members import owner_texts
from kubectl_gadget.rows.merge import TimeMerge
from kubectl_gadget.rows.rows import Rows
from tests.messages import changes
from tests.rows.records import OPEN, record, ring

WAIT = 200


def batch(*times: int, node: str = "a", offset: int = 0) -> Batch:
    """A batch with rows of these boot times."""
    made = decode(OPEN, node, ring(*(record(timestamp=time) for time in times)))
    made.clock_offset_ns = offset
    return made


def times(rows: Rows) -> list[int]:
    """The wall times of the rows, in their order."""
    return rows.collect(lambda part: part.wall_ns().tolist())


def two_nodes(sort: bool = True) -> TimeMerge:
    """A merge that waits for the nodes a and b."""
    merge = TimeMerge(WAIT, sort)
    merge.join("a")
    merge.join("b")
    return merge


def test_rows_of_one_node_leave_when_it_is_complete_past_them() -> None:
    merge = TimeMerge(WAIT)
    merge.join("a")
    merge.add(batch(3, 1, 2), 0)
    merge.complete("a", 3)
    assert times(merge.release(0)) == [1, 2]
    merge.add(batch(4, 3), 1)
    merge.complete("a", 5)
    assert times(merge.release(1)) == [3, 3, 4]
    assert merge.late == 0


def late(rows: Rows) -> list[bool]:
    """Which rows are marked as late, in their order."""
    return rows.collect(lambda part: [False] * len(part) if part.late is None else part.late.tolist())


def test_a_source_that_is_joined_before_it_is_asked_for_anything_keeps_the_order() -> None:
    merge = TimeMerge(WAIT)
    merge.join("a")
    merge.add(batch(10), 0)
    merge.complete("a", 11)
    assert times(merge.release(0)) == [10]
    merge.expect("b", 11)
    merge.add(batch(12, 15), 1)
    merge.complete("a", 20)
    assert times(merge.release(1)) == []
    merge.add(batch(13, node="b"), 2)
    merge.complete("b", 14)
    assert times(merge.release(2)) == [12, 13]
    assert merge.late == 0


def test_at_the_end_rows_wait_for_nodes_that_have_not_ended_yet() -> None:
    merge = two_nodes()
    merge.add(batch(20), 0)
    merge.leave("a")
    assert times(merge.release(0)) == []
    merge.add(batch(15, node="b"), 1)
    merge.leave("b")
    assert times(merge.release(1)) == [15, 20]


def test_rows_that_come_after_a_younger_one_has_left_are_marked_and_counted() -> None:
    merge = two_nodes()
    merge.add(batch(20), 0)
    assert times(merge.release(WAIT)) == [20]
    merge.add(batch(30, 15, 20, 10, node="b"), WAIT)
    found = merge.flush()
    assert (times(found), late(found)) == ([10, 15, 20, 30], [True, True, False, False])
    assert merge.late == 2


def test_rows_wait_until_every_node_is_complete_past_them() -> None:
    merge = two_nodes()
    merge.add(batch(10, 30), 0)
    merge.complete("a", 40)
    assert times(merge.release(0)) == []
    merge.add(batch(20, node="b"), 1)
    merge.complete("b", 25)
    assert times(merge.release(1)) == [10, 20]
    merge.complete("b", 31)
    assert times(merge.release(2)) == [30]


def test_a_row_at_the_limit_itself_still_waits() -> None:
    merge = two_nodes()
    merge.add(batch(10), 0)
    merge.complete("a", 10)
    merge.complete("b", 10)
    assert times(merge.release(0)) == []


def test_a_silent_node_delays_rows_for_the_wait_only() -> None:
    merge = two_nodes()
    merge.add(batch(10), 1000)
    assert merge.next_release_ns() == 1000 + WAIT
    assert times(merge.release(1000 + WAIT - 1)) == []
    assert times(merge.release(1000 + WAIT)) == [10]
    assert merge.next_release_ns() is None


def test_a_clock_that_is_ahead_delays_nothing() -> None:
    merge = two_nodes()
    merge.add(batch(10**15), 0)
    assert times(merge.release(WAIT)) == [10**15]


def test_a_node_that_left_is_not_waited_for() -> None:
    merge = two_nodes()
    merge.add(batch(10), 0)
    merge.complete("a", 11)
    merge.leave("b")
    assert times(merge.release(0)) == [10]


def test_the_nodes_clocks_are_applied() -> None:
    merge = two_nodes()
    merge.add(batch(10, node="a", offset=100), 0)
    merge.add(batch(50, node="b", offset=0), 0)
    assert times(merge.flush()) == [50, 110]


def test_rows_that_come_too_late_are_counted_and_shown() -> None:
    merge = two_nodes()
    merge.add(batch(10), 0)
    merge.release(WAIT)
    merge.add(batch(5, node="b"), WAIT)
    assert merge.late == 1
    assert times(merge.release(WAIT)) == [5] or times(merge.flush()) == [5]


def test_without_sorting_rows_come_as_they_came() -> None:
    merge = two_nodes(sort=False)
    merge.add(batch(30, 10), 0)
    merge.add(batch(20, node="b"), 0)
    assert times(merge.release(0)) == [30, 10, 20]


def test_rows_of_many_nodes_interleave() -> None:
    merge = TimeMerge(WAIT)
    for number in range(50):
        merge.join(str(number))
        merge.add(batch(*range(number, 1000, 50), node=str(number)), 0)
        merge.complete(str(number), 500)
    assert times(merge.release(0)) == list(range(500))
    assert len(merge) == 500
    assert times(merge.flush()) == list(range(500, 1000))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 100), max_size=8), st.integers(0, 50))),
    st.integers(0, 20),
)
def test_nothing_is_lost_and_each_release_is_in_order(steps: list[tuple[str, list[int], int]], wait: int) -> None:
    merge = TimeMerge(wait)
    for node in "abc":
        merge.join(node)
    now, given_times, seen = 0, list[int](), list[int]()
    for node, stamps, pause in steps:
        now += pause
        merge.add(batch(*stamps, node=node), now)
        given_times += stamps
        released = times(merge.release(now))
        assert released == sorted(released)
        seen += released
    rest = times(merge.flush())
    assert rest == sorted(rest)
    assert sorted(seen + rest) == sorted(given_times)
    if merge.late == 0:
        assert seen + rest == sorted(given_times)


def test_the_head_and_a_choice_of_merged_rows_keep_their_order() -> None:
    merge = two_nodes()
    merge.add(batch(1, 4, 5), 0)
    merge.add(batch(2, 3, 6, node="b"), 0)
    rows = merge.flush()
    assert times(rows.head(4)) == [1, 2, 3, 4]
    assert len(rows.head(4)) == 4
    assert times(rows.head(100)) == [1, 2, 3, 4, 5, 6]
    assert rows.mask(lambda part: part.wall_ns() > 3).tolist() == [False, False, False, True, True, True]
    assert times(rows.head(5).head(3)) == [1, 2, 3]


def test_matching_rows_of_several_batches_keep_their_order() -> None:
    merge = two_nodes()
    merge.add(batch(10, 30, 50), 0)
    merge.add(batch(20, 40, 60, node="b"), 0)
    rows = merge.flush()
    assert times(rows.matching(lambda part: part.wall_ns() != 30)) == [10, 20, 40, 50, 60]
    assert not len(rows.matching(lambda part: part.wall_ns() > 60))


def test_a_row_that_waits_does_not_hold_its_whole_buffer() -> None:
    merge = two_nodes()
    whole = batch(*range(10_000))
    merge.add(whole.select(whole.raw("timestamp") == 77), 0)
    assert merge._waiting[0].batch.nbytes < 1000
    assert times(merge.flush()) == [77]


def test_rows_that_wait_do_not_hold_the_bytes_of_rows_of_their_batch_that_were_released() -> None:
    merge = TimeMerge(WAIT)
    merge.join("a")
    merge.add(batch(*reversed(range(10_000))), 0)
    merge.complete("a", 9_990)
    assert times(merge.release(1)) == [*range(9_990)]
    assert len(merge) == 10
    assert merge._waiting[0].batch.nbytes < 5000
    merge.complete("a", 9_995)
    assert times(merge.release(2)) == [*range(9_990, 9_995)]
    assert times(merge.flush()) == [*range(9_995, 10_000)]
    assert len(merge) == 0


def test_rows_of_several_nodes_are_read_as_one_batch_and_keep_their_node_and_clock() -> None:
    merge = two_nodes()
    merge.add(batch(1, 4, node="a", offset=10), 0)
    merge.add(batch(2, 3, node="b", offset=10), 0)
    rows = merge.flush()
    read = []
    nodes = rows.collect(lambda part: read.append(len(part)) or owner_texts(part, "node").values())
    assert nodes == ["a", "b", "b", "a"]
    assert read == [4]
    assert times(rows) == [11, 12, 13, 14]
    assert [part.node for part in rows.parts] == ["a", "b"]


def test_containers_of_several_nodes_stay_apart_when_their_batches_are_joined() -> None:
    merge = two_nodes()
    for node in "ab":
        made = decode(OPEN, node, ring(record(cgroup=7, timestamp=1), record(cgroup=9, timestamp=2)))
        identity = Identity(node)
        pod = {"id": "c", "namespace": "default", "pod": f"pod-{node}", "container": "main"}
        identity.apply(changes({"containers": [pod], "cgroups": {"7": "c"}}), 0.0)
        made.owners = identity.lookup(made.cgroups())
        merge.add(made, 0)
    assert merge.flush().collect(lambda part: owner_texts(part, "pod").values()) == ["pod-a", "pod-b", "", ""]


def test_chunks_are_the_same_rows_in_the_same_order() -> None:
    merge = two_nodes()
    merge.add(batch(1, 4, 5), 0)
    merge.add(batch(2, 3, 6, node="b"), 0)
    rows = merge.flush()
    assert [times(chunk) for chunk in rows.chunks(4)] == [[1, 2, 3, 4], [5, 6]]
    assert [times(chunk) for chunk in rows.chunks(6)] == [[1, 2, 3, 4, 5, 6]]


def test_chunks_do_not_hold_the_bytes_of_all_rows() -> None:
    merge = two_nodes()
    first = batch(*range(0, 1000, 2))
    merge.add(first, 0)
    merge.add(batch(*range(1, 1000, 2), node="b"), 0)
    rows, bytes_of_first = merge.flush(), weakref.ref(first.buffer)
    size = 2 * first.nbytes
    del first
    chunks = rows.chunks(100)
    assert sum(part.nbytes for part in next(chunks).parts) < size / 5
    assert bytes_of_first() is None
    assert [times(chunk) for chunk in chunks] == [[*range(start, start + 100)] for start in range(100, 1000, 100)]
