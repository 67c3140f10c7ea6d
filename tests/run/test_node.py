import asyncio
import contextlib
import io
import time
from collections.abc import Callable

import pytest

from kubectl_gadget.errors import AgentError, ForbiddenError, GadgetError
from kubectl_gadget.run import node as node_module
from kubectl_gadget.run.backlog import Backlog, Content, Detached, Events, RoundTrip
from kubectl_gadget.run.node import NodeSession, NodeState, NodeStream
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.request import RunRequest
from kubectl_gadget.wire.agent_messages import ContainerChanges, GadgetStats, Hello, Started, Stats
from kubectl_gadget.wire.client_messages import FilterSpec, GadgetSpec
from kubectl_gadget.wire.frames import EventsHeader, Frame, FrameType, encode
from kubectl_gadget.wire.message import parse
from tests.run.scripted import HELLO, Reaction, ScriptedStream, obedient
from tests.waiting import PATIENCE, source_of

REQUEST = RunRequest(
    [GadgetSpec(name="trace_open", object=0)], lambda index, architecture: f"{architecture}-{index}".encode()
)


class Bench:
    """A node session with everything around it, and what came of it."""

    def __init__(
        self,
        *reactions: Reaction | GadgetError,
        request: RunRequest = REQUEST,
        late: bool = False,
        is_asked: bool = False,
    ) -> None:
        self.streams: list[ScriptedStream] = []
        self.errors = io.StringIO()
        self.state = NodeState("n1")
        self._reactions = list(reactions)
        self.backlog = Backlog(1 << 20)
        self.changed = asyncio.Event()
        self.session = NodeSession(
            self.state,
            self._open,
            request,
            FilterSpec(host=False),
            self.backlog,
            Progress(self.errors),
            self.changed.set,
            late=late,
            is_asked=is_asked,
        )

    async def _open(self) -> ScriptedStream:
        reaction = self._reactions.pop(0) if len(self._reactions) > 1 else self._reactions[0]
        if isinstance(reaction, GadgetError):
            raise reaction
        self.streams.append(ScriptedStream(reaction))
        return self.streams[-1]

    @property
    def said(self) -> list[str]:
        return self.errors.getvalue().splitlines()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look at each change, since some conditions hold for a moment only."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain for: {source_of(condition)}\n{self.said}") from None

    def contents(self) -> list[Content]:
        return [item.content for item in self.backlog.take(0) or []]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "RETRY_SECONDS", (0.0,))


async def test_object_and_run_are_sent_for_the_architecture_that_hello_names() -> None:
    bench = Bench(obedient)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    sent = {frame.type: frame for frame in bench.streams[0].received}
    assert sent[FrameType.OBJECT].payload == b"x86_64-0"
    assert parse(sent[FrameType.RUN].payload) == {"gadgets": [{"name": "trace_open", "object": 0}]}
    bench.session.stop()
    await task


async def test_a_request_that_was_sent_before_is_not_sent_again() -> None:
    def started(stream: ScriptedStream, frame: Frame) -> None:
        if frame.type == FrameType.HEARTBEAT:
            stream.say(FrameType.STARTED, {"gadgets": []})
        obedient(stream, frame)

    bench = Bench(started, is_asked=True)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    assert [frame.type for frame in bench.streams[0].received] == [FrameType.HEARTBEAT]
    bench.session.stop()
    await task


async def test_stop_waits_for_end_and_keeps_its_statistics() -> None:
    bench = Bench(obedient)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    bench.session.stop()
    await task
    assert bench.state.past_stats == [Stats(gadgets=(GadgetStats(events=7),))]
    assert bench.state.error is None
    assert bench.streams[0].closed


async def test_a_lost_connection_is_opened_again_and_counted_as_a_gap() -> None:
    bench = Bench(obedient)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    bench.streams[0].hang_up()
    await bench.until(lambda: len(bench.streams) == 2 and bench.state.attached)
    assert bench.state.gaps == 1
    assert any("connection lost" in line for line in bench.said)
    assert any("of events are missing" in line for line in bench.said)
    bench.session.stop()
    await task


async def test_a_node_that_never_attached_is_not_retried() -> None:
    def refuse(stream: ScriptedStream, frame: Frame) -> None:
        if frame.type == FrameType.RUN:
            stream.say(
                FrameType.END, {"reason": "error", "error": {"what": "no BTF", "why": "old", "try": "a newer one"}}
            )

    bench = Bench(refuse)
    await bench.session.run()
    assert str(bench.state.error) == "no BTF: old"
    assert bench.state.error is not None
    assert bench.state.error.remedy == "a newer one"
    assert len(bench.streams) == 1


async def test_a_stop_does_not_wait_for_an_agent_that_is_still_to_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, opening = Bench(obedient), asyncio.Event()
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)

    async def never() -> NodeStream:
        opening.set()
        await asyncio.Event().wait()
        raise AssertionError("it was set")

    monkeypatch.setattr(bench.session, "_open", never)
    bench.streams[0].hang_up()
    await opening.wait()
    bench.session.stop()
    async with asyncio.timeout(60):
        await task
    assert isinstance(bench.state.error, AgentError)  # what it was lost by
    assert bench.state.gaps == 1
    assert bench.state.gap_seconds > 0  # until now


