"""One CI run: attaches, starts COMMAND, marks steps, ends after COMMAND, and makes the report.

Gaps, failed nodes, and nodes that were attached after COMMAND began have to reach `incomplete`, in the recording as
well, or a run that saw nothing would be green.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from posixpath import basename
from typing import TYPE_CHECKING, TextIO

from kubectl_gadget.behavior.run import MISSING
from kubectl_gadget.ci.checks import CheckOrder, DiagnosisOrder, RunChecks, TracedRun
from kubectl_gadget.ci.command import Command, LeftRunning, writing_as
from kubectl_gadget.ci.steps import Marks, Request, serving, step_answer
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.output.escape import for_log, printable
from kubectl_gadget.recording.recorded_run import JOB, JobEnd
from kubectl_gadget.reports.model import RunReport, SeenProcess
from kubectl_gadget.run.backlog import StepMark
from kubectl_gadget.run.coverage import Coverage, Doubt, doubts, where
from kubectl_gadget.run.live_run import begin
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.request import local_filter
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.run.services import Surroundings
from kubectl_gadget.wording import count

if TYPE_CHECKING:
    from kubectl_gadget.ci.fact_checks import BehaviorOrder
    from kubectl_gadget.diagnose.search import Search
    from kubectl_gadget.kube.informer import Follower
    from kubectl_gadget.recording.places import PathOrUrl
    from kubectl_gadget.run.live_run import LiveRun

_LONGEST_COMMAND = 200
_END_SECONDS = 2.0
"""for processes that COMMAND started and that end with it"""
_PREFIX = "kubectl gadget: "
_DAEMONS = {
    **dict.fromkeys(("docker", "docker-compose", "docker-buildx", "buildctl", "kind", "k3d"), "containers"),
    **dict.fromkeys(("nerdctl", "ctr", "crictl"), "containers"),
    **dict.fromkeys(("systemd-run", "systemctl", "machinectl", "at", "batch"), "processes"),
}
"""By the program that asks: what a daemon starts for it. podman and buildah start containers themselves."""
_WARNINGS_OF_LOSS = ("--descendants",)
"""The beginnings of agents' notes about missing data"""


@dataclass(frozen=True)
class CiOrder:
    """The checks of a CI run, and the command that runs during it."""

    folder: Path
    """of the socket"""
    command: Command | None = None
    """None: until `ci stop`"""
    users: frozenset[int] | None = None
    """who may mark steps; None: whoever can reach the socket"""
    linger: float = 0
    """seconds to go on after COMMAND"""
    checks: CheckOrder = field(default_factory=CheckOrder)
    attached: Callable[[], object] = lambda: None
    """called when everything is attached and there is no COMMAND"""


class NotStarted(GadgetError):
    """The run was stopped before COMMAND began."""

    def __init__(self, code: int) -> None:
        super().__init__("stopped before everything was attached: nothing was checked, and COMMAND was not started")
        self.exit_code = code or 1


class CiProgress(Progress):
    """Marks our lines in the output of a job, and notes what agents say is missing."""

    def __init__(self, stream: TextIO, quiet: bool, verbose: bool) -> None:
        super().__init__(stream, quiet, verbose)
        self.missing: list[str] = []
        self.silent = False
        """the summary that every run prints is part of the report here"""

    def say(self, message: str) -> None:
        if not self.silent:
            super().say(message)

    def note(self, node: str, message: str) -> None:
        if message.startswith(_WARNINGS_OF_LOSS):
            self.missing.append(f"{node}: {message}")
        super().note(node, message)

    def warn(self, message: str) -> None:
        for line in message.splitlines():
            super().warn(_PREFIX + for_log(line))


