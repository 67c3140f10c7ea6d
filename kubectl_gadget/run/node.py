"""One node of a run: speaks docs/protocol.md with its agent, reconnects, and passes frames to the backlog.

A node must never end the run. Every failure becomes a state and a line of progress; only the run decides. The
module is long, because reading, heartbeats and updates share the state of one connection.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Protocol

from kubectl_gadget import __version__
from kubectl_gadget.background_tasks import as_gadget_error
from kubectl_gadget.errors import AgentError, ForbiddenError, FrameError, GadgetError, InternalError
from kubectl_gadget.run.backlog import Backlog, Content, Detached, Events, Item, RoundTrip, memory_of
from kubectl_gadget.run.coverage import Cause, CoverageTracker, Gap, MissingSpan, NodeCoverage, awake_or_not_ns
from kubectl_gadget.run.live_tables import Contents, LiveTables, first_labels, updates
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.request import RunRequest
from kubectl_gadget.wire.agent_messages import (
    ContainerChanges,
    End,
    Hello,
    Pong,
    StackNames,
    Started,
    Stats,
    WarningText,
    from_agent,
)
from kubectl_gadget.wire.client_messages import AnyGadget, FilterSpec, Heartbeat
from kubectl_gadget.wire.frames import LAST, Frame, FrameDecoder, FrameType, encode, split_events
from kubectl_gadget.wire.policy_events import rfc3339

# A stream to one node's agent, whether it is a pod's exec or a child process. Note: `receive` returns chunks of
# any size; only the frame decoder knows where a frame ends.


class NodeStream(Protocol):
    """A byte stream to and from one agent."""

    take: Callable[[bytes], bool] | None
    """If a stream can: it calls this with a chunk that comes while `receive` is awaited, and `receive` returns the
    chunk if the answer is False. Saves waking a task for each of ten thousand frames a second."""

    @property
    def stderr_tail(self) -> str:
        """The last lines that the agent wrote to its standard error; they explain why it died."""

    async def receive(self) -> bytes:
        """Returns the next chunk of the agent's output, or b"" at its end. Raises GadgetError when the stream broke."""

    async def send(self, data: bytes) -> None:
        """Writes to the agent's input; waits while it is full. Raises GadgetError when the stream broke."""

    async def close(self) -> None:
        """Closes the stream, which ends the agent. Never raises."""


Open = Callable[[], Awaitable[NodeStream]]
"""Opens a new stream to a node; called again for each reconnection."""


# The state of one node in a run.


STARTING, CONNECTING, ATTACHING = (
    "agent is starting",
    "agent has not answered yet",
    "programs are not attached yet",
)
"""The phases of a node before it is attached."""