async def test_an_agent_that_does_not_answer_a_stop_failed_and_what_came_since_it_was_heard_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_module, "END_SECONDS", 0.0)

    def deaf(stream: ScriptedStream, frame: Frame) -> None:
        if frame.type != FrameType.STOP:
            obedient(stream, frame)

    bench = Bench(deaf)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    bench.session.stop()
    await task
    assert str(bench.state.error) == "its agent did not answer at the end"
    assert bench.state.gaps == 1
    assert not any("reconnecting" in line for line in bench.said)


async def test_a_node_that_joined_a_run_is_tried_again_until_it_works() -> None:
    bench = Bench(GadgetError("no image yet"), obedient, late=True)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    assert bench.said == ["n1: not ready (no image yet); retrying", "n1: joined; tracing starts now"]
    bench.session.stop()
    await task
    assert bench.state.error is None
    assert bench.state.gaps == 0


async def test_forbidden_is_never_retried_even_after_it_was_attached() -> None:
    bench = Bench(obedient, ForbiddenError("no more exec"))
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    bench.streams[0].hang_up()
    await task
    assert isinstance(bench.state.error, ForbiddenError)


async def test_a_fault_of_ours_ends_its_node_only_and_is_not_tried_again() -> None:
    def fails(index: int, architecture: str) -> bytes:
        raise LookupError("a fault")

    bench = Bench(obedient, request=RunRequest([GadgetSpec(name="trace_open", object=0)], fails))
    await bench.session.run()
    assert "internal error: LookupError" in str(bench.state.error)
    assert bench.state.given_up
    assert bench.streams[0].closed


async def test_a_broken_stream_is_an_error_of_that_node() -> None:
    def babble(stream: ScriptedStream, frame: Frame) -> None:
        stream.say_bytes(b"Traceback (most recent call last)")

    bench = Bench(babble)
    await bench.session.run()
    assert isinstance(bench.state.error, AgentError)
    assert "Traceback" in str(bench.state.error)


async def test_frames_reach_the_backlog_in_order_and_a_detached_mark_ends_them() -> None:
    bench = Bench(obedient)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    bench.streams[0].say(FrameType.CONTAINERS, {"containers": []})
    bench.session.stop()
    await task
    types = [type(content) for content in bench.contents() if not isinstance(content, RoundTrip)]
    assert types == [Hello, Started, ContainerChanges, Detached]


async def test_a_pong_gets_the_times_at_which_the_client_sent_and_received() -> None:
    bench = Bench(obedient)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    bench.session.stop()
    await task
    times = [content for content in bench.contents() if isinstance(content, RoundTrip)]
    assert times
    assert all(one.sent_ns <= one.received_ns for one in times)


async def test_a_new_filter_is_sent_once_and_only_when_it_differs() -> None:
    bench = Bench(obedient)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    await bench.session.set_filter(FilterSpec(host=True))
    await bench.session.set_filter(FilterSpec(host=True))
    filters = [parse(frame.payload) for frame in bench.streams[0].received if frame.type == FrameType.FILTER]
    assert filters == [{"host": True}]
    bench.session.stop()
    await task


async def test_the_last_line_that_a_dead_agent_said_is_the_reason() -> None:
    def crash(stream: ScriptedStream, frame: Frame) -> None:
        stream.stderr_tail = "Traceback (most recent call last):\n  File\nImportError: no module"
        stream.hang_up()

    bench = Bench(crash)
    await bench.session.run()
    assert str(bench.state.error) == "its agent ended: ImportError: no module"


async def test_an_agent_that_does_not_know_the_kind_of_gadget_is_not_asked_for_it() -> None:
    request = RunRequest([GadgetSpec(name="traceloop", object=0, kind="recorder")], lambda index, architecture: b"")
    bench = Bench(obedient, request=request)
    await bench.session.run()
    assert "too old for traceloop" in str(bench.state.error)
    assert all(frame.type != FrameType.RUN for frame in bench.streams[0].received)
    assert bench.state.given_up


async def test_what_recorders_hold_is_asked_for_by_a_frame() -> None:
    bench = Bench(obedient)
    await bench.session.show()
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    await bench.session.show()
    assert [frame.type for frame in bench.streams[0].received].count(FrameType.SHOW) == 1
    bench.session.stop()
    await task


@pytest.fixture(name="hasty")
def short_silences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(node_module, "HELLO_SECONDS", 0.05)
    monkeypatch.setattr(node_module, "ANOTHER_LOOK_SECONDS", 0.05)


@pytest.mark.usefixtures("hasty")
async def test_an_agent_that_is_silent_for_too_long_counts_as_lost() -> None:
    bench = Bench(lambda stream, frame: None)
    async with asyncio.timeout(60):
        await bench.session.run()
    assert str(bench.state.error) == "no message from its agent for 0 s"
    assert bench.streams[0].closed


