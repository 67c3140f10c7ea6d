import errno
import io
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.errors import FrameError, GadgetError, InternalError
from kubectl_gadget.filters.filter import Filter, compile_filter
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.merge import TimeMerge
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.backlog import Backlog, Content, Detached, Events, Intake, Item, LiveFrames, RoundTrip, Selected
from kubectl_gadget.run.coverage import Gap
from kubectl_gadget.run.pipeline import Conditions, Pipeline, PipelineEvents
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, StackNames, Started, Stats
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import EventsHeader
from tests.rows.records import OPEN, record, ring

ALL = {"namespaces": None, "pods": None, "containers": None, "exclude_pods": [], "host": False}
CONTAINERS = {
    "containers": [
        {
            "id": "c1",
            "namespace": "default",
            "pod": "xwing",
            "pod_uid": "u1",
            "container": "spaceship",
            "kind": "container",
        },
        {"id": "c2", "namespace": "empire", "pod": "star", "pod_uid": "u2", "container": "laser", "kind": "container"},
    ],
    "cgroups": {"11": "c1", "12": "c2", "13": None},
}
CHANGES = ContainerChanges.from_json(CONTAINERS)


def compiled(text: str) -> Filter:
    return compile_filter(text, [OPEN])


def events(*records: bytes, complete_until: int = 0) -> Events:
    return Events(EventsHeader(0, 0, complete_until).encode() + ring(*records))


class Bench:
    """A pipeline that writes JSON lines into memory, and its callbacks' calls."""

    def __init__(
        self,
        conditions: Conditions | None = None,
        stream: io.StringIO | None = None,
        wants: Callable[[str, str], bool | None] = lambda uid, name: True,
    ) -> None:
        self.stream = stream or io.StringIO()
        self.stopped: list[str] = []
        self.broke: list[tuple[str, GadgetError]] = []
        self.warned: list[str] = []
        self.backlog = Backlog(1 << 20)
        self.pipeline = Pipeline(
            LiveFrames(self.backlog),
            [OPEN],
            conditions or Conditions(),
            TimeMerge(200_000_000),
            make_sink(OutputOptions("json"), [OPEN], self.stream),
            PipelineEvents(
                self.stopped.append, lambda node, error: self.broke.append((node, error)), self.warned.append
            ),
            wants,
        )
        for node in ("n1", "n2"):
            self.select(node, ALL)

    def select(self, node: str, selection: dict[str, Any]) -> None:
        self.backlog.add(Item(node, Selected(FilterSpec.from_json(selection))))

    def work(self) -> None:
        """Handles what has come, and releases nothing."""
        for item in self.backlog.take(0) or []:
            self.pipeline._take(item, 0)

    async def feed(self, node: str, *contents: Content) -> None:
        for one in contents:
            await self.backlog.put(Item(node, one))

    async def attach(self, node: str, realtime_ns: int = 0) -> None:
        await self.feed(
            node,
            Hello(architecture="x86_64", boot_ns=0, realtime_ns=realtime_ns),
            Started(boot_ns=0, realtime_ns=realtime_ns),
            CHANGES,
        )

    def finish(self) -> list[dict[str, Any]]:
        self.backlog.close()
        self.pipeline.run()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


class Frames(list[Item]):
    """Items of a step, of which others know whether they are still in memory."""


class Steps:
    """Two steps with items, and whether the first one's are in memory when the next is asked for."""

    def __init__(self) -> None:
        self.held: list[bool] = []
        self._last: weakref.ref[Frames] | None = None

    @property
    def is_held(self) -> bool:
        """True if the items of the last step are in memory."""
        return self._last is not None and self._last() is not None

    def take(self, due_ns: int | None) -> Intake | None:
        if self._last is not None:
            self.held.append(self.is_held)
        if len(self.held) == 2:
            return None
        items = Frames([Item("n1", Hello())])
        self._last = weakref.ref(items)
        return Intake(items, 0)

    def drain(self) -> None:
        pass


class Releases(TimeMerge):
    """True if a step's items are in memory when rows are released."""

    def __init__(self, steps: Steps) -> None:
        super().__init__(200_000_000)
        self.held: list[bool] = []
        self._steps = steps

    def release(self, now_ns: int) -> Rows:
        self.held.append(self._steps.is_held)
        return super().release(now_ns)


async def test_frames_are_not_in_memory_while_rows_are_printed_and_the_next_ones_are_read() -> None:
    bench, steps = Bench(), Steps()
    bench.pipeline.frames = steps
    bench.pipeline.collector = releases = Releases(steps)
    bench.pipeline.run()
    assert steps.held == releases.held == [False, False]


