"""One trace session: docs/protocol.md, from HELLO to END.

One thread and one epoll; another thread writes PONG while programs are loaded (heard() of client_streams.py). Standard
output carries frames and nothing else, so anything else that prints is redirected to standard error first. After STOP
the programs are detached immediately, but what they wrote before still has to be sent.
"""

import gc
import math
import os
import signal
import sys
import time

from kubectl_gadget import __version__
from kubectl_gadget.agent.bpf import links
from kubectl_gadget.agent.bpf.kernel_types import forget_kernel
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host import procfs, this_node
from kubectl_gadget.agent.installed import feed, pins
from kubectl_gadget.agent.kernel import features
from kubectl_gadget.agent.pipe import MOST_HELD
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.agent.session.client_streams import (
    ClientStreams,
    ClosedError,
    give_back_freed_memory,
    heard,
    keep_freed_memory,
)
from kubectl_gadget.agent.session.declared import Catalogue, check_declared, take_place
from kubectl_gadget.agent.session.sending import Sender
from kubectl_gadget.agent.sources.source import KINDS, NodeContext, Source, make_sources, node_context
from kubectl_gadget.errors import AgentError, FrameError, GadgetError
from kubectl_gadget.wire.agent_messages import (
    AgentMessage,
    End,
    Hello,
    Pong,
    RunningSession,
    Started,
    Stats,
    Usage,
    WarningText,
    encode_message,
)
from kubectl_gadget.wire.client_messages import FilterSpec, Heartbeat, LookUp, Run, Update
from kubectl_gadget.wire.frames import Frame, FrameType
from kubectl_gadget.wire.message import read
from kubectl_gadget.wire.session_command import SESSION, UNDECLARED, SessionCommand

# HELLO: what this agent is, and what its node supports.


def hello() -> Hello:
    """Returns the content of the HELLO frame."""
    system = os.uname()
    return Hello(
        protocol=1,
        agent=__version__,
        node=this_node.name(),
        addresses=tuple(this_node.addresses()),
        architecture=system.machine,
        kernel=system.release,
        kinds=KINDS,
        boot_id=this_node.boot_id(),
        policies=feed.state(),
        pins=() if this_node.is_contained() else pins.owners_of_others(),
        contained=this_node.is_contained(),
        sessions=_other_sessions(),
        **features.describe() | this_node.clocks(),
    )