@dataclass
class NodeState:
    """The state of one node. Written by the event loop, read by the summary."""

    name: str
    attached: bool = False
    ever_attached: bool = False
    selected_ns: int = field(default_factory=awake_or_not_ns)
    """when the run learnt that it is selected, in the clock of `tracker`"""
    tracker: CoverageTracker = field(default_factory=CoverageTracker)
    phase: str = STARTING
    """what it does as long as it is neither attached nor failed, for messages"""
    late_by: float | None = None
    """--start-timeout in seconds, if that was over before the node was attached or failed"""
    left: bool = False
    """nothing selected is on it any more"""
    error: GadgetError | None = None
    """why it is not running now; None while it runs, or before it started"""
    given_up: bool = False
    """True if it will not be retried"""
    gaps: int = 0
    gap_seconds: float = 0.0
    hello: Hello | None = None
    """of the latest connection"""
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """by gadget, the programs that its kernel refused, where no other one does their work"""
    stats: Stats | None = None
    """of the connection that is open now"""
    past_stats: list[Stats] = field(default_factory=list)
    """last statistics of lost connections"""

    @property
    def is_pending(self) -> bool:
        """True if it has neither been attached nor failed."""
        return not self.attached and self.error is None

    @property
    def connections(self) -> list[Stats]:
        """Returns the last statistics of each connection."""
        return self.past_stats if self.stats is None else [*self.past_stats, self.stats]

    def covered(self, wall_ns: int, lost: Mapping[str, int]) -> NodeCoverage:
        """Return the record of this node; `wall_ns` is what our clock has to be advanced by to show wall time."""
        tracker, cause, why = self.tracker, "", ""
        if self.error is not None:
            cause, why = Cause.FAILED if self.given_up else Cause.UNREACHABLE, str(self.error)
        elif not tracker.attached_ns and self.late_by is not None:
            cause = Cause.NOT_IN_TIME
            why = f"its {self.phase}, after {self.late_by:g} s (--start-timeout)"
        elif not tracker.attached_ns:
            cause, why = Cause.STARTING, f"its {self.phase}, and the run ended"
        return NodeCoverage(
            name=self.name,
            selected_ns=self.selected_ns + wall_ns,
            attached_ns=tracker.attached_ns and tracker.attached_ns + wall_ns,
            until_ns=tracker.until_ns and tracker.until_ns + wall_ns,
            gaps=tuple(
                MissingSpan(since_ns=since + wall_ns, until_ns=until + wall_ns) for since, until in tracker.missing
            ),
            without=self.without,
            cause=cause,
            why=why,
            remedy=(self.error.remedy if self.error else "") or "",
            left=self.left,
            lost={name: number for name, number in lost.items() if number},
        )


def refused(started: Started) -> Mapping[str, tuple[str, ...]]:
    """Return, by gadget, the programs that were refused without another one in their place."""
    found = {
        gadget.name: tuple(one.program for each in gadget.programs if not each.chosen for one in each.skipped)
        for gadget in started.gadgets
    }
    return {name: programs for name, programs in found.items() if programs}


def hook_lines(started: Started) -> Iterator[str]:
    """Yields which hooks of each gadget this node's kernel has loaded, and which it refused."""
    for gadget in started.gadgets:
        hooks = [hook for program in gadget.programs for hook in program.hooks]
        yield f"{gadget.name} hooks {', '.join(hooks)}"
        for skipped in (entry for program in gadget.programs for entry in program.skipped):
            yield f"{gadget.name} runs without {skipped.program}: {skipped.why}"


def method_lines(started: Started) -> Iterator[str]:
    """Yields what is in force at each hook of policies, where it does more than watch."""
    for program in (program for gadget in started.gadgets for program in gadget.programs):
        if program.method != "observes":
            yield f"{program.method} at {', '.join(program.hooks)}"


# The session with its agent.

HEARTBEAT_SECONDS = 5.0
SILENCE_SECONDS = 20.0
"""After this time without any frame (statistics come each 4 s at least), the connection counts as lost."""
_SOME_BYTES = 64 << 10
"""of a frame that is not complete, and yet are no silence"""
HELLO_SECONDS = 20.0
ANOTHER_LOOK_SECONDS = 1.0
END_SECONDS = 3.5
"""After STOP an agent has so long to send what it could not send before, and END."""
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
_PATIENT_TRIES = 3
"""After this number of failed attempts the reason is reported."""


