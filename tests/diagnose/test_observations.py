"""Rows become observations: counted on whole columns, bounded, and of a snapshot only the latest turn."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kubectl_gadget.diagnose import observations
from kubectl_gadget.diagnose.observations import MOST_KEYS, Observations, Owner, Watch
from kubectl_gadget.diagnose.rules import Rule, Scope, SeenSet, load, own_files
from kubectl_gadget.diagnose.search import trusted
from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import TURN, Batch, decode
from kubectl_gadget.rows.rows import Rows
from tests.rows.records import OPEN, record, ring

SECOND = 1_000_000_000
WALK = replace(OPEN, kind="snapshot")


def a_set(gadget: Gadget = OPEN, where: str = "errno == 2", by: tuple[str, ...] = ("path",)) -> SeenSet:
    return SeenSet(
        "seen", gadget, "", compile_filter(where, [gadget], "where"), {}, by, ("fd",), Scope.CONTAINER, {}, where
    )


def rule_of(seen: SeenSet) -> Rule:
    return replace(load(own_files())[0], seen=(seen,))


def opens(*records: bytes, gadget: Gadget = OPEN, turn: int = 0) -> Batch:
    found = decode(gadget, "node-1", ring(*records))
    if gadget.kind == "snapshot":
        found.give(TURN, np.full(len(found), turn))
    return found


def watched(seen: SeenSet, *batches: Batch) -> Watch:
    found = Observations([rule_of(seen)])
    for batch in batches:
        found.take(Rows([batch]))
    return found.of(seen)


def test_rows_that_match_are_counted_by_the_sets_columns() -> None:
    batch = opens(
        record(timestamp=5, errno=2, path=b"/a", fd=7),
        record(timestamp=7, errno=2, path=b"/a", fd=9),
        record(timestamp=8, errno=2, path=b"/b"),
        record(timestamp=9, errno=0, path=b"/a"),
    )
    found = {each.key: each for each in watched(a_set(), batch)}
    assert {key: each.count for key, each in found.items()} == {("/a",): 2, ("/b",): 1}
    assert (found["/a",].sums, found["/a",].most) == ({"fd": 16}, {"fd": 9})
    assert (found["/a",].first_ns, found["/a",].last_ns) == (5, 7)


def test_evidence_is_the_first_rows_without_what_they_lack() -> None:
    batch = opens(*(record(errno=2, path=b"/a", pid=pid) for pid in range(1, 10)))
    (found,) = watched(a_set(), batch)
    assert [each.record["pid"] for each in found.rows] == [1, 2, 3]
    assert all(value not in (None, "") for each in found.rows for value in each.record.values())
    assert found.count == 9


def test_a_scan_takes_bounded_memory_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "MOST_KEYS", 5)
    seen = a_set()
    all_seen = Observations([rule_of(seen)])
    all_seen.take(Rows([opens(*(record(errno=2, path=b"/%d" % number) for number in range(9)))]))
    assert len(list(all_seen.of(seen))) == 5
    assert all_seen.of(seen).dropped == 4
    assert not all_seen.is_whole


def failed(*of: tuple[float, str, int]) -> Batch:
    """Return failures to open a path, by process, at these seconds."""
    return opens(*(record(timestamp=round(at * SECOND), errno=2, path=p.encode(), pid=pid) for at, p, pid in of))


def of_processes(look: Callable[[Observations], object] = bool) -> tuple[Observations, Watch]:
    seen = replace(a_set(), by=("path", "pid"))
    found = Observations([rule_of(seen)], lambda _: look(found))
    return found, found.of(seen)


def test_a_flood_of_one_kind_leaves_its_first_and_newest_and_all_others() -> None:
    found, watch = of_processes()
    found.take(Rows([failed((1, "/decisive", 7))]))
    found.take(Rows([failed(*((2 + number / 1000, "/a", 100 + number) for number in range(5000)))]))
    found.take(Rows([failed(*((8 + number / 1000, f"/b{number}", 9) for number in range(5000)))]))
    keys = [each.key for each in watch]
    assert len(keys) <= MOST_KEYS
    assert ("/decisive", 7) in keys
    assert {("/a", 100), ("/a", 103), ("/a", 5099), ("/b0", 9), ("/b4999", 9)} <= set(keys)
    assert found.is_whole


def test_what_a_finding_needs_stays_and_old_ones_make_room() -> None:
    def look(found: Observations) -> None:
        for each in watch:
            each.is_needed |= each.key[0] == "/decisive"

    found, watch = of_processes(look)
    found.take(Rows([failed((1, "/first", 1))]))
    found.take(Rows([failed(*((2.0, f"/a{number}", 1000 + number) for number in range(150)))]))
    found.take(Rows([failed((3, "/decisive", 7))]))
    for turn in range(1, 20):  # each by another process, each for another file
        rows = ((20.0 * turn, f"/{turn}-{number}", turn * 1000 + number) for number in range(200))
        found.take(Rows([failed(*rows)]))
    keys = [each.key for each in watch]
    assert {("/first", 1), ("/decisive", 7), ("/19-150", 19150)} <= set(keys)
    assert ("/9-0", 9000) not in keys
    assert len(keys) <= MOST_KEYS


def test_what_finds_no_room_among_young_ones_is_counted() -> None:
    found, watch = of_processes()
    found.take(Rows([failed(*((1.0, f"/{number}", number) for number in range(MOST_KEYS + 5)))]))
    assert (len(list(watch)), watch.dropped, found.is_whole) == (MOST_KEYS, 5, False)


def test_long_texts_are_cut() -> None:
    (found,) = watched(a_set(), opens(record(errno=2, path=b"/" + b"x" * 3000)))
    assert len(found.key[0]) < 500
    assert len(str(found.rows[0].record["path"])) < 500


def test_of_a_snapshot_the_latest_turn_counts_and_the_first_is_before() -> None:
    seen = a_set(WALK)
    turns = [
        opens(*[record(timestamp=at * SECOND, errno=2)] * number, gadget=WALK, turn=turn)
        for turn, (at, number) in enumerate(((1, 2), (9, 3), (20, 5)))
    ]
    watch = watched(seen, *turns)
    (found,) = watch
    assert (found.before, found.count) == (2, 5)
    assert found.turn == watch.latest("node-1") == 2


def test_turns_are_told_apart_by_their_numbers_and_not_by_their_times() -> None:
    """The last one may follow the one before at once, and a busy node takes seconds for one."""
    seen = a_set(WALK)
    slow = [record(timestamp=at * SECOND, errno=2) for at in (1, 4, 7)]
    quick = [record(timestamp=at * SECOND + 30, errno=2) for at in (7, 7)]
    watch = watched(seen, opens(*slow, gadget=WALK), opens(*quick, gadget=WALK, turn=1))
    (found,) = watch
    assert (found.before, found.count) == (3, 2)
    assert found.turn == watch.latest("node-1") == 1


def test_a_node_that_reconnects_counts_its_turns_anew() -> None:
    seen = a_set(WALK)
    first, again = (opens(record(timestamp=at * SECOND, errno=2), gadget=WALK) for at in (1, 40))
    (found,) = watched(seen, first, again)
    assert (found.before, found.count, found.turn) == (1, 1, 1)


def test_what_a_later_snapshot_lacks_is_gone() -> None:
    seen = a_set(WALK)
    gone = opens(record(timestamp=9 * SECOND, errno=0), gadget=WALK, turn=1)
    watch = watched(seen, opens(record(timestamp=SECOND, errno=2), gadget=WALK), gone)
    (found,) = watch
    assert found.turn != watch.latest("node-1")
    assert found.before == 1


def test_rules_with_the_same_set_share_its_observations() -> None:
    first, second = (replace(rule_of(a_set()), name=name) for name in ("a", "b"))
    found = Observations([first, second])
    assert found.of(first.seen[0]) is found.of(second.seen[0])


def test_a_signal_counts_for_its_receiver() -> None:
    sender, receiver = (
        Owner("node-1"),
        {"receiver_namespace": "shop", "receiver_pod": "web", "receiver_container": "app"},
    )
    assert Owner.receiver("node-1", receiver) == Owner("node-1", "shop", "web", "app") != sender


def test_records_of_a_recording_from_anybody_are_counted_or_left_out() -> None:
    rules = load(own_files())
    (killed,) = (rule.seen[0] for rule in rules if rule.name == "oom-killed")
    found = Observations(rules)
    hostile = {"last_reason": "OOMKilled", "container": {"a": []}, "times": "x", "first_ns": -1}
    for kind in ("container", "event", "pod", "service", "change"):
        found.take_objects(kind, trusted([hostile, 7, None]), SECOND)
    (one,) = found.of(killed)
    assert (one.count, one.first_ns) == (1, SECOND)
    found.take_objects("container", trusted("nothing"), SECOND)
    assert not list(found.of(killed))


def test_another_look_at_a_node_does_not_end_what_its_first_snapshot_saw() -> None:
    watch = Watch(a_set(WALK))
    watch.turned("node-1", 10_000_000_000)
    watch.turned("node-1 look 1", 20_000_000_000)
    assert (watch.latest("node-1"), watch.latest("node-1 look 1")) == (0, 0)
    watch.turned("node-1", 30_000_000_000)
    assert watch.latest("node-1") == 1