def _other_sessions() -> tuple[RunningSession, ...]:
    """Returns the sessions that run in this pod, oldest first, without those that declare no gadget."""
    try:
        fd = os.open(presence.PATH, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ()  # this is no pod of ours
    try:
        found = [_running_session(pid) for pid in presence.holders(fd) if pid != os.getpid()]
    except OSError:
        return ()  # the list of locks cannot be read
    finally:
        os.close(fd)
    return tuple(sorted((one for one in found if one is not None), key=lambda one: -one.seconds))


def _running_session(pid: int) -> RunningSession | None:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            words = file.read().split("\0")[:-1]
        with open(f"/proc/{pid}/stat") as file:
            started = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        command = SessionCommand.parse(words[words.index(SESSION) :])
    except (OSError, ValueError):
        return None  # it has ended, or is no session
    if command is None or command.gadgets == ():
        return None
    seconds = int(time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    if this_node.is_contained():
        return RunningSession(seconds=seconds)
    return RunningSession(
        gadgets=command.gadgets or (), enforces=command.enforces, seconds=seconds, map_bytes=map_bytes(pid)
    )


def map_bytes(pid: int) -> int | None:
    """Returns the memory of the BPF maps that a process has open, as the kernel counts it; None if it cannot be
    read. A map that the process shares with others counts in full."""
    found: dict[bytes, int] = {}
    try:
        for name in os.listdir(f"/proc/{pid}/fdinfo"):
            lines = (line.partition(b":") for line in procfs.read(f"/proc/{pid}/fdinfo/{name}").splitlines())
            members = {name: value.strip() for name, _, value in lines}
            if b"map_id" in members:
                found[members[b"map_id"]] = int(members.get(b"memlock", 0))
    except (OSError, ValueError):
        return None
    return sum(found.values())


# The session.

HEARTBEAT_LIMIT = 30.0
"""Seconds without any frame after which a remote client counts as gone."""
_BUSY_TURN, _LONGEST_REST = 0.02, 0.4
"""Seconds between two checks of the rings when nothing wakes the session. At rest, only each ring's position is
checked, until one was written to, or an idle source has to report (Channel)."""
_STATS_EVERY, _STATS_RESTS = 1.0, 10
"""Seconds between two STATS, or that many times the session's `rest` if that is longer: each STATS checks all links."""
_FAREWELL = {
    "stop": (5.0, 50.0),
    "error": (5.0, 50.0),
    "eof": (0.5, 5.0),
    "signal": (1.0, 4.0),
    "heartbeat": (0.5, 5.0),
}
"""Limits in seconds for sending the last frames, by the reason of the end: without progress, and in total. A pod is
killed five seconds after a signal (manifests/daemonset.yaml)."""
_STUCK = 1.0
"""Seconds without progress after which the session ends although a source claims to have more to send: the client
reads everything, and the source delivers nothing. Frames with names of new containers do not count as progress."""
_HELD_FOR_LOCAL = 256 << 20
"""Most bytes that are held for a client on this machine, which the user's own memory pays for."""
_NEW_OBJECTS = 2_000
"""The garbage collector's threshold after the session has started (agent/__main__.py)."""
_MOST_PIECES = 64
"""With more pieces in the pipe, the client reads too slowly: heartbeats are not answered, and warnings wait."""


class _Over(Exception):
    """The session ends, for one of the reasons in END."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Deadline:
    """Passes after some seconds without progress, and after `most` seconds in any case."""

    def __init__(self, seconds: float, most: float = math.inf) -> None:
        self._seconds = seconds
        self._last = time.monotonic() + most
        self._next = 0.0
        self._progress = -1

    def left(self, progress: int) -> float:
        """Returns the seconds that are left. `progress` is any number that grows with progress, such as bytes
        written."""
        now = time.monotonic()
        if progress != self._progress:
            self._progress, self._next = progress, now + self._seconds
        return max(0.0, min(self._next, self._last) - now)


class Session:
    """Runs over `input` and `output`, which it makes non-blocking. `command` is what its command line declared. After
    `patience` seconds without any frame, the client counts as gone. At most `most_held` bytes wait for it.
    `ends_process`: the process ends with the session, so the kernel may free everything later."""

    def __init__(
        self,
        input: int,
        output: int,
        command: SessionCommand = UNDECLARED,
        patience: float | None = None,
        most_held: int = MOST_HELD,
        *,
        ends_process: bool = False,
    ) -> None:
        self._command = command
        self._catalogue: Catalogue | None = None
        self._ends_process = ends_process
        self._patience = HEARTBEAT_LIMIT if patience is None else patience
        self._client = ClientStreams(input, output, most_held)
        self._pipe = self._client.pipe
        self.objects: list[bytes] = []
        self.containers: Containers | None = None
        self._unable: AgentError | None = None
        self._context: NodeContext | None = None
        self.sources: list[Source] = []
        self._sender: Sender | None = None
        self._skipped = 0
        self.next_turn = self.next_stats = 0.0
        self._rest = 0.05
        """seconds between two turns while nothing happens"""
        self.due = 0.0
        """when a source has something to do or to report, on the monotonic clock"""

    def run(self) -> int:
        """Runs until the session is over. Returns the exit code: 0, even after an error, which END reports."""
        reason, error = "error", None
        try:
            self._client.open()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, _on_signal)
            if self._command.contained:
                self._catalogue = Catalogue(self._command)
                self._place = take_place()
            self._send(hello())
            self._pipe.flush()
            self._follow_containers()
            while True:
                self._step(self._wait())
        except _Over as over:
            reason = over.reason
        except ClosedError:
            reason = "eof"
        except GadgetError as failure:
            error = failure
        except Exception as bug:
            sys.excepthook(type(bug), bug, bug.__traceback__)
            error = AgentError(f"the agent failed: {bug!r}", "report it with the agent's log")
        self._close(reason, error)
        return 0

    def _follow_containers(self) -> None:
        """Starts to follow containers while the client still sends RUN, which a failure is reported for."""
        keep_freed_memory()
        try:
            self.containers = Containers(self._command.namespace)
        except AgentError as error:
            self._unable = error
        else:
            self._client.watch(self.containers.fd)

    def _wait(self) -> bool:
        """Waits for input, output or events. Returns False when only the time has passed."""
        timeout = max(0.0, min(self._client.heard + self._patience - time.monotonic(), HEARTBEAT_LIMIT))
        if self._sender:
            timeout = min(timeout, max(0.0, min(self.next_turn, self.next_stats) - time.monotonic()))
        return self._client.wait(timeout)

    def _step(self, is_woken: bool) -> None:
        if _signalled:
            raise _Over("signal")
        for frame in self._client.receive() if is_woken else ():
            self.handle(frame)
        if self._client.skipped > self._skipped:
            self._skipped = self._client.skipped
            self._warn("a frame of a newer protocol version was skipped")
        if time.monotonic() > self._client.heard + self._patience:
            raise _Over("heartbeat")
        if self._sender and self._context:
            self.turn(self._sender, self._context, is_woken)
        else:
            if self.containers:
                self.containers.drain()
            self._pipe.flush()
        if self._pipe.closed:
            raise _Over("eof")

    def turn(self, sender: Sender, context: NodeContext, is_woken: bool) -> None:
        now = time.monotonic()
        busy = False
        if is_woken or now >= self.due or not sender.is_quiet:
            busy = sender.turn()
            self.due = min(sender.due, sender.report_due)
        context.callbacks.turn(now)
        for news in context.containers.take_warnings():
            context.warnings.add(news)
        while self._pipe.queued < _MOST_PIECES and (warning := context.warnings.take()):
            self._send_warning(warning)
        now = time.monotonic()
        self.next_turn = min(now + (_BUSY_TURN if busy else self._rest), self.due)
        if now >= self.next_stats:
            self.next_stats = now + max(_STATS_EVERY, _STATS_RESTS * self._rest)
            stats = self._stats()  # checks the programs, even while the client reads nothing
            if not self._pipe.blocked:  # counts are since the start, so a missed report loses nothing
                self._send(stats)
                self._pipe.flush()

    def handle(self, frame: Frame) -> None:
        if self._catalogue:
            self._catalogue.check_frame(frame.type)
        if frame.type == FrameType.OBJECT:
            if self._catalogue:
                self._catalogue.check_object(frame.payload, len(self.objects))
            self.objects.append(frame.payload)
        elif frame.type == FrameType.RUN:
            with heard(self._pipe):
                context = self._start(read(Run, frame.payload, "RUN", strict=self._catalogue is not None))
            self._send_started(context)
        elif frame.type == FrameType.FILTER:
            if self.containers:
                self.containers.set_filter(read(FilterSpec, frame.payload, "FILTER"))
        elif frame.type == FrameType.HEARTBEAT:
            beat = read(Heartbeat, frame.payload, "HEARTBEAT")
            if self._pipe.queued < _MOST_PIECES:
                self._send(Pong(id=beat.id, **this_node.clocks()))
        elif frame.type == FrameType.SHOW:
            for show in self._context.callbacks.show if self._context else ():
                show()
        elif frame.type == FrameType.UPDATE:
            self._update(read(Update, frame.payload, "UPDATE"))
        elif frame.type == FrameType.LOOK_UP:
            from kubectl_gadget.agent.kernel.hooks import look_up  # not needed in most sessions

            self._send(look_up(read(LookUp, frame.payload, "LOOK_UP")))
        elif frame.type == FrameType.STOP:
            raise _Over("stop")
        else:
            self._warn(f"a frame of the unknown type {frame.type} was skipped")

    def _start(self, run: Run) -> NodeContext:
        """Handles RUN: loads and attaches everything."""
        if self._context:
            raise FrameError("RUN was sent twice")
        containers = self.containers
        if containers is None:
            raise self._unable or AgentError("the agent is not ready")
        specs = run.gadgets
        self.set_rest(run.rest_ms)
        check_declared(self._command, specs, self.objects, bool(this_node.pod_uid()))
        if self._catalogue:
            specs = tuple(self._catalogue.checked(spec, self.objects) for spec in specs)
        containers.set_filter(run.filter)
        containers.drain()
        self._context = node_context(run.filter, containers)
        self.sources = make_sources(specs, self.objects, self._context)
        self.objects.clear()
        return self._context

    def set_rest(self, ms: int) -> None:
        self._rest = min(max(ms / 1000, _BUSY_TURN), _LONGEST_REST)

    def _send_started(self, context: NodeContext) -> None:
        """Sends STARTED and the warnings so far, and makes the sender. Frees what only loading needs."""
        forget_kernel()
        gc.freeze()
        gc.set_threshold(_NEW_OBJECTS)
        give_back_freed_memory()
        self._send(Started(gadgets=tuple(source.started() for source in self.sources), **this_node.clocks()))
        for warning in [*context.containers.take_warnings(), *context.warnings.take_all()]:
            self._send_warning(warning)
        self._sender = Sender(self.sources, context.containers, context.callbacks, self._pipe)
        for source in self.sources:
            self._client.watch(source.fd)
        self.next_stats = time.monotonic() + _STATS_EVERY

    def _update(self, update: Update) -> None:
        if not 0 <= update.gadget < len(self.sources):
            raise FrameError(f"UPDATE is for gadget {update.gadget}, which is not running")
        self.sources[update.gadget].update(update)

    def _stats(self) -> Stats:
        gadgets = tuple(source.stats() for source in self.sources)
        return Stats(gadgets=gadgets, agent=Usage(**this_node.usage()), **this_node.clocks())

    def _send(self, message: AgentMessage) -> None:
        self._pipe.put(encode_message(message))

    def _warn(self, message: str) -> None:
        """Warns about frames of the client, which may send any number of them."""
        if self._pipe.queued < _MOST_PIECES:
            self._send_warning(message)

    def _send_warning(self, message: str) -> None:
        self._send(WarningText(message=message))

    def _close(self, reason: str, error: GadgetError | None) -> None:
        """Detaches, sends the remaining events and END, if the client reads them in time, and frees
        everything."""
        # The last ones first: they may use socket owners that the programs of earlier ones keep (SocketOwners), and
        # would take those of closed sockets for the owners of new ones.
        for source in reversed(self.sources):
            source.stats()  # detects programs that were stopped since the last STATS
            source.detach()
        deadline, stuck, useful = _Deadline(*_FAREWELL[reason]), _Deadline(_STUCK), 0
        while self._sender and not self._pipe.closed and deadline.left(self._pipe.written):
            useful += self._sender.turn() or self._pipe.blocked
            if self._sender.empty or not stuck.left(useful):
                break
            self._client.wait_for_output(0.01)
        if self._context:
            for call in self._context.callbacks.after_last:
                call()
            for warning in self._context.warnings.take_all():
                self._send_warning(warning)
        problem = None if error is None else features.problem(str(error), "", error.remedy)
        self._send(End(reason=reason, error=problem, stats=self._stats() if self._sender else None))
        self._pipe.flush()
        while self._pipe.blocked and (seconds := deadline.left(self._pipe.written)):
            self._client.wait_for_output(seconds)
            self._pipe.flush()
        self._pipe.discard()
        if self._ends_process and links.leave_to_child(self._client.fds):
            return
        self.free()

    def free(self) -> None:
        for source in self.sources:
            source.close()
        if self._context:
            self._context.close()
        if self.containers:
            self.containers.close()
        self._client.close()


_signalled: list[int] = []


def _on_signal(number: int, _: object) -> None:
    _signalled.append(number)


def run(command: SessionCommand = UNDECLARED, local: bool = False) -> int:
    """Runs a session over standard input and output. Anything else that is printed goes to standard error. `local`: the
    client is on this machine. Its end is then seen immediately, so there is no limit to its silence: after Ctrl-Z, it
    may continue later."""
    presence.announce()
    output = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    patience, most_held = (math.inf, _HELD_FOR_LOCAL) if local else (None, MOST_HELD)
    return Session(0, output, command, patience, most_held, ends_process=True).run()