async def test_rows_carry_node_namespace_pod_and_container() -> None:
    bench = Bench()
    await bench.attach("n1")
    await bench.feed("n1", events(record(cgroup=11, path=b"/a")))
    (row,) = bench.finish()
    assert (row["node"], row["namespace"], row["pod"], row["container"]) == ("n1", "default", "xwing", "spaceship")
    assert bench.pipeline.ending.shown == {"n1": 1}


async def test_rows_of_two_nodes_come_out_in_the_order_of_their_wall_time() -> None:
    bench = Bench()
    await bench.attach("n1", realtime_ns=1_000)
    await bench.attach("n2", realtime_ns=1_005)
    await bench.feed(
        "n1", events(record(cgroup=11, timestamp=1, path=b"1"), record(cgroup=11, timestamp=10, path=b"3"))
    )
    await bench.feed("n2", events(record(cgroup=11, timestamp=1, path=b"2"), record(cgroup=11, timestamp=9, path=b"4")))
    assert [row["path"] for row in bench.finish()] == ["1", "2", "3", "4"]


async def test_a_clock_that_is_certainly_off_is_corrected_and_reported() -> None:
    bench = Bench()
    await bench.attach("n1", realtime_ns=0)
    await bench.feed("n1", RoundTrip(0, 2_000_000, 0, 10_000_000_000), events(record(cgroup=11, timestamp=0)))
    (row,) = bench.finish()
    assert row["timestamp"] == "1970-01-01T00:00:00.001000000Z"
    assert bench.pipeline.skew_ns == {"n1": 9_999_000_000}


async def test_host_processes_are_left_out_unless_they_are_asked_for() -> None:
    bench = Bench()
    await bench.attach("n1")
    await bench.attach("n2")
    bench.select("n2", {**ALL, "host": True})
    await bench.feed("n1", events(record(cgroup=13)))
    await bench.feed("n2", events(record(cgroup=13)))
    assert [row["node"] for row in bench.finish()] == ["n2"]


async def test_the_client_decides_on_what_the_agent_let_through() -> None:
    bench = Bench()
    await bench.attach("n1")
    bench.select("n1", {**ALL, "namespaces": ["empire"]})
    await bench.feed("n1", events(record(cgroup=11), record(cgroup=12)))
    assert [row["pod"] for row in bench.finish()] == ["star"]


async def test_events_of_an_unnamed_cgroup_are_counted() -> None:
    bench = Bench()
    await bench.attach("n1")
    await bench.feed("n1", events(record(cgroup=99), record(cgroup=11)))
    assert len(bench.finish()) == 2
    assert bench.pipeline.attribution.unattributed == 1


async def test_rows_of_a_pod_wait_until_its_labels_are_known() -> None:
    known: dict[str, bool] = {}
    bench = Bench(wants=lambda uid, name: known.get(uid))
    await bench.attach("n1")
    await bench.feed("n1", events(record(cgroup=11, path=b"/x"), record(cgroup=12)))
    pipeline = bench.pipeline
    bench.work()
    known.update(u1=True, u2=False)
    assert [row["path"] for row in bench.finish()] == ["/x"]
    assert pipeline.attribution.unattributed == 0


async def test_rows_of_pods_that_are_undecided_at_the_end_are_counted() -> None:
    bench = Bench(wants=lambda uid, name: None)
    await bench.attach("n1")
    await bench.feed("n1", events(record(cgroup=11), record(cgroup=12)))
    assert bench.finish() == []
    assert bench.pipeline.attribution.unattributed == 2


async def test_filter_decides_which_rows_are_shown_and_counted() -> None:
    bench = Bench(Conditions(filter=compiled('path.startsWith("/etc")')))
    await bench.attach("n1")
    await bench.feed("n1", events(record(cgroup=11, path=b"/etc/x"), record(cgroup=11, path=b"/tmp")))
    assert [row["path"] for row in bench.finish()] == ["/etc/x"]
    assert bench.pipeline.ending.shown.total() == 1


async def test_fail_on_prints_the_first_row_that_matches_and_nothing_after_it() -> None:
    bench = Bench(Conditions(fail_on=compiled('comm == "sh"')))
    await bench.attach("n1")
    await bench.feed("n1", events(*(record(cgroup=11, comm=comm) for comm in (b"vi", b"sh", b"ls", b"sh"))))
    assert [row["comm"] for row in bench.finish()] == ["vi", "sh"]
    assert bench.pipeline.ending.failed_on
    assert "enough" in bench.stopped


async def test_expect_is_missed_until_a_row_matches() -> None:
    missed = Bench(Conditions(expect=compiled("fd == 7")))
    await missed.attach("n1")
    await missed.feed("n1", events(record(cgroup=11, fd=3)))
    missed.finish()
    assert missed.pipeline.ending.expectation_missed
    met = Bench(Conditions(expect=compiled("fd == 7")))
    await met.attach("n1")
    await met.feed("n1", events(record(cgroup=11, fd=7)))
    met.finish()
    assert not met.pipeline.ending.expectation_missed


