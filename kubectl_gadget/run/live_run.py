"""A run on nodes from beginning to end: check, find nodes, stream, show, stop, clean up, summarize, exit code.

The first Ctrl-C ends the run in order (detach, drain, clean up, summary), and the next one exits immediately. Nothing
here may wait for long after the first one. The module is long, since each of these steps needs the state of the run.
"""

import asyncio
import gc
import io
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, TextIO

from kubectl_gadget.background_tasks import Tasks, cancel
from kubectl_gadget.errors import AgentError, GadgetError
from kubectl_gadget.kube import read_turns
from kubectl_gadget.output.terminal import reader_is_gone, reading_keys
from kubectl_gadget.run import coverage, summary
from kubectl_gadget.run.backlog import Backlog, FrameSource, Item, LiveFrames, Selected, StepMark
from kubectl_gadget.run.coverage import EXPECTATION_FAILED, Cause, Coverage, NodeCoverage, awake_or_not_ns
from kubectl_gadget.run.node import NodeSession, NodeState
from kubectl_gadget.run.participants import LocalNodes, NodeChange, Nodes
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.request import RunRequest, early_request
from kubectl_gadget.run.run_options import RunOptions, RunRecorder
from kubectl_gadget.run.services import Interrupts, Surroundings, catch, how_to_end

if TYPE_CHECKING:  # modules that need numpy
    from kubectl_gadget.rows.containers import Container
    from kubectl_gadget.run.pipeline import Pipeline, PipelineEvents
    from kubectl_gadget.run.preparation import Preparation

_STOP_SECONDS = 4.0
"""A run that stops abandons nodes after this time, whatever they send. It waits, since they may still hold events
that they could not send before; each session ends a moment earlier (node.END_SECONDS)."""
_LAST_WORK_SECONDS = 4.0
"""CPU time for events that are received but not shown when the run stops, beside the wait for nodes."""
_READER_SECONDS = 0.5
"""Time between two checks whether the output still has a reader."""
_NEW_OBJECTS = 2_000
"""The threshold of the garbage collector during a run: Python 3.13's default. cli/main.py raises it for imports."""
_FREEZE_CHANGES = 100
"""During attachment, gc.freeze() runs after this many changes of nodes, so that later collections skip old objects."""
_ANSWER_SECONDS = 30.0
"""Time limit for a node's snapshot, unless --timeout is given."""
_REASON_SECONDS = 5.0
"""Time between --start-timeout and the end of a run that traces nothing."""
_WAIT_SECONDS = 5.0
"""Time between two messages about nodes that are not attached yet."""


def choose_nodes(options: RunOptions, progress: Progress) -> Nodes:
    """Chooses this machine or the cluster. Raises GadgetError."""
    if options.local:
        return LocalNodes(options.selection, not options.local_by_default, options.beforehand)
    from kubectl_gadget.run.cluster_nodes import ClusterNodes

    return ClusterNodes(options, progress)


@asynccontextmanager
async def begin(
    options: RunOptions,
    progress: Progress,
    shown: TextIO | None = None,
    creating_record: AbstractContextManager[object] | None = None,
) -> "AsyncIterator[LiveRun]":
    """Checks all of the user's input, and creates the recording, within `creating_record`. `shown` is where rows are
    printed, and the run ends when its reader closes it; None: they are not printed. Background tasks of the run end
    with the block. Raises GadgetError."""
    gc.set_threshold(_NEW_OBJECTS)
    recorder = None
    if options.record is not None:
        recorder = options.record(options)
        options = recorder.options
    nodes = choose_nodes(options, progress)
    run: LiveRun | None = None
    early: list[GadgetError] = []
    async with Tasks(lambda error: early.append(error) if run is None else run.fail(error)) as tasks:
        try:
            await nodes.begin(tasks)
            preparing = asyncio.create_task(
                asyncio.to_thread(_prepare, options, shown or io.StringIO()), name="prepare"
            )
            # In parallel, nodes are found, and sessions of agents that already run are started. Where only the request
            # has to be checked, they attach without waiting for numpy.
            request = early_request(options) or (await preparing).request
            if recorder is not None:
                with creating_record or nullcontext():
                    recorder.create(progress.warn)
        except BaseException:
            await nodes.close()
            raise
        run = LiveRun(options, nodes, tasks, request, preparing, progress, shown, recorder)
        for error in early:
            run.fail(error)
        yield run


