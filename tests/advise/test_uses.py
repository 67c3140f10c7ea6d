"""Recordings: they are read as they were written, several count as one, and other files are refused."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.advise import networkpolicy
from kubectl_gadget.advise.uses import Recording, UseKind, WatchPeriod
from kubectl_gadget.errors import UsageError
from tests.advise.flows import WEB, flow, recording, write

CALL = flow(WEB, "egress", "10.0.0.3", 5432)


def written(made: Recording) -> str:
    stream = io.StringIO()
    write(made, stream)
    return stream.getvalue()


def read(*texts: str, advisor: str = "networkpolicy") -> Recording:
    made = Recording(advisor, networkpolicy.KIND)
    for number, text in enumerate(texts):
        made.read(io.StringIO(text), f"file {number}")
    return made


def test_what_is_read_is_what_was_written() -> None:
    made = recording(CALL)
    made.watch(("shop", "web", "main"), earlier=True)
    made.inventory.namespaces["shop"] = {"team": "x"}
    again = read(written(made))
    assert (again.uses, again.runs, again.watched) == (made.uses, made.runs, made.watched)
    assert (again.earlier, again.begun) == (made.earlier, made.begun)
    assert again.inventory == made.inventory
    assert written(again) == written(made)


def test_several_recordings_add_up_as_one() -> None:
    text = written(recording(CALL))
    both = read(text, text)
    assert [use["connections"] for use in both.uses] == [2]
    assert len(both.runs) == 2
    assert both.seconds == 72_000
    assert len(both.inventory.pods) == len(recording().inventory.pods)


NAMES = st.sampled_from(["a", "b"])


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(1, 1 << 60))))
def test_facts_of_one_key_are_summed_exactly(rows: list[tuple[str, str, int]]) -> None:
    made = Recording("x", UseKind(("key", "other"), ("count",)))
    made.add({"key": key, "other": other, "count": count} for key, other, count in rows)
    assert sum(use["count"] for use in made.uses) == sum(count for _, _, count in rows)
    assert len(made.uses) == len({row[:2] for row in rows})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]\n", "is not a recording"),
        ('{"recording": "seccomp", "version": 1}\n', "recorded for advise seccomp"),
        ('{"recording": "networkpolicy", "version": 2}\n', "another version"),
        ('{"recording": "networkpolicy", "version": 1}\nx\n', "line 2"),
        ('{"recording": "networkpolicy", "version": 1}\n{"fact": {"port": 1}}\n{"what": 1}\n', "line 3"),
        ('{"recording": "networkpolicy", "version": 1}\n{"run": {"seconds": 1}}\n', "line 2"),
    ],
)
def test_a_file_that_is_not_a_recording_is_refused_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"file 0.*{message}"):
        read(text)


def test_only_facts_of_the_chosen_are_kept() -> None:
    made = recording(CALL, {**CALL, "namespace": "data", "pod": "db-0"}, {**CALL, "container": "side", "port": 1})
    made.keep_only("shop", [WEB.name], ["side"])
    assert [use["container"] for use in made.uses] == ["side"]


def test_a_run_that_is_short_lost_events_or_nodes_is_warned_of() -> None:
    from kubectl_gadget.advise.evidence import summary, warnings

    made = Recording(
        "networkpolicy", networkpolicy.KIND, [WatchPeriod("2026-01-01T12:00:00Z", 10.0, ("n1",), 3, ("n1",))]
    )
    told = list(warnings(made))
    assert "3 events were lost" in told[0]
    assert "not watched to the end: n1" in told[1]
    assert "10 s is too short to be complete" in told[2]
    assert summary(made) == "watched for 10 s from 2026-01-01T12:00:00Z on, on 1 node"
    made.runs.append(WatchPeriod("2026-01-02T12:00:00Z", 200_000.0, ("n2",), 0))
    assert "behavior that did not occur in this time is not included" in list(warnings(made))
    assert "55.6 h in 2 runs" in summary(made)


def test_containers_of_which_no_replica_was_seen_to_start_are_named() -> None:
    from kubectl_gadget.advise.evidence import warnings

    def told(made: Recording) -> bool:
        return any("shop/deployment/web/main" in text for text in warnings(made))

    made = recording(CALL)
    assert not told(made)
    made.watch(("shop", WEB.name, "main"), earlier=True)
    assert told(made)
    assert told(read(written(made)))
    made.watch(("shop", WEB.name, "main"), earlier=False)
    assert not told(made)
    assert not told(read(written(made)))
    assert made.watched == [("shop", WEB.name, "main")]
