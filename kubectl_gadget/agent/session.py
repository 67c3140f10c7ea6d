"""One trace session over two file descriptors: docs/protocol.md, from HELLO to END.

One thread and one epoll; another thread speaks while programs are loaded (loading.py). Standard output carries frames
and nothing else, so everything that prints is sent to standard error first. The trap: the rings are watched
edge-triggered; level-triggered, a ring that is never quite empty would keep the loop spinning.
"""

import fcntl
import math
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kubectl_gadget import __version__
from kubectl_gadget.agent import loading
from kubectl_gadget.agent.answers.network_refusals import Refusals
from kubectl_gadget.agent.bpf import features, links
from kubectl_gadget.agent.bpf.kernel_hooks import look_up
from kubectl_gadget.agent.bpf.syscall_programs import VARIABLE, Calls
from kubectl_gadget.agent.contained import FRAMES, Catalogue, check_declared, is_contained, take_place
from kubectl_gadget.agent.containers.descendants import Descendants
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.gadget import KINDS, OWN, Gadget
from kubectl_gadget.agent.host import node
from kubectl_gadget.agent.host.heap import give_back_freed_memory
from kubectl_gadget.agent.installed import installed_state
from kubectl_gadget.agent.installed.installed_events import InstalledEvents
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.agent.shipping import Shipper
from kubectl_gadget.agent.symbols.stacks import Symbols
from kubectl_gadget.errors import AgentError, FrameError, GadgetError
from kubectl_gadget.wire import Frame, FrameDecoder, FrameType, encode_json
from kubectl_gadget.wire.session_command import UNDECLARED, SessionCommand

if TYPE_CHECKING:
    from kubectl_gadget.agent.policies.policy import Policies

HEARTBEAT_LIMIT = 30.0
"""Seconds without any frame from a remote client after which it counts as gone."""
_BUSY_TURN, _IDLE_TURN = 0.02, 0.05
"""Seconds between two looks at the rings when nothing wakes us."""
_STATS_EVERY = 1.0
_FAREWELL = {"stop": 5.0, "error": 5.0, "eof": 0.5, "signal": 1.0, "heartbeat": 0.5}
"""Seconds that the last frames may take, by reason."""
_MOST_WAITING = 64
"""Pieces in the pipe beyond which answers and warnings are left out: the client does not read them anyway."""