async def test_max_events_is_exact() -> None:
    bench = Bench(Conditions(max_events=3))
    await bench.attach("n1")
    await bench.feed("n1", events(*(record(cgroup=11, fd=n) for n in range(2))), events(*(record(cgroup=11),) * 5))
    assert len(bench.finish()) == 3
    assert "enough" in bench.stopped


async def test_a_node_that_sends_nonsense_breaks_alone() -> None:
    bench = Bench()
    await bench.attach("n1")
    await bench.attach("n2")
    await bench.feed("n1", Events(EventsHeader(0, 0, 0).encode() + b"\xff" * 16))
    await bench.feed("n1", Events(b"short"))
    await bench.feed("n1", StackNames(gadget=7, first=0, frames=(), stacks={}))
    await bench.feed("n2", events(record(cgroup=11)))
    assert [row["node"] for row in bench.finish()] == ["n2"]
    assert [node for node, _ in bench.broke] == ["n1", "n1", "n1"]
    assert all(isinstance(error, FrameError) for _, error in bench.broke)


async def test_a_fault_of_ours_is_not_blamed_on_the_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    chosen = compiled("fd == 3")
    bench = Bench(Conditions(filter=chosen))
    await bench.attach("n1")
    await bench.attach("n2")
    await bench.feed("n1", events(record(cgroup=11)))
    monkeypatch.setattr(chosen, "select", lambda batch: int("no number"))
    bench.work()
    monkeypatch.undo()
    await bench.feed("n2", events(record(cgroup=11)))
    assert [row["node"] for row in bench.finish()] == ["n2"]
    ((node, error),) = bench.broke
    assert (node, type(error)) == ("n1", InternalError)
    assert str(error).startswith("internal error: ValueError: invalid literal for int()")
    assert str(tmp_path) in str(error.remedy)


async def test_a_detached_node_is_not_waited_for() -> None:
    bench = Bench()
    await bench.attach("n1")
    await bench.attach("n2")
    await bench.feed("n2", Detached())
    await bench.feed("n1", events(record(cgroup=11, timestamp=5), complete_until=6))
    bench.work()
    assert len(bench.pipeline.collector.release(0)) == 1


async def test_rows_of_a_node_that_attaches_later_keep_the_order_from_its_hello_on() -> None:
    bench = Bench()
    await bench.attach("n1")
    await bench.feed("n2", Hello(architecture="x86_64", boot_ns=10, realtime_ns=10))
    await bench.feed("n1", events(record(cgroup=11, timestamp=9), record(cgroup=11, timestamp=20), complete_until=30))
    bench.work()
    assert len(bench.pipeline.collector.release(0)) == 1
    await bench.feed("n2", Started(boot_ns=15, realtime_ns=15), CHANGES)
    await bench.feed("n2", events(record(cgroup=11, timestamp=16), complete_until=30))
    rows = bench.finish()
    assert [row["timestamp"][-3:-1] for row in rows] == ["16", "20"]
    assert not any("late" in row for row in rows)
    assert bench.pipeline.collector.late == 0


async def test_a_row_that_came_too_late_for_the_order_says_so_and_is_counted() -> None:
    bench = Bench()
    await bench.attach("n1")
    await bench.feed("n1", events(record(cgroup=11, timestamp=20), complete_until=30))
    bench.work()
    bench.pipeline._emit_all(lambda: bench.pipeline.collector.release(0))
    await bench.feed("n1", events(record(cgroup=11, timestamp=5), record(cgroup=11, timestamp=21), complete_until=40))
    rows = bench.finish()
    assert [row.get("late") for row in rows] == [None, True, None]
    assert bench.pipeline.collector.late == 1


async def test_a_span_that_is_missing_is_a_line_of_json_of_its_own() -> None:
    bench = Bench()
    await bench.attach("n1")
    await bench.feed("n1", Gap(25.1029, 1_000_000_007))
    assert bench.finish() == [{"timestamp": "1970-01-01T00:00:01.000000007Z", "node": "n1", "gap_seconds": 25.103}]


async def test_a_closed_pipe_ends_the_run_quietly() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    bench = Bench(stream=Closed())
    await bench.attach("n1")
    await bench.feed("n1", events(record(cgroup=11)))
    bench.backlog.close()
    bench.pipeline.run()
    assert bench.stopped


async def test_a_full_disk_is_an_error_that_says_so() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    bench = Bench(stream=Full())
    await bench.attach("n1")
    await bench.feed("n1", events(record(cgroup=11)))
    bench.backlog.close()
    with pytest.raises(GadgetError, match="No space left on device"):
        bench.pipeline.run()