@pytest.mark.usefixtures("hasty")
async def test_an_agent_that_sends_a_byte_now_and_then_is_silent() -> None:
    class Trickle(ScriptedStream):
        async def receive(self) -> bytes:
            if self.closed:
                return b""
            await asyncio.sleep(0.005)
            return next(pieces)

    pieces = iter(bytes([one]) for one in encode(FrameType.HELLO, bytes(1 << 20)))
    bench = Bench(lambda stream, frame: None)

    async def opened() -> NodeStream:
        return Trickle(obedient)

    bench.session._open = opened
    async with asyncio.timeout(60):
        await bench.session.run()
    assert str(bench.state.error) == "no message from its agent for 0 s"


@pytest.mark.usefixtures("hasty")
async def test_bytes_that_a_busy_loop_has_not_read_yet_are_not_silence() -> None:
    """All the time is over before the loop gets to read what has long been there."""
    bench = Bench(obedient)
    running = asyncio.create_task(bench.session.run())
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251
    await bench.until(lambda: bench.state.attached)
    bench.session.stop()
    await running
    assert bench.state.error is None


async def test_an_agent_of_another_version_is_reported_with_what_to_do() -> None:
    def react(stream: ScriptedStream, frame: Frame) -> None:
        if frame.type == FrameType.HEARTBEAT and not any(sent.type == FrameType.RUN for sent in stream.received):
            stream.say(FrameType.HELLO, HELLO | {"agent": "0.0.9"})
        obedient(stream, frame)

    bench = Bench(react)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    bench.session.stop()
    await task
    (said,) = bench.said
    assert said.startswith("n1: its agent is version 0.0.9, and this is ")
    assert said.endswith("try: kubectl gadget deploy")


async def test_frames_that_a_stream_hands_over_are_counted_and_stay_in_order() -> None:
    bench = Bench(obedient)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    take = bench.streams[0].take
    assert take is not None
    bench.contents()
    first, second = (encode(FrameType.EVENTS, EventsHeader(0, number, number).encode() + b"x") for number in (1, 2))
    assert take(first)
    assert not take(first + second)  # which the reader divides
    assert not take(first[:20])
    assert not take(encode(FrameType.EVENTS, b"short"))  # which the reader refuses
    assert not take(encode(FrameType.STATS, b"{}"))
    assert take(second)
    assert bench.contents() == [Events(first[8:]), Events(second[8:])]
    bench.session.stop()
    await task


async def test_a_stream_hands_nothing_over_while_there_is_no_room() -> None:
    bench = Bench(obedient)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    take = bench.streams[0].take
    assert take is not None
    large = encode(FrameType.EVENTS, EventsHeader(0, 1, 1).encode() + bytes(600 << 10))
    assert take(large)
    assert not take(large)
    assert len(bench.contents()) > 0
    assert take(large)
    bench.session.stop()
    await task


@pytest.mark.parametrize("by_cancelling", [True, False])
async def test_a_stream_that_opens_just_when_the_run_ends_is_closed(by_cancelling: bool) -> None:
    """Its agent would otherwise wait for a client that does not come."""
    stream = ScriptedStream(obedient)
    entered = asyncio.Event()

    async def stubborn() -> ScriptedStream:
        """Opens a stream although it is told not to, like a handshake whose answer has already come."""
        entered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return stream

    backlog, progress = Backlog(1 << 20), Progress(io.StringIO())
    session = NodeSession(NodeState("n1"), stubborn, REQUEST, FilterSpec(), backlog, progress, lambda: None)
    task = asyncio.create_task(session.run())
    await entered.wait()
    if by_cancelling:
        task.cancel()
    else:
        session.stop()
    await asyncio.gather(task, return_exceptions=True)
    assert stream.closed


async def test_what_is_covered_ends_when_the_run_asked_the_agent_to_stop() -> None:
    bench = Bench(obedient)
    task = asyncio.create_task(bench.session.run())
    await bench.until(lambda: bench.state.attached)
    bench.session.stop()
    await task
    covered = bench.state.covered(0, {})
    assert 0 < covered.selected_ns <= covered.attached_ns <= covered.until_ns
    assert (covered.cause, covered.gaps) == ("", ())


async def test_a_node_says_what_it_does_until_it_is_attached() -> None:
    asked = asyncio.Event()

    def slow(stream: ScriptedStream, frame: Frame) -> None:
        if frame.type == FrameType.RUN:
            asked.set()

    bench = Bench(slow)
    assert bench.state.covered(0, {}).why == "its agent is starting, and the run ended"
    task = asyncio.create_task(bench.session.run())
    await asyncio.wait_for(asked.wait(), 60)
    await asyncio.sleep(0)
    covered = bench.state.covered(0, {})
    assert covered.attached_ns == 0
    assert covered.why == "its programs are not attached yet, and the run ended"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