class _Over(Exception):
    """The session ends, for one of the reasons of END."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Session:
    """Speaks over `input` and `output`, which it makes non-blocking. `command` is what its command line declared,
    `patience` the seconds without any frame from the client after which it counts as gone. `ends_process`: the process
    ends with it, and its end must not take long."""

    def __init__(
        self,
        input: int,
        output: int,
        command: SessionCommand = UNDECLARED,
        patience: float | None = None,
        *,
        ends_process: bool = False,
    ) -> None:
        self._command = command
        self._catalogue: Catalogue | None = None
        self._ends_process = ends_process
        self._patience = HEARTBEAT_LIMIT if patience is None else patience
        self._input = input
        self._output = output
        self._decoder = FrameDecoder()
        self._pipe = FramePipe(output)
        self._objects: list[bytes] = []
        self._gadgets: list[Gadget | Policies | InstalledEvents] = []
        self._containers: Containers | None = None
        self._symbols = Symbols()
        self._calls = Calls()
        self._unable: AgentError | None = None
        self._refusals: Refusals | None = None
        self._descendants: dict[int, Descendants] = {}
        self._shipper: Shipper | None = None
        self._epoll = select.epoll()
        self._output_watched = False
        self._input_pollable = True
        self._heard = time.monotonic()
        self._next_turn = self._next_stats = 0.0

    def run(self) -> int:
        """Until the session is over. The exit code: 0, also after an error, which END tells."""
        reason, error = "error", None
        try:
            self._open()
            if self._command.contained:
                self._catalogue = Catalogue(self._command)
                self._place = take_place()
            self._pipe.put(encode_json(FrameType.HELLO, hello()))
            self._pipe.flush()
            self._follow_containers()
            while True:
                self._wait()
                self._step()
        except _Over as over:
            reason = over.reason
        except GadgetError as failure:
            error = failure
        except Exception as bug:
            sys.excepthook(type(bug), bug, bug.__traceback__)
            error = AgentError(f"the agent failed: {bug!r}", "report it with the agent's log")
        self._close(reason, error)
        return 0

    def _open(self) -> None:
        for fd in (self._input, self._output):
            os.set_blocking(fd, False)
        with suppress(OSError):  # not a pipe, or over the user's limit: it works with less
            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, 1 << 20)
        try:
            self._epoll.register(self._input, select.EPOLLIN)
        except PermissionError:
            self._input_pollable = False  # a file: always readable
        receive, send = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll.register(receive, select.EPOLLIN)
        signal.set_wakeup_fd(send)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _on_signal)

    def _follow_containers(self) -> None:
        """Begins while the client is still sending RUN. What keeps it from working is the answer to RUN."""
        try:
            self._containers = Containers(self._command.namespace)
        except AgentError as error:
            self._unable = error
        else:
            self._epoll.register(self._containers.fd, select.EPOLLIN | select.EPOLLET)

    def _wait(self) -> None:
        timeout = max(0.0, min(self._heard + self._patience - time.monotonic(), HEARTBEAT_LIMIT))
        if self._shipper:
            timeout = min(timeout, max(0.0, min(self._next_turn, self._next_stats) - time.monotonic()))
        if self._pipe.blocked != self._output_watched:
            self._watch_output()
        self._epoll.poll(timeout if self._input_pollable else 0)

    def _watch_output(self) -> None:
        try:
            if self._output_watched:
                self._epoll.unregister(self._output)
            else:
                self._epoll.register(self._output, select.EPOLLOUT)
        except PermissionError:
            pass  # a file: never blocks
        self._output_watched = not self._output_watched

    def _step(self) -> None:
        if _signalled:
            raise _Over("signal")
        self._receive()
        now = time.monotonic()
        if now > self._heard + self._patience:
            raise _Over("heartbeat")
        if self._shipper is None:
            if self._containers:
                self._containers.drain()
            self._pipe.flush()
        else:
            busy = self._shipper.turn()
            for gadget in self._gadgets:
                for warning in gadget.turn():
                    self._warn(warning)
            now = time.monotonic()
            self._look_for_refusals(now)
            self._next_turn = min(now + (_BUSY_TURN if busy else _IDLE_TURN), self._shipper.due)
            if now >= self._next_stats:
                self._next_stats = now + _STATS_EVERY
                self._report()
        if self._pipe.closed:
            raise _Over("eof")

    def _receive(self) -> None:
        """Takes what the client sent so far. Raises _Over at its end."""
        while True:
            try:
                data = os.read(self._input, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                raise _Over("eof")
            self._heard = time.monotonic()
            skipped = self._decoder.skipped
            for frame in self._decoder.feed(data):
                self._take(frame)
            if self._decoder.skipped > skipped:
                self._warn("a frame of a newer protocol version was skipped")

    def _take(self, frame: Frame) -> None:
        if self._catalogue and frame.type not in FRAMES:
            raise AgentError(f"contained agents do not take frames of type {frame.type}")
        match frame.type:
            case FrameType.OBJECT:
                if self._catalogue:
                    self._catalogue.check_object(frame.payload, len(self._objects))
                self._objects.append(frame.payload)
            case FrameType.RUN:
                with loading.heard(self._pipe):
                    containers = self._start(frame.json())
                self._say_started(containers)
            case FrameType.FILTER:
                if self._containers:
                    self._containers.set_filter(frame.json())
            case FrameType.HEARTBEAT:
                if self._pipe.waiting < _MOST_WAITING:
                    self._pipe.put(encode_json(FrameType.PONG, {"id": frame.json().get("id"), **node.clocks()}))
            case FrameType.SHOW:
                for gadget in self._gadgets:
                    if gadget.answer:
                        gadget.answer.show()
            case FrameType.UPDATE:
                self._update(frame.json())
            case FrameType.LOOK_UP:
                self._look_up(frame.json())
            case FrameType.STOP:
                raise _Over("stop")
            case _:
                self._warn(f"a frame of the unknown type {frame.type} was skipped")

    def _start(self, run: dict[str, Any]) -> Containers:
        """RUN: loads and attaches everything."""
        if self._shipper:
            raise FrameError("RUN came twice")
        containers = self._containers
        if containers is None:
            raise self._unable or AgentError("the agent is not ready")
        try:
            specs: list[dict[str, Any]] = run["gadgets"]
            check_declared(self._command, specs, bool(node.pod_uid()))
            if self._catalogue:
                specs = [self._catalogue.checked(spec, self._objects) for spec in specs]
            containers.set_filter(run.get("filter") or {})
            containers.drain()
            random = int.from_bytes(os.urandom(8), "little")
            variables = containers.variables() | {
                VARIABLE: int(not features.syscall_tracepoints()),
                "gadget_node_random": random,
            }
            own = _own_processes(run)
            for index, spec in enumerate(specs):
                elf = self._objects[spec["object"]]
                if spec.get("kind") == "policy":
                    self._gadgets.append(_policies(index, spec, elf, variables, containers, self._symbols))
                    continue
                if spec.get("kind") == "installed":
                    self._gadgets.append(InstalledEvents(index, spec))
                    continue
                one = Gadget(index, spec, elf, variables | own, containers.shared)
                one.wanted_cgroup = containers.wants
                one.symbols = self._symbols
                one.calls = self._calls
                one.containers = containers
                one.refusals = self._refusals_fd
                one.descendants = self._descendants_fd
                one.start()
                self._gadgets.append(one)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise FrameError(f"RUN is not as docs/protocol.md says: {error!r}") from error
        self._objects.clear()
        return containers

    def _say_started(self, containers: Containers) -> None:
        give_back_freed_memory()
        started = {"gadgets": [gadget.started() for gadget in self._gadgets], **node.clocks()}
        self._pipe.put(encode_json(FrameType.STARTED, started))
        for warning in containers.warnings:
            self._warn(warning)
        self._say_warnings()
        self._shipper = Shipper(self._gadgets, containers, self._pipe)
        for gadget in self._gadgets:
            self._epoll.register(gadget.ring_fd, select.EPOLLIN | select.EPOLLET)
        self._next_stats = time.monotonic() + _STATS_EVERY

    def _look_up(self, value: dict[str, Any]) -> None:
        try:
            answer = look_up(value)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise FrameError(f"LOOK_UP is not as docs/protocol.md says: {error!r}") from error
        self._pipe.put(encode_json(FrameType.HOOKS, answer))

    def _update(self, value: dict[str, Any]) -> None:
        index = value.get("gadget")
        gadgets = [one for one in self._gadgets if not isinstance(one, InstalledEvents) and one.index == index]
        if not gadgets:
            raise FrameError(f"UPDATE is for gadget {index!r}, which does not run")
        gadgets[0].update(value)

    def _descendants_fd(self, pid: int) -> int:
        """Of gadgets that are about this process and its descendants."""
        if pid not in self._descendants:
            assert self._containers is not None
            self._descendants[pid] = Descendants(pid, self._containers.variables()["gadget_node_pid_level"])
        return self._descendants[pid].fd

    def _refusals_fd(self) -> int | None:
        """Of gadgets that tell which policy refused something."""
        if self._refusals is None:
            try:
                self._refusals = Refusals()
            except AgentError as error:
                self._pipe.put(encode_json(FrameType.WARNING, {"message": str(error)}))
                return None
            self._refusals.turn(time.monotonic())
        return self._refusals.fd

    def _look_for_refusals(self, now: float) -> None:
        if self._refusals:
            self._refusals.turn(now)
            while self._refusals.warnings:
                self._warn(self._refusals.warnings.pop(0))

    def _stats(self) -> dict[str, Any]:
        return {"gadgets": [gadget.stats() for gadget in self._gadgets], "agent": node.usage(), **node.clocks()}

    def _report(self) -> None:
        for one in self._descendants.values():
            if warning := one.warning():
                self._warn(warning)
        if not self._pipe.blocked:  # counts are since the start, so a missed report loses nothing
            self._pipe.put(encode_json(FrameType.STATS, self._stats()))
            self._pipe.flush()

    def _warn(self, message: str) -> None:
        if self._pipe.waiting < _MOST_WAITING:
            self._pipe.put(encode_json(FrameType.WARNING, {"message": message}))

    def _say_warnings(self) -> None:
        """Those of when gadgets begin and end."""
        for gadget in self._gadgets:
            warnings, gadget.warnings = gadget.warnings, []
            for warning in warnings:
                self._warn(warning)

    def _close(self, reason: str, error: GadgetError | None) -> None:
        """Detaches, sends what the rings still hold and END as far as the client takes it in time, frees all."""
        for gadget in self._gadgets:
            gadget.detach()
        self._say_warnings()
        deadline = time.monotonic() + _FAREWELL[reason]
        while self._shipper and not self._pipe.closed and time.monotonic() < deadline:
            self._shipper.turn()
            if self._shipper.empty():
                break
            select.select([], [self._output], [], 0.01)
        for gadget in self._gadgets:
            gadget.finish()
        end: dict[str, Any] = {"reason": reason}
        if error is not None:
            end["error"] = features.problem(str(error), "", error.remedy)
        if self._shipper:
            end["stats"] = self._stats()
        self._pipe.put(encode_json(FrameType.END, end))
        self._pipe.flush()
        while self._pipe.blocked and time.monotonic() < deadline:
            select.select([], [self._output], [], max(0.0, deadline - time.monotonic()))
            self._pipe.flush()
        self._pipe.discard()
        if self._ends_process and links.leave_to_child((self._input, self._output)):
            return
        self._free()

    def _free(self) -> None:
        for gadget in self._gadgets:
            gadget.close()
        self._calls.close()
        self._symbols.close()
        if self._refusals:
            self._refusals.close()
        for one in self._descendants.values():
            one.close()
        if self._containers:
            self._containers.close()
        self._epoll.close()


def _policies(
    index: int,
    spec: dict[str, Any],
    elf: bytes,
    variables: dict[str, int],
    containers: Containers,
    symbols: Symbols,
) -> "Policies":
    # Its modules take memory that no other session needs.
    from kubectl_gadget.agent.policies.policy import Policies

    policies = Policies(index, spec, elf, variables, containers.shared)
    policies.filter_is_open = containers.is_open
    policies.wanted_cgroup = containers.wants
    policies.shares = containers.shares
    policies.symbols = symbols
    policies.start()
    containers.follow(policies)
    return policies


def _own_processes(run: dict[str, Any]) -> dict[str, int]:
    """Variables of gadgets for the processes that are left out: this one and the client that started it, where the
    processes of the host are wanted and nobody asked for ours."""
    selection = run.get("filter") or {}
    if not node.client() or not selection.get("host") or selection.get("own_processes"):
        return {}
    return dict(zip(OWN, (os.getpid(), node.client()), strict=True))


_signalled: list[int] = []


def _on_signal(number: int, _: object) -> None:
    _signalled.append(number)


def hello() -> dict[str, Any]:
    """The HELLO frame's object."""
    system = os.uname()
    return {
        "protocol": 1,
        "agent": __version__,
        "node": node.name(),
        "addresses": node.addresses(),
        "architecture": system.machine,
        "kernel": system.release,
        "kinds": KINDS,
        "boot_id": node.boot_id(),
        **node.clocks(),
        **features.describe(),
        "policies": installed_state.state(),
        "contained": is_contained(),
    }


def run(command: SessionCommand = UNDECLARED, local: bool = False) -> int:
    """A session over standard input and output. Whatever else is printed goes to standard error. `local`: the client is
    on this machine, so its end is seen at once, and a client that was stopped (Ctrl-Z) may go on later."""
    presence.announce()
    output = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return Session(0, output, command, math.inf if local else None, ends_process=True).run()
