"""What was watched: sums of uses, and what is said about how complete it is."""

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.advise import networkpolicy
from kubectl_gadget.advise.uses import SeenUses, UseKind, WatchPeriod
from tests.advise.flows import WEB, flow, recording

CALL = flow(WEB, "egress", "10.0.0.3", 5432)


NAMES = st.sampled_from(["a", "b"])


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(1, 1 << 60))))
def test_facts_of_one_key_are_summed_exactly(rows: list[tuple[str, str, int]]) -> None:
    made = SeenUses(UseKind(("key", "other"), ("count",)))
    made.add({"key": key, "other": other, "count": count} for key, other, count in rows)
    assert sum(use["count"] for use in made.uses) == sum(count for _, _, count in rows)
    assert len(made.uses) == len({row[:2] for row in rows})


def test_a_run_that_is_short_lost_events_or_nodes_is_warned_of() -> None:
    from kubectl_gadget.advise.uses import summary, warnings

    made = SeenUses(
        networkpolicy.KIND, [WatchPeriod("2026-01-01T12:00:00Z", 10.0, ("n1",), 3, ("n1 was not traced: no",))]
    )
    told = list(warnings(made))
    assert "3 events were lost" in told[0]
    assert told[1] == "not everything was watched: n1 was not traced: no"
    assert "10 s is too short to be complete" in told[2]
    assert summary(made) == "watched for 10 s, beginning at 2026-01-01T12:00:00Z, on 1 node"
    made.runs.append(WatchPeriod("2026-01-02T12:00:00Z", 200_000.0, ("n2",), 0))
    assert "behavior that did not occur in this time is not included" in list(warnings(made))
    assert "55.6 h in 2 runs" in summary(made)


def test_containers_of_which_no_replica_was_seen_to_start_are_named() -> None:
    from kubectl_gadget.advise.uses import warnings

    def told(made: SeenUses) -> bool:
        return any("shop/deployment/web/main" in text for text in warnings(made))

    made = recording(CALL)
    assert not told(made)
    made.watch(("shop", WEB.name, "main"), earlier=True)
    assert told(made)
    made.watch(("shop", WEB.name, "main"), earlier=False)
    assert not told(made)
    assert made.watched == [("shop", WEB.name, "main")]