def _prepare(options: RunOptions, shown: TextIO) -> "Preparation":
    from kubectl_gadget.run.preparation import prepare  # takes 0.1 s, mostly for numpy

    return prepare(options, shown)


class LiveRun:
    """Runs all nodes of one run in the current event loop. `main` may be called once."""

    def __init__(
        self,
        options: RunOptions,
        nodes: Nodes,
        tasks: Tasks,
        request: RunRequest,
        preparing: "asyncio.Task[Preparation]",
        progress: Progress,
        stdout: TextIO | None = None,
        recorder: RunRecorder | None = None,
    ) -> None:
        """`tasks` owns the run's background tasks. `preparing`: what shows rows, perhaps only after nodes are attached.
        `stdout`: the run ends when its reader closes it, also when there is nothing to write."""
        self._recorder = recorder
        self._options = options
        self._stdout = stdout
        self._nodes = nodes
        self._tasks = tasks
        self._request = request
        self._preparing = preparing
        self._progress = progress
        self._states: dict[str, NodeState] = {}
        self._sessions: dict[str, NodeSession] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._attached = asyncio.Event()
        self._interrupts = Interrupts()
        self._failure: GadgetError | None = None
        self._watching = True
        self._began_ns = awake_or_not_ns()
        self._wall_ns = time.time_ns() - self._began_ns
        """what that clock is advanced by to show wall time; not read again, so that all times have one order"""
        self._complete_ns = self._ended_ns = 0
        """when all nodes of the first selection were attached or had failed, or --start-timeout was over; and when the
        run was to stop. 0: not yet"""
        self._starts_until: float | None = None
        """when --start-timeout is over (monotonic seconds), while that is awaited"""
        self._gave_up_waiting = False
        self._announced = False
        self._pending: list[NodeState] = []
        """nodes that were neither attached nor failed when last looked"""
        self._changes = 0
        """of nodes, until all are attached"""
        self._reported: set[str] = set()
        self._backlog: Backlog | None = None
        self._once = options.gadgets[0].gadget.kind == "snapshot"
        self._captures = options.gadgets[0].gadget.kind == "recorder"
        """True if the gadget sends what came before a trigger or on request"""
        self._has_keys = self._captures or bool(recorder and recorder.has_ring)
        self._in_force = summary.enforces(options)
        self._answered: set[str] = set()
        self._asked: set[str] = set()
        self.coverage = Coverage()
        """who was traced, from when, to when; set when the run is over, as are the next four"""
        self.seconds = 0.0
        """seconds for which everything was traced"""
        self.lost = self.unnamed = 0
        """lost: missing events; unnamed: the part of them that belongs to no container with a name"""
        self.watched: list[Container] = []

    @property
    def record_problem(self) -> str:
        """The problem of the recording after the run; empty: there is none, or no recording."""
        return self._recorder.problem if self._recorder is not None else ""

    @property
    def states(self) -> Mapping[str, NodeState]:
        """The nodes that took part, by name."""
        return self._states

    async def main(self, keyboard: TextIO | None = None) -> int:
        """Returns the exit code of the run. Keys are read from `keyboard` if it is a terminal. Raises GadgetError,
        after cleaning up, when the run could not begin."""
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as services:
            try:
                if not self._options.is_part:
                    catch(self._interrupt, "SIGINT", "SIGTERM", "SIGHUP")
                if self._has_keys and hasattr(signal, "SIGUSR1"):
                    self._loop.add_signal_handler(signal.SIGUSR1, self._show)
                if self._recorder is not None:
                    self._recorder.stop_with(
                        lambda: self._loop.call_soon_threadsafe(self._stop, "the recording has ended")
                    )
                for service in self._options.services:
                    surroundings = Surroundings(
                        self._tasks,
                        self._nodes.api,
                        self._attached,
                        self._stop,
                        self._mark,
                        self._completed_at,
                        lambda: self._covered(0),
                        lambda: {state.name: state.phase for state in self._states.values() if state.is_pending},
                    )
                    await services.enter_async_context(service(surroundings))
            except BaseException:
                await self._nodes.close()
                raise
            pipeline = await self._trace(keyboard)
        return self._conclude(pipeline)

    async def _trace(self, keyboard: TextIO | None) -> "Pipeline":
        """Returns the pipeline after its last row."""
        backlog, recorder = Backlog(self._options.buffer_bytes), self._recorder
        self._backlog = backlog
        showing = asyncio.create_task(self._show_rows(backlog, keyboard), name="pipeline")  # awaited below
        try:
            await self._stream(backlog)
        finally:
            backlog.close()
            pipeline, _ = results = await asyncio.gather(showing, self._nodes.close(), return_exceptions=True)
            for name, size in backlog.left_out.items():
                what = f"{size / 1e6:,.1f} MB from it were not read: they arrived faster than they could be shown"
                self._states[name].error = self._states[name].error or AgentError(what, "--filter, or fewer pods")
            unattributed = 0 if isinstance(pipeline, BaseException) else pipeline.attribution.unattributed
            self.coverage = self._covered(unattributed)
            self.seconds = self.coverage.seconds
            if recorder is not None and (said := await asyncio.to_thread(recorder.close, self._states, self.coverage)):
                self._progress.say(said)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return showing.result()

    def _completed_at(self) -> int:
        """Return when all nodes were attached or had failed, in wall time; 0: not yet."""
        return self._complete_ns and self._complete_ns + self._wall_ns

    def _covered(self, unattributed: int) -> Coverage:
        """Return who was traced, from when, to when, once all nodes are detached."""
        wall, options = self._wall_ns, self._options
        skipped = self._nodes.skipped().items()
        return Coverage(
            selected=options.selection.described(options.local),
            absent=self._nodes.absent(),
            gadgets=tuple(run.gadget.name for run in options.gadgets),
            began_ns=self._began_ns + wall,
            complete_ns=self._completed_at(),
            ended_ns=(self._ended_ns or awake_or_not_ns()) + wall,
            interrupted=self._interrupts.signal is not None,
            nodes=(
                *(state.covered(wall, summary.lost(state)) for state in self._states.values()),
                *(
                    NodeCoverage(name=name, cause=Cause.SKIPPED, why=why)
                    for name, why in skipped
                    if name not in self._states
                ),
            ),
            unattributed=unattributed,
        )

    async def _show_rows(self, backlog: Backlog, keyboard: TextIO | None) -> "Pipeline":
        try:
            preparation = await self._preparing
            frames: FrameSource = LiveFrames(backlog)
            wants: Callable[[str, str], bool | None] = self._nodes.wants
            if self._recorder is not None:
                frames, wants = self._recorder.frames(frames), self._recorder.wants(wants)
            pipeline = preparation.pipeline(frames, wants, self._events())
            pressed = preparation.sink.take_keys(self.quit) or (self._key if self._has_keys else None)
            with reading_keys(keyboard, pressed):
                await asyncio.to_thread(pipeline.run)
            return pipeline
        finally:
            self._stop("no more rows are shown")

    def _mark(self, mark: StepMark) -> None:
        if self._backlog is not None:
            self._backlog.add(Item("", mark))

    def quit(self) -> None:
        """Ends the run as if its time were over. May be called from any thread."""
        if self._running:
            self._loop.call_soon_threadsafe(self._stop, "quit")

    def fail(self, error: GadgetError) -> None:
        """Ends the run with an error of one of its background tasks."""
        self._failure = self._failure or error
        self._stop("a background task failed")

    def _key(self, key: str) -> None:
        """Handles a key press. May be called from any thread."""
        if key in ("s", "\n", "\r"):
            self._loop.call_soon_threadsafe(self._show)
        elif key == "q":
            self.quit()

    def _show(self) -> None:
        if self._recorder is not None:
            self._recorder.keep("requested by a key or signal")
        for session in self._sessions.values():
            self._tasks.start(session.show(), "show what was recorded")

    def _events(self) -> "PipelineEvents":
        from kubectl_gadget.run.pipeline import PipelineEvents

        call = self._loop.call_soon_threadsafe
        return PipelineEvents(
            stop=lambda why: call(self._stop, why),
            node_broke=lambda node, error: call(self._break, node, error),
            warn=lambda message: call(self._progress.warn, message),
            answered=lambda node: call(self._has_answered, node),
        )

    async def _stream(self, backlog: Backlog) -> None:
        """Runs until the run is stopped. All nodes are detached when it returns."""
        watcher = self._tasks.start(self._watch(backlog), "nodes of the run")
        reading = self._tasks.start(self._watch_reader(), "reader of the output")
        try:
            await self._stopped.wait()
            await cancel(watcher, reading)
            for session in self._sessions.values():
                session.stop()
            backlog.end_within(_LAST_WORK_SECONDS)
            if self._running:
                await asyncio.wait(self._running, timeout=_STOP_SECONDS)
        finally:
            await cancel(watcher, reading, *self._running)

    async def _watch(self, backlog: Backlog) -> None:
        async for change in self._nodes.watch(self._tasks):
            for name, agent_filter in change.filters.items():
                backlog.add(Item(name, Selected(agent_filter)))
            await self._apply(change, backlog)
        self._watching = False
        self._check()

    async def _watch_reader(self) -> None:
        while self._stdout is not None:
            if reader_is_gone(self._stdout):
                self._stop("output ended")
            await asyncio.sleep(_READER_SECONDS)

    async def _apply(self, change: NodeChange, backlog: Backlog) -> None:
        for name in change.remove:
            if (leaving := self._sessions.pop(name, None)) is not None:
                self._states[name].left = True
                leaving.stop()
        for name, agent_filter in change.filters.items():
            if (known := self._sessions.get(name)) is not None:
                await known.set_filter(agent_filter)
        for name, open_stream in change.add.items():
            state = self._states.setdefault(name, NodeState(name))
            state.error, state.left = None, False
            session = NodeSession(
                state,
                open_stream,
                self._request,
                change.filters[name],
                backlog,
                self._progress,
                self._check,
                self._nodes.reconnect,
                late=self._announced and not self._once,
                is_asked=self._nodes.is_asked,
                in_force=self._in_force,
            )
            self._sessions[name] = session
            task = self._tasks.start(session.run(), f"session of {name}")
            self._running.add(task)
            task.add_done_callback(self._session_ended)
        if not self._sessions:
            self._set_complete()
        elif self._starts_until is None and not self._complete_ns:
            seconds = self._options.agent.start_timeout
            self._starts_until = time.monotonic() + seconds
            self._tasks.start(self._await_starts(seconds), "start of the nodes' agents")

    async def _await_starts(self, seconds: float) -> None:
        """Say every few seconds what the run waits for, until all nodes are attached or have failed, or time is over.
        Then what is attached is traced, and the others may still join."""
        assert self._starts_until is not None
        while not self._complete_ns and (left := self._starts_until - time.monotonic()) > 0:
            await asyncio.sleep(min(_WAIT_SECONDS, left))
            if not self._complete_ns and (left := self._starts_until - time.monotonic()) > 0:
                self._progress.say(f"waiting for {self._waited_for()}; {left:.0f} s left (--start-timeout)")
        if self._complete_ns:
            return
        for state in self._states.values():
            if state.is_pending:
                state.late_by = seconds
        self._gave_up_waiting = True
        if any(state.attached for state in self._states.values()):
            self._progress.warn(f"no longer waiting for {self._waited_for()}")
            self._check()
            return
        # Whoever starts the agents gives up soon after, and knows why they do not start.
        await asyncio.sleep(_REASON_SECONDS)
        if not any(state.attached for state in self._states.values()):
            self._stop("no agent started in time")

    def _waited_for(self) -> str:
        """Return which nodes are neither attached nor failed, and what they do."""
        phases: dict[str, list[str]] = {}
        for state in self._states.values():
            if state.is_pending:
                phases.setdefault(state.phase, []).append(state.name)
        return "; ".join(f"{coverage.listed(names)} ({phase})" for phase, names in phases.items())

    def _session_ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._check()

    def _check(self) -> None:
        """After every change of a node, checks whether everything is attached, or everything is over."""
        states = self._states.values()
        if not self._announced:
            self._changes += 1
            if self._changes % _FREEZE_CHANGES == 0:
                gc.freeze()
        if not self._complete_ns and self._is_settled():
            self._set_complete()
        if not self._announced and self._complete_ns and any(state.attached for state in states):
            self._announced = True
            self._attached.set()
            attached = sum(state.attached for state in states)
            if not self._once:
                does = "show what is recorded" if self._captures else "write what is kept"
                keys = f"press s or run kill -USR1 {os.getpid()} to {does}, " if self._has_keys else ""
                where = self._nodes.where(attached, len(states))
                if missing := [state.name for state in states if not state.attached]:
                    where += f" (not on {coverage.listed(missing)})"
                ends = "" if self._options.on_signal else f"; {keys}{how_to_end()}"
                self._progress.say(f"{summary.doing(self._options)} on {where}{ends}")
        if self._announced:
            self._report_failures()
        over = not self._running and (not self._watching or (states and all(state.error for state in states)))
        if self._once:
            self._check_answers()
        if over:
            self._stop("no node is left")

    def _is_settled(self) -> bool:
        """Return whether each node is attached or has failed, or time is over. Called for each of thousands of nodes,
        so it looks at all of them only when those that were pending are no longer."""
        if self._gave_up_waiting:
            return True
        states = self._states.values()
        while self._pending and not self._pending[-1].is_pending:
            self._pending.pop()
        if not self._pending:
            self._pending = [state for state in states if state.is_pending]
        return not self._pending and bool(states)

    def _has_answered(self, node: str) -> None:
        self._answered.add(node)
        self._check()

    def _check_answers(self) -> None:
        """Checks whether a snapshot is complete. Each node has the same time, counted from when it is attached."""
        for name, state in self._states.items():
            if state.attached and name not in self._asked:
                self._asked.add(name)
                self._loop.call_later(self._options.timeout or _ANSWER_SECONDS, self._give_up_waiting, name)
        states = self._states.items()
        if states and all(
            name in self._answered or state.error or (state.is_pending and state.late_by is not None)
            for name, state in states
        ):
            self._stop("all have answered")

    def _give_up_waiting(self, name: str) -> None:
        """Reports the node as failed, and shows the others' rows."""
        state, seconds = self._states[name], self._options.timeout or _ANSWER_SECONDS
        if name not in self._answered and state.error is None:
            state.error = AgentError(f"no answer within {seconds:g} s", "--timeout with a longer time")
            self._break(name, state.error)
            self._check()

    def _break(self, node: str, error: GadgetError) -> None:
        if (session := self._sessions.get(node)) is not None:
            session.fail(error)

    def _report_failures(self) -> None:
        """Reports nodes that were given up, once each. A failure of all nodes is reported at the end instead."""
        for name, state in self._states.items():
            if state.given_up and name not in self._reported:
                self._reported.add(name)
                self._progress.node(name, f"failed: {state.error}")

    def _set_complete(self) -> None:
        """All that can be traced now is traced: --timeout counts from here."""
        if self._complete_ns:
            return
        self._complete_ns = awake_or_not_ns()
        if self._once:
            if not self._sessions:
                self._stop("there are no nodes")
        elif self._options.timeout is not None:
            self._loop.call_later(self._options.timeout, self._stop, "timeout")

    def _stop(self, reason: str) -> None:
        if not self._stopped.is_set():
            self._progress.debug(f"stopping: {reason}")
            self._ended_ns = awake_or_not_ns()
            self._stopped.set()

    def _interrupt(self, number: int) -> None:
        if self._options.on_signal is not None and self._options.on_signal(number):
            return
        if self._interrupts.take(number):
            self._progress.warn("stopped immediately; started agents exit by themselves and remove their programs")
            os._exit(128 + number)
        self._stop("signal")

    def _conclude(self, pipeline: "Pipeline") -> int:
        states, covered, attribution = self._states, self.coverage, pipeline.attribution
        self.watched = pipeline.watched()
        self.lost, self.unnamed = summary.missing(states, attribution.unattributed), attribution.unnamed
        is_traced, interrupted = bool(covered.traced), self._interrupts.signal
        if self._failure is not None and not is_traced:
            raise self._failure
        if covered.nodes and not is_traced and interrupted is None:
            raise summary.none_ran(covered)
        noun, ending = summary.noun(self._options.gadgets[0].gadget), pipeline.ending
        for line in summary.lines(covered, states, ending.shown, pipeline.skew_ns, noun, pipeline.collector.late):
            self._progress.say(line)
        summary.say_exported(pipeline.export, self._progress)
        if hint := ending.cut_off.hint():
            self._progress.say(f"  {hint}")
        if self._failure is not None:
            raise self._failure
        selection = self._options.selection
        if self._options.local and not selection.host and not self.watched and not ending.shown.total():
            self._progress.say(summary.why_nothing(selection))
        if self._options.transform is not None:
            for note in self._options.transform.notes():
                self._progress.warn(note)
        reasons = coverage.texts(coverage.doubts(covered))
        reason, code = ending.outcome(reasons)
        if reason:
            self._progress.warn(reason)
        if code == EXPECTATION_FAILED:
            return code
        if interrupted is not None:
            return 128 + interrupted
        if code:
            return code
        reasons = (*reasons, *(pipeline.export.losses() if pipeline.export else ()))
        if self._options.strict and reasons:
            self._progress.warn(f"--strict: the trace is not complete: {coverage.some(reasons)}")
            return 1
        return int(coverage.has_failed(covered) or bool(self._recorder and self._recorder.has_failed))


def run_to_end(
    options: RunOptions, progress: Progress, has_seen: Callable[[LiveRun], bool]
) -> tuple[LiveRun, int, str]:
    """Run until the time is over or Ctrl-C, for features that only show what they have seen at the end.

    Return the run, its exit code (0 for Ctrl-C), and why it ended early, "" if it did not. Raises GadgetError if it
    could not begin, traced nothing, or ended early and has seen nothing.
    """

    async def main() -> tuple[LiveRun, int, str]:
        async with begin(options, progress) as run:
            try:
                return run, await run.main(), ""
            except GadgetError as error:
                if not has_seen(run):
                    raise
                # What was seen until then may be hours of work.
                early = f"watching ended early: {error}"
                progress.warn(early)
                return run, error.exit_code, early

    run, code, early = read_turns.run(main())
    if not run.coverage.traced:
        error = GadgetError("nothing was traced, so there is no result", "wait for 'press Ctrl-C to stop'")
        error.exit_code = code or 1
        raise error
    return run, 0 if code == 128 + signal.SIGINT else code, early