class CiRun:
    """One run. `main` is called once."""

    def __init__(self, options: RunOptions, order: CiOrder, stderr: TextIO) -> None:
        self._order = order
        self._progress = CiProgress(stderr, options.quiet, options.verbose)
        self._marks = Marks()
        self._stop: Callable[[str], object] = lambda why: None
        self._mark: Callable[[StepMark], object] = lambda mark: None
        self._created = time.monotonic()
        self._began = self._ended = 0.0
        """monotonic seconds"""
        self._began_ns = 0
        self._code: int | None = None
        self._over = asyncio.Event()
        self._hurry = asyncio.Event()
        """a signal came after COMMAND had ended"""
        self._given_up = False
        """a signal came before everything was attached; a session that just attaches may still do it"""
        self._left = 0
        self._tracing_ended_at: float | None = None
        events = [run.gadget.event for run in options.gadgets]
        self._search = None if (rules := order.checks.diagnosis) is None else search_of(rules, options, self._progress)
        self._checks = RunChecks(order.checks, events, self._marks, lambda: self._began_ns, self._search)
        searching = () if self._search is None else (partial(self._search.serve, needs_pods=False),)
        self._options = replace(
            options,
            services=(*options.services, *searching, self._serve),
            followers=(*options.followers, *self._followers(options)),
            on_signal=self._on_signal,
            make_sink=lambda gadgets, *_: self._checks.sink(gadgets),
            ending=self._ending,
            fail_on=None,
            expect=None,
            doing="tracing",
        )

    async def main(self) -> RunReport:
        """Runs until COMMAND has ended, or until it is stopped. Raises GadgetError when nothing could be traced, and
        COMMAND was not started."""
        command = self._order.command
        failure, code, writing = None, 0, writing_as(command.user if command else None)
        async with begin(self._options, self._progress, None, writing) as run:
            try:
                code = await run.main()
            except GadgetError as error:
                if not self._began:
                    raise
                failure = error
        if not self._began:
            raise NotStarted(code)
        # Without a cluster, rows of unknown containers are rows like others, unless some containers were selected.
        lost = run.lost - (run.unnamed if self._has_unnamed else 0)
        report = self._report(run, lost, failure)
        return replace(report, failures=(run.record_problem,)) if run.record_problem else report

    @asynccontextmanager
    async def _serve(self, surroundings: Surroundings) -> AsyncIterator[None]:
        self._stop, self._mark = surroundings.stop, surroundings.mark
        async with serving(self._order.folder, self._answer, self._order.users):
            surroundings.tasks.start(self._conduct(surroundings), "COMMAND")
            try:
                yield
            finally:
                await self._finish()

    async def _finish(self) -> None:
        """COMMAND is never left running by itself, even if the tracing has ended before it."""
        command = self._order.command
        if command is not None and command.started and not self._over.is_set():
            self._tracing_ended_at = time.monotonic()
            self._progress.warn("the tracing ended before COMMAND")
            await self._over.wait()

    async def _conduct(self, surroundings: Surroundings) -> None:
        await surroundings.attached.wait()
        if self._given_up:
            return
        self._began, self._began_ns = time.monotonic(), time.time_ns()
        took, command = f"attached after {self._began - self._created:.1f} s", self._order.command
        if command is None:
            self._progress.say(took)
            self._order.attached()
            return
        self._progress.say(f"{took}; starting {printable(' '.join(command.words), _LONGEST_COMMAND)}")
        left = LeftRunning() if self._options.local and self._options.selection.host else None
        command.start()
        if command.problem:
            self._progress.warn(f"error: {command.problem}")
        # Cancelling this task must not lose the exit code.
        await asyncio.shield(asyncio.ensure_future(self._wait(command, left)))

    async def _wait(self, command: Command, left: LeftRunning | None) -> None:
        reaping = None if left is None else asyncio.ensure_future(left.reap())
        self._code = await command.wait()
        self._ended = time.monotonic()
        self._progress.debug(f"COMMAND has ended with exit code {self._code}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._order.linger)
        if left is not None and reaping is not None:
            reaping.cancel()
            self._left = await left.wait(0 if self._hurry.is_set() else max(0, _END_SECONDS - self._order.linger))
            left.close()
            if self._left and not self._order.checks.judges:
                self._progress.warn(_left_running(self._left))
        self._progress.silent = True
        self._over.set()
        self._stop("COMMAND has ended")

    async def _answer(self, request: Request) -> dict[str, object]:
        if "stop" in request and self._order.command is None:
            if self._ended:
                return {"stopping": True, "earlier": True}
            self._ended = time.monotonic()
            self._progress.silent = True
            self._stop("ci stop")
            await asyncio.sleep(0)
            return {"stopping": True}
        found = step_answer(self._marks, request)
        self._mark(StepMark(self._marks.names[-1], self._marks.times_ns[-1]))
        self._progress.say(f"step: {found['step']}")
        return found

    def _on_signal(self, number: int) -> bool:
        """COMMAND decides what a signal means."""
        command = self._order.command
        if command is None or not command.started or self._over.is_set():
            self._given_up = True
            return False
        if command.ended:
            self._hurry.set()
        command.forward(number)
        return True

    def _followers(self, options: RunOptions) -> "Iterator[Follower]":
        if self._checks.behavior is not None and not options.local:
            yield self._checks.behavior.seen.follower(MISSING)

    @property
    def _has_unnamed(self) -> bool:
        return has_unnamed(self._options.local, self._options.selection, self._order.checks.behavior)

    def _report(self, run: "LiveRun", lost: int, failure: GadgetError | None) -> RunReport:
        command = self._order.command
        seconds = (self._ended or time.monotonic()) - self._began
        incomplete = self._incomplete(run.coverage, failure)
        gadgets = [run.gadget.event for run in self._options.gadgets]
        where = _where(self._order, self._options, run.coverage)
        seen = TracedRun(
            where, self._began_ns, seconds, run.coverage, lost, run.watched, tuple(incomplete), tuple(gadgets)
        )
        return replace(
            self._checks.report(seen),
            command=command.words if command else (),
            command_code=self._code,
            warnings=self._warnings(),
            recording=_place(self._options.recorded_in),
        )

    def _ending(self, coverage: Coverage) -> Mapping[str, object]:
        """Return the data about the run that the recording keeps for `ci judge`."""
        if not self._began:
            return {}
        command = self._order.command
        unfinished = command is not None and not self._over.is_set()
        ended = JobEnd(
            where=_where(self._order, self._options, coverage),
            began_ns=self._began_ns,
            elapsed_ns=int(((self._ended or time.monotonic()) - self._began) * 1e9),
            incomplete=(
                *(["the tracing ended before COMMAND"] if unfinished else []),
                *([_left_running(self._left)] if self._left and not self._order.checks.judges else []),
                *self._incomplete(coverage, None),
            ),
            has_unnamed=self._has_unnamed,
        )
        return {JOB: ended.to_json(), **({} if self._search is None else self._search.ending(coverage))}

    def _warnings(self) -> tuple[str, ...]:
        of_command = self._order.checks.pid is not None
        return tuple(not_followed(self._checks.activity.processes.values())) if of_command else ()

    def _incomplete(self, coverage: Coverage, failure: GadgetError | None) -> Iterator[str]:
        """Return why events are missing that agents did not count as lost."""
        if failure is not None:
            yield f"the tracing failed: {failure}"
        if self._tracing_ended_at is not None:
            yield f"the tracing ended {self._ended - self._tracing_ended_at:.1f} s before COMMAND"
        if self._order.command is None and not self._ended:
            yield "the tracing ended before kubectl gadget ci stop"
        if self._left and self._order.checks.judges:
            yield _left_running(self._left)
        yield from uncounted(coverage, self._began_ns)
        yield from self._progress.missing


def search_of(order: DiagnosisOrder, options: RunOptions, progress: Progress) -> "Search":
    """Return the search for causes of a run, or of the recordings of `options`."""
    from kubectl_gadget.diagnose.search import Search  # reads rules, which few runs need

    return Search(order.rules, options, progress)


def _place(recorded_in: "PathOrUrl | None") -> str:
    """Return where the recording is, also for a process with another current folder."""
    return "" if recorded_in is None else str(recorded_in.absolute() if isinstance(recorded_in, Path) else recorded_in)


def has_unnamed(local: bool, selection: Selection, facts: "BehaviorOrder | None" = None) -> bool:
    """True if rows of containers that the agent could not name are judged like the run's other rows."""
    if facts is not None and facts.subject.needs_names:
        return False
    chosen = local_filter(selection)
    return local and chosen.namespaces is None and chosen.pods is None and chosen.containers is None


def _left_running(number: int) -> str:
    return (
        f"{count(number, 'process', 'processes')} that COMMAND started still ran when the tracing ended: "
        "let COMMAND wait for them or end them, or use --linger"
    )


def uncounted(coverage: Coverage, since_ns: int = 0) -> Iterator[str]:
    """Yield why events are missing that were not counted as lost: `since_ns` is when COMMAND began."""
    return (reason.text for reason in doubts(coverage, since_ns) if reason.doubt is not Doubt.LOST)


def _where(order: CiOrder, options: RunOptions, coverage: Coverage) -> str:
    if not options.local:
        return f"{options.selection.described()} on {where(coverage)}"
    what = "all processes" if options.selection.host else options.selection.described()
    if (pid := order.checks.pid) is not None:
        what = "the processes that the command started" if order.command else f"the descendants of {pid}"
    return f"{what} on {', '.join(node.name for node in coverage.traced)}"


def not_followed(processes: Iterable[SeenProcess]) -> Iterator[str]:
    """Says what may have been started outside of COMMAND's processes, one line for each kind of program. A program may
    also talk to a daemon by itself, so saying nothing proves nothing."""
    asked: dict[str, set[str]] = {}
    for process in processes:
        name = basename(process.program)
        if name in _DAEMONS:
            asked.setdefault(_DAEMONS[name], set()).add(name)
    for what, names in sorted(asked.items()):
        yield (
            f"COMMAND ran {', '.join(sorted(names))}: {what} that a daemon starts for it are not its processes, and "
            "were not traced; -A traces all containers of this machine, --host all of its processes"
        )


def of_process_tree(runs: tuple[GadgetRun, ...], pid: int) -> tuple[GadgetRun, ...]:
    """The same gadgets, for a process and its descendants."""
    chosen = {"pid": pid, "descendants": True}
    return tuple(run if run.policies else replace(run, parameters={**run.parameters, **chosen}) for run in runs)