async def test_nothing_is_printed_when_no_node_started() -> None:
    bench = Bench()
    await bench.feed("n1", Detached())
    bench.finish()
    assert bench.stream.getvalue() == ""


NODES = [f"m{number}" for number in range(5)]


async def many(bench: Bench) -> None:
    """Frames of five nodes: of known, unknown and removed cgroups, not in order, one empty, and a record that was
    discarded; one node's clock is ahead, and one has another selection."""
    for number, node in enumerate(NODES):
        bench.select(node, ALL | ({"namespaces": ["empire"]} if number == 3 else {}))
        await bench.attach(node, realtime_ns=number * 10)
    for number, node in enumerate(NODES):
        rows = [record(timestamp=100 - at, cgroup=11 + at, path=f"/{number}/{at}".encode()) for at in range(4)]
        await bench.feed(node, events(*rows[: 0 if number == 4 else 4], complete_until=200))


async def test_frames_of_many_nodes_give_the_same_rows_together_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    together, alone = Bench(), Bench()
    joined = []
    real = together.pipeline.decoding.joined

    def counted(frames: Any) -> Any:
        joined.append(len(frames))
        return real(frames)

    monkeypatch.setattr(together.pipeline.decoding, "joined", counted)
    monkeypatch.setattr(alone.pipeline.decoding, "can_join", lambda node, gadget: False)
    await many(together)
    await many(alone)
    rows = together.finish()
    assert rows == alone.finish()
    assert joined == [5]
    assert {row["node"] for row in rows} == set(NODES[:4])
    assert together.pipeline.ending.shown == alone.pipeline.ending.shown
    assert (together.pipeline.attribution.unattributed, alone.pipeline.attribution.unattributed) == (4, 4)
    assert not together.broke


@pytest.mark.parametrize(
    "bad", [bytes(4), (4000).to_bytes(4, "little") + bytes(12), b"\x10" + bytes(31)], ids=["uneven", "beyond", "short"]
)
async def test_a_node_whose_frame_is_wrong_breaks_alone(bad: bytes) -> None:
    bench = Bench()
    await many(bench)
    await bench.feed("n1", Hello(), Started(), Events(EventsHeader(0, 0, 200).encode() + bad))
    await bench.feed("n2", Hello(), Started(), events(record(cgroup=13, path=b"/n2")))
    rows = bench.finish()
    assert [node for node, _ in bench.broke] == ["n1"]
    assert {row["node"] for row in rows} == {*NODES[:4], "n2"}


async def test_a_bug_with_many_nodes_frames_costs_no_row_and_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    broken, alone = Bench(), Bench()
    monkeypatch.setattr(broken.pipeline.decoding, "joined", lambda frames: int("no number"))
    monkeypatch.setattr(alone.pipeline.decoding, "can_join", lambda node, gadget: False)
    await many(broken)
    await many(alone)
    assert broken.finish() == alone.finish()
    assert [text[:28] for text in broken.warned] == ["internal error: ValueError: "]
    assert not broken.broke
    assert broken.pipeline.attribution.unattributed == alone.pipeline.attribution.unattributed


async def test_an_error_with_the_joined_rows_of_many_nodes_ends_no_more_than_the_node_at_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    chosen = compiled("fd != 999")
    bench = Bench(Conditions(filter=chosen))
    real = chosen.select

    def fails(batch: Batch) -> Batch:
        """A fault of ours with what one of the nodes has sent."""
        return real(batch) if "m2" not in batch.nodes() else int("no number")

    await many(bench)
    monkeypatch.setattr(chosen, "select", fails)
    assert {row["node"] for row in bench.finish()} == {"m0", "m1", "m3"}
    assert [(node, type(error)) for node, error in bench.broke] == [("m2", InternalError)]


async def test_a_filter_that_fails_on_every_row_is_reported_while_rows_still_come() -> None:
    bench = Bench(Conditions(filter=compiled('int(path) == 1 && "1".matches("1")')))
    await bench.attach("n1")
    await bench.feed("n1", events(record(cgroup=11, path=b"/no/number")))
    taken = bench.pipeline.frames.take
    steps = 0

    def busy(due_ns: int | None) -> Intake | None:
        """Each step has something, as on a cluster of many nodes; the third one looks what was said until then."""
        nonlocal steps
        steps += 1
        if steps == 3:
            assert len(bench.warned) == 1, bench.warned
            bench.backlog.close()
        elif steps < 3:
            bench.backlog.add(Item("n1", Stats()))
        return taken(due_ns)

    bench.pipeline.frames.take = busy  # type: ignore[method-assign]
    bench.pipeline.run()
    assert steps >= 3
    assert bench.warned[0].startswith("'int(path) == 1")
    assert bench.stream.getvalue() == ""