class NodeSession:
    """Runs the session of one node until it is stopped, over as many connections as needed.

    A node whose first connection fails is given up, unless it is `late`: it joined when others were already running.
    `is_asked`: the request was already sent. `in_force`: the run also enforces, so it reports when this starts on this
    node.
    """

    def __init__(
        self,
        state: NodeState,
        open_stream: Open,
        request: RunRequest,
        agent_filter: FilterSpec,
        backlog: Backlog,
        progress: Progress,
        on_change: Callable[[], None],
        reconnect: bool = True,
        late: bool = False,
        is_asked: bool = False,
        in_force: bool = False,
    ) -> None:
        self.state = state
        self._open = open_stream
        self._request = request
        self._filter = agent_filter
        self._backlog = backlog
        self._progress = progress
        self._on_change = on_change
        self._reconnect = reconnect
        self._late = late
        self._is_asked = is_asked
        self._in_force = in_force
        self._stream: NodeStream | None = None
        # Futures, since an Event takes 0.7 KB, on each of thousands of nodes.
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """done: the run asks this node to end"""
        self._sent: dict[int, int] = {}
        self._beats = 0
        self._failure: GadgetError | None = None
        self._coverage = state.tracker
        self._stop_sent_ns = 0
        """when STOP was sent, in the clock of `_coverage`"""
        self._heard_at = 0.0
        """when the last frame came; monotonic seconds"""
        self._unfinished = 0
        """bytes since"""
        self._waiting_since = math.inf
        """the same; infinite while this client does not wait for bytes"""
        self._silent_for = 0.0
        self._asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """done: RUN was sent on this connection"""
        self._addresses: tuple[str, ...] = ()
        """the node's own addresses, as its agent reports them, if there are tables"""

    async def set_filter(self, agent_filter: FilterSpec) -> None:
        """Replaces the filter, for this connection and later ones."""
        if agent_filter == self._filter:
            return
        self._filter = agent_filter
        if self._stream is not None and self.state.attached:
            try:
                await self._stream.send(encode(FrameType.FILTER, agent_filter.to_bytes()))
            except GadgetError as error:
                self._progress.node(self.state.name, f"the new filter was not delivered: {error}")

    async def show(self) -> None:
        """Asks the agent to send what its flight recorders hold."""
        if self._stream is not None and self.state.attached:
            try:
                await self._stream.send(encode(FrameType.SHOW, b"{}"))
            except GadgetError as error:
                self._progress.node(self.state.name, f"its agent could not be asked for its recordings: {error}")

    def stop(self) -> None:
        """Asks the agent to end; `run` then returns within seconds."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    def fail(self, error: GadgetError) -> None:
        """Ends this node for good, because what it sends cannot be used."""
        self._failure = error
        self.stop()

    async def run(self) -> None:
        """Connects, and reconnects when the connection is lost. Never raises GadgetError; cancelling detaches."""
        try:
            await self._run()
        except asyncio.CancelledError:
            if self.state.attached:
                self.state.attached = False
                self.state.error = AgentError("its agent was still running when the run ended")
                self._begin_gap()
            raise
        finally:
            self._end_gap(self._coverage.end())

    async def _run(self) -> None:
        attempt = 0
        while not self._stopped.done():
            try:
                if await self._connect():
                    self._coverage.stopped(self._stop_sent_ns or awake_or_not_ns())
                    await self._detached(self._failure)
                return
            except Exception as caught:
                # A node must not end the run, not even because of a bug of ours.
                error = as_gadget_error(caught)
                was_attached = self.state.attached
                await self._detached(error)
                if was_attached:
                    self._begin_gap()
                # A node that joins a run may itself be new, and still lack something that an agent needs.
                worth_trying = self._reconnect and (self.state.ever_attached or self._late)
                if isinstance(error, ForbiddenError | InternalError) or not worth_trying:
                    self.state.given_up = True
                    self._on_change()
                    return
                if was_attached:
                    attempt = 0
                    if not self._stopped.done():
                        until = ", not in force until then" if self._in_force else ""
                        self._progress.node(self.state.name, f"connection lost ({error}); reconnecting{until}")
                elif attempt == _PATIENT_TRIES or (attempt == 0 and not self.state.ever_attached):
                    self._progress.node(self.state.name, f"not ready ({error}); retrying")
            await self._pause(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1

    def _begin_gap(self) -> None:
        self.state.gaps += 1
        self._coverage.lost()

    def _end_gap(self, gap: Gap | None) -> None:
        if gap is not None:
            self.state.gap_seconds += gap.seconds
            self._backlog.add(Item(self.state.name, gap))

    async def _pause(self, seconds: float) -> None:
        # asyncio.wait would take 0.9 KB more, on each of thousands of nodes.
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _settle, over)
        end = partial(_settle, over)
        self._stopped.add_done_callback(end)
        try:
            await over
        finally:
            timer.cancel()
            self._stopped.remove_done_callback(end)

    async def _detached(self, error: GadgetError | None) -> None:
        self.state.attached = False
        self.state.error = error
        self._sent.clear()
        if self.state.stats:
            self.state.past_stats.append(self.state.stats)
            self.state.stats = None
        await self._backlog.put(Item(self.state.name, Detached()))
        self._on_change()

    async def _connect(self) -> bool:
        """Runs one connection from beginning to end. Returns False when the run was over before it began."""
        self.state.phase = STARTING
        stream = await self._open_unless_stopped()
        if stream is None:
            return False
        self.state.phase = CONNECTING
        self._stream = stream
        try:
            decoder = FrameDecoder()
            await self._converse(stream, decoder)
        except FrameError as error:
            raise AgentError(f"its agent does not speak this protocol: {error}") from None
        finally:
            self._stream = None
            await stream.close()
        return True

    async def _open_unless_stopped(self) -> NodeStream | None:
        """Return None when the run ends first: an agent may take long to start. A stream that opens just when the run
        ends, or this is cancelled, is closed again: its agent would wait for a client that does not come."""
        opening = asyncio.ensure_future(self._open())
        is_taken = False
        try:
            await asyncio.wait((opening, self._stopped), return_when=asyncio.FIRST_COMPLETED)
            is_taken = opening.done()
            return opening.result() if is_taken else None
        finally:
            if not is_taken:
                await _close_unused(opening)

    async def _converse(self, stream: NodeStream, decoder: FrameDecoder) -> None:
        error: GadgetError | None = None
        self._asked = asyncio.get_running_loop().create_future()
        self._silent_for = 0.0
        self._unfinished = 0
        async with asyncio.TaskGroup() as tasks:
            others = [tasks.create_task(self._keep_alive(stream), name=f"heartbeat of {self.state.name}")]
            for index, tables in self._request.tables.items():
                name = f"tables of {self.state.name}"
                others.append(tasks.create_task(self._fill(stream, index, tables), name=name))
            try:
                await self._read(stream, decoder)
            except GadgetError as caught:  # raised below, outside of the task group, which would wrap it
                error = caught
            finally:
                for task in others:
                    task.cancel()
        if error is not None:
            raise error

    async def _read(self, stream: NodeStream, decoder: FrameDecoder) -> None:
        stream.take = partial(self._take, decoder)
        while not await self._read_once(stream, decoder):
            pass

    async def _read_once(self, stream: NodeStream, decoder: FrameDecoder) -> bool:
        """Handles what comes next; returns True at the end. What was read is not kept while more is awaited."""
        if not self._unfinished:
            self._heard_at = time.monotonic()
        self._waiting_since = self._heard_at
        data = await stream.receive()
        self._waiting_since = math.inf
        if not data:
            if self._silent_for:
                raise AgentError(f"no message from its agent for {self._silent_for:.0f} s")
            if not self._stopped.done():
                raise self._died(stream)
            if not self.state.attached:
                return True
            raise self._failure or AgentError("its agent did not answer at the end")
        # Else an agent that sends a byte now and then would never be silent.
        self._unfinished += len(data)
        if self._unfinished > _SOME_BYTES:
            self._unfinished = 0
        for frame in decoder.feed(data):
            self._unfinished = 0
            if frame.type == FrameType.EVENTS:
                await self._backlog.put(self._events(frame.payload))
            elif await self._handle(stream, frame):
                return True
        return False

    def _take(self, decoder: FrameDecoder, data: bytes) -> bool:
        """Takes a chunk that is one frame of events, without waking this node's tasks."""
        payload = decoder.only(data, FrameType.EVENTS)
        if payload is None or not self._backlog.has_room(len(payload)):
            return False
        try:
            item = self._events(payload)
        except FrameError:
            return False  # which the reader raises again
        self._heard_at = self._waiting_since = time.monotonic()
        self._unfinished = 0
        self._backlog.add(item)
        return True

    def _events(self, payload: bytes) -> Item:
        head, _ = split_events(payload)
        if not head.flags or head.flags & LAST:
            self._coverage.complete(head.gadget, head.complete_until)
        return Item(self.state.name, Events(payload), len(payload))

    def _died(self, stream: NodeStream) -> AgentError:
        """Builds the error for an agent that died. Its last line on stderr is the reason, also of a traceback."""
        said = stream.stderr_tail.strip().splitlines()
        for line in said[:-1]:
            self._progress.detail(self.state.name, line)
        return AgentError(f"its agent ended: {said[-1] if said else 'it printed nothing'}")

    async def _handle(self, stream: NodeStream, frame: Frame) -> bool:
        """Handles one frame. Returns True when it was the last one. Raises FrameError."""
        message = from_agent(frame)
        content: Content | None = None
        match message:
            case Hello():
                # Queued before RUN is sent: what this node sends is younger than everything in other nodes' frames
                # before this one.
                await self._backlog.put(Item(self.state.name, message, memory_of(frame.type, frame.payload)))
                await self._greet(stream, message)
            case Started():
                self._start(message)
                content = message
            case Stats():
                self.state.stats = content = message
                self._coverage.clocks(message)
            case Pong():
                content = self._round_trip(message)
            case End():
                return self._end(message)
            case WarningText():
                self._progress.note(self.state.name, message.message)
            case ContainerChanges() | StackNames():
                content = message
        if content is not None:
            await self._backlog.put(Item(self.state.name, content, memory_of(frame.type, frame.payload)))
        return False

    async def _greet(self, stream: NodeStream, hello: Hello) -> None:
        self.state.hello = hello
        if self._request.tables:
            self._addresses = _addresses(hello)
        self._check_kinds(hello)
        self._coverage.greeted(hello)
        if hello.agent != __version__:
            version = hello.agent or "unknown"
            what = f"its agent is version {version}, and this is {__version__}; some rows or counts may be missing"
            self._progress.note(self.state.name, f"{what}. try: kubectl gadget deploy")
        for one in hello.pins:
            if not one.held:
                from kubectl_gadget.agents.deployments import described  # 20 ms of each start

                what = f"{described(one, None)} are still in force, but no running agent owns them"
                remedy = "kubectl gadget undeploy --all-nodes removes them if their namespace no longer exists"
                self._progress.note(self.state.name, f"{what}; {remedy}")
        asked = b"" if self._is_asked else self._request.frames(self._gadgets(), self._filter, hello.architecture)
        await stream.send(self._next_beat() + asked)
        self.state.phase = ATTACHING
        if not self._asked.done():
            self._asked.set_result(None)

    def _gadgets(self) -> tuple[AnyGadget, ...]:
        """Returns RUN's gadgets, with the labels that this node needs before any policy is in force."""
        gadgets = list(self._request.gadgets)
        for index, tables in self._request.tables.items():
            if (labels := first_labels(tables.of(self.state.name))) is not None:
                gadgets[index] = gadgets[index].replace(labels=labels)
        return tuple(gadgets)

    async def _fill(self, stream: NodeStream, index: int, tables: LiveTables) -> None:
        """Fills a gadget's tables as soon as the gadget was requested, and keeps them up to date."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def has_changed() -> None:
            loop.call_soon_threadsafe(changed.set)

        end = tables.listen(has_changed)
        before = Contents()
        try:
            await asyncio.wait((self._asked,))
            while True:
                now = tables.of(self.state.name, self._addresses)
                for update in updates(index, before, now):
                    await stream.send(encode(FrameType.UPDATE, update.to_bytes()))
                before = now
                await changed.wait()
                changed.clear()
        except GadgetError:
            # The reader sees the same broken stream and reports it.
            return
        finally:
            end()

    def _check_kinds(self, hello: Hello) -> None:
        """Checks that the agent knows the kinds: an older one would run an unknown kind as a stream."""
        for gadget in self._request.gadgets:
            if gadget.kind not in hello.kinds:
                what = f"its agent (version {hello.agent or 'unknown'}) is too old for {gadget.name}"
                raise AgentError(what, "kubectl gadget deploy, which updates the agents")

    def _start(self, started: Started) -> None:
        is_first = not self._coverage.attached_ns
        gap = self._coverage.attached(len(self._request.gadgets), started)
        self.state.attached = self.state.ever_attached = True
        self.state.without = refused(started)
        if is_first and self._late:
            self._progress.node(self.state.name, "joined; tracing starts now")
        self.state.error = None
        if gap is not None:
            self._progress.node(self.state.name, f"reconnected; {gap.seconds:.1f} s of events are missing")
            self._end_gap(gap)
        for line in hook_lines(started):
            self._progress.detail(self.state.name, line)
        for line in method_lines(started):
            self._progress.node(self.state.name, line)
        if self._in_force:
            # Before the first row of this node, which comes after STARTED.
            since = self._coverage.began_ns + time.time_ns() - awake_or_not_ns()
            self._progress.node(self.state.name, f"in force since {rfc3339(since)[:23]}Z")
        self._on_change()

    def _round_trip(self, pong: Pong) -> RoundTrip | None:
        """Adds the client's own times of sending and receiving. None: no answer to a HEARTBEAT of this connection."""
        self._coverage.clocks(pong)
        sent = self._sent.pop(pong.id, None)
        if sent is None or pong.boot_ns is None or pong.realtime_ns is None:
            return None
        return RoundTrip(sent, time.time_ns(), pong.boot_ns, pong.realtime_ns)

    def _end(self, end: End) -> bool:
        self.state.stats = end.stats or self.state.stats
        if end.error is not None:
            message = ": ".join(filter(None, (end.error.what, end.error.why)))
            raise AgentError(message or "its agent failed", end.error.try_ or None)
        if end.reason == "signal":
            why = ", for example because its pod was deleted" if self._reconnect else ""
            raise AgentError(f"its agent was stopped{why}")
        if end.reason != "stop":
            raise AgentError(f"its agent ended by itself ({end.reason})")
        return True

    async def _keep_alive(self, stream: NodeStream) -> None:
        """Sends heartbeats until stopped, then STOP, and waits a bounded time for END."""
        try:
            while not self._stopped.done():
                await self._pause(HEARTBEAT_SECONDS)
                if await self._is_silent():
                    await stream.close()
                    return
                if not self._stopped.done() and self.state.hello is not None:
                    await stream.send(self._next_beat())
            self._stop_sent_ns = awake_or_not_ns()
            await stream.send(encode(FrameType.STOP, b"{}"))
            await asyncio.sleep(END_SECONDS)
        except GadgetError:
            # The reader sees the same broken stream and reports it.
            return
        await stream.close()

    async def _is_silent(self) -> bool:
        """True if no frame has come for too long. A busy event loop may just not have read it yet, so it gets another
        turn first."""
        since = self._waiting_since
        limit = SILENCE_SECONDS if self.state.attached else HELLO_SECONDS
        if time.monotonic() - since < limit or self._stopped.done():
            return False
        await asyncio.sleep(ANOTHER_LOOK_SECONDS)
        if since == self._waiting_since:
            self._silent_for = limit
        return self._silent_for > 0

    def _next_beat(self) -> bytes:
        self._beats += 1
        self._sent[self._beats] = time.time_ns()
        return encode(FrameType.HEARTBEAT, Heartbeat(id=self._beats).to_bytes())


async def _close_unused(opening: asyncio.Future[NodeStream]) -> None:
    """Cancel the opening of a stream, and close the stream if it is too late for that."""
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().close()


def _settle(future: asyncio.Future[None], _: object = None) -> None:
    if not future.done():
        future.set_result(None)


def _addresses(hello: Hello) -> tuple[str, ...]:
    """Returns the node's own addresses, as ipaddress formats them. Raises FrameError."""
    try:
        return tuple(str(ip_address(text)) for text in hello.addresses)
    except ValueError as error:
        raise FrameError(f"Hello: `addresses`: {error}") from None
