"""Kind `policy`: policies of a session, with all of their hooks as one source of events.

It does not know policies, only programs, their hooks, constants, and entries of maps (docs/protocol.md, "Policies").
The agent's own reactions to events (kill, requests) happen as soon as the events have settled, long before
they are sent, and also while the client reads nothing.
"""

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

from kubectl_gadget import __version__
from kubectl_gadget.agent.bpf.links import StoppedPrograms
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.policies.hook_set import FileSearch, HookSet, load_hooks
from kubectl_gadget.agent.policies.log import FreshRecords
from kubectl_gadget.agent.policies.scopes import Profiles
from kubectl_gadget.agent.sources.output import Channel
from kubectl_gadget.agent.sources.source import NodeContext
from kubectl_gadget.agent.symbols.gadget_stacks import Stacks
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import GadgetStats, RequestCounts, StartedGadget
from kubectl_gadget.wire.client_messages import Update
from kubectl_gadget.wire.policy_messages import PolicySpec
from kubectl_gadget.wire.policy_record import read

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

# Kills from user space: the process of each event that a policy would have denied or killed, through its pidfd.
#
# For kernels in which no program can do this, and for comparison. The kill comes some time after the event. The trap:
# the PID may belong to another process by then, so a pidfd is opened before the check that the process was forked at
# the time in the event.

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ProcessKiller:
    """`masks` has the selectors that kill, by the hook's number."""

    def __init__(self, masks: Mapping[int, int], warn: Callable[[str], None]) -> None:
        self._masks = masks
        self.killed = 0
        self.gone = 0
        """events whose process had ended already"""
        self._warn = warn

    def react(self, record: bytes) -> None:
        """Kills the event's process, if a matched selector says so."""
        found = read(record)
        mask = self._masks.get(found.hook, 0)
        if any(mask >> bit & 1 for bit in found.selectors):
            self._kill(found.exec.pid, found.exec.started)

    def add_to(self, stats: GadgetStats) -> GadgetStats:
        """Returns the statistics with the counts of these reactions added."""
        return stats.replace(killed=self.killed, gone=self.gone)

    def _kill(self, pid: int, started: int) -> None:
        try:
            held = os.pidfd_open(pid)
        except OSError:
            self.gone += 1
            return
        try:
            # A process that is exiting still accepts signals, but ends anyway.
            ticks = procfs.start_ticks(pid)
            if not ticks or abs(ticks - started // _TICK) > 1:
                self.gone += 1
                return
            signal.pidfd_send_signal(held, signal.SIGKILL)
            self.killed += 1
        except ProcessLookupError:
            self.gone += 1
        except PermissionError:
            self._warn("it may not kill processes of other users: its container needs the capability KILL")
        finally:
            os.close(held)


# GetUrl and DnsLookup: requests to other hosts that the agent makes when a policy's selector has matched.
#
# Separate threads make them after the event, and nothing waits for them. Whoever causes events can trigger any number
# of requests; so the queue is short, few are started per second, and the rest is counted and not made.

SECONDS = 5.0
"""Time limit for each step of a request (connecting, getting an answer)."""
MOST_SECONDS = 10.0
"""Time limit for a whole request. A look-up of a name has no other limit: it asks each server again and again."""
_MOST_ABANDONED = 16
"""Requests beyond their time whose threads still wait. While there are this many, no further request is made."""
MOST_QUEUED = 64
MOST_IN_A_SECOND = 10
_THREADS = 2
_MOST_WARNINGS = 16
_FAREWELL = 2.0
"""Seconds that queued requests may still take at the end of the session."""

Request = tuple[str, str]
"""`url` or `name`, and its value."""


class OutsideRequests:
    """`requests` are each selector's, by hook and bit. Raises FrameError for unknown kinds, and AgentError for requests
    that cannot be made here."""

    def __init__(self, requests: Mapping[int, Mapping[int, Sequence[Request]]], warn: Callable[[str], None]) -> None:
        self._requests = requests
        urls = {text for bits in requests.values() for each in bits.values() for kind, text in each if kind == "url"}
        kinds = {kind for bits in requests.values() for each in bits.values() for kind, _ in each}
        if not kinds <= {"url", "name"}:
            raise FrameError(f"RUN: requests of the kinds {', '.join(sorted(kinds))}, not `url` and `name`")
        self._opener = _opener(urls) if urls else None
        self._queue: Queue[Request] = Queue(MOST_QUEUED)
        self._lock = threading.Lock()
        self._counts = {"answered": 0, "failed": 0, "left_out": 0}
        self._said: set[str] = set()
        self._warn = warn
        self._over = threading.Event()
        self._begun: list[float] = []
        self._abandoned = 0
        """threads of requests, most of them beyond their time"""
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    def react(self, record: bytes) -> None:
        """Queues the requests of an event."""
        found = read(record)
        of_hook = self._requests.get(found.hook)
        if not of_hook:
            return
        for bit in found.selectors:
            for request in of_hook.get(bit, ()):
                try:
                    self._queue.put_nowait(request)
                except Full:
                    self._count("left_out")

    def add_to(self, stats: GadgetStats) -> GadgetStats:
        """Returns the statistics with the counts of answered, failed and omitted requests added."""
        with self._lock:
            return stats.replace(requests=RequestCounts(**self._counts))

    def finish(self) -> None:
        """Call it after the last event: waits a moment for queued requests, and abandons the rest."""
        deadline = time.monotonic() + _FAREWELL
        self._over.set()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while True:
            try:
                request = self._queue.get(timeout=0.2)
            except Empty:
                if self._over.is_set():
                    return
                continue
            if not self._may_begin():
                self._count("left_out")
                continue
            if (error := self._made_in_time(request)) is not None:
                self._fail(request, error)
            else:
                self._count("answered")

    def _may_begin(self) -> bool:
        now = time.monotonic()
        with self._lock:
            self._begun = [begun for begun in self._begun if now - begun < 1]
            if len(self._begun) >= MOST_IN_A_SECOND or self._abandoned >= _MOST_ABANDONED:
                return False
            self._begun.append(now)
            return True

    def _made_in_time(self, request: Request) -> Exception | None:
        """Make a request in a thread of its own, which cannot be stopped. Return why it failed, None if it did not."""
        results: Queue[Exception | None] = Queue(1)

        def work() -> None:
            result: Exception | None = None
            try:
                self._make(request)
            except Exception as error:  # whatever urllib makes of what the other side sends
                result = error
            with self._lock:
                results.put(result)
                self._abandoned -= 1

        with self._lock:
            self._abandoned += 1
        threading.Thread(target=work, daemon=True).start()
        try:
            return results.get(timeout=MOST_SECONDS)
        except Empty:
            return TimeoutError(f"no answer within {MOST_SECONDS:g} s")

    def _make(self, request: Request) -> None:
        kind, text = request
        if kind == "name":
            socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
            return
        assert self._opener is not None
        # Any answer will do; its body is not read, and redirects are not followed.
        self._opener.open(text, timeout=SECONDS).close()

    def _fail(self, request: Request, error: Exception) -> None:
        self._count("failed")
        text = f"{request[1]} could not be {'requested' if request[0] == 'url' else 'looked up'}: {error}"
        with self._lock:
            if text not in self._said and len(self._said) < _MOST_WARNINGS:
                self._said.add(text)
                self._warn(text)

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


def _opener(urls: set[str]) -> "OpenerDirector":
    """Returns an opener for http, and https if TLS is available; no redirects, no proxies. Raises AgentError."""
    from urllib import request

    opener = request.OpenerDirector()
    opener.addheaders = [("User-Agent", f"kubectl-gadget/{__version__}")]
    opener.add_handler(request.HTTPHandler())
    if any(url.startswith("https:") for url in urls):
        if not hasattr(request, "HTTPSHandler"):
            raise AgentError(
                "GetUrl: this agent's image has no TLS, which https needs", "a URL with http, or DnsLookup"
            )
        opener.add_handler(request.HTTPSHandler())
    return opener


# The source.


class PolicySource:
    """`spec` is RUN's gadget of the kind `policy`, `elf` its object."""

    due = math.inf

    def __init__(self, spec: PolicySpec, elf: bytes, context: NodeContext) -> None:
        self.name = spec.name
        self._hooks = HookSet()
        self._fresh = FreshRecords()
        warn = context.warnings.add
        self._stopped = StoppedPrograms(spec.name, warn)
        load_hooks(spec, elf, context, self._hooks)
        self._output = self._hooks.open_output(context.containers.numbers)
        try:
            self._reactions = _reactions(spec, context)
            self._stacks = None
            if spec.stacks:
                self._stacks = Stacks(self._hooks.hooks[0].map("gadget_stacks"), context.symbols, with_offsets=True)
            self._profiles = Profiles(spec, self._hooks.hooks, self._hooks.without, warn)
            self._profiles.begin(context.containers.is_open)
            context.callbacks.each_turn.append(FileSearch(self._hooks.hooks, context.wants_cgroup).turn)
            context.containers.follow(self._profiles)
        except BaseException:
            self.close()
            raise

    @property
    def fd(self) -> int:
        return self._output.fd

    def started(self) -> StartedGadget:
        return StartedGadget(name=self.name, programs=self._hooks.programs())

    def stats(self) -> GadgetStats:
        found = self._output.stats().replace(hooks=self._hooks.counts())
        for reaction in self._reactions:
            found = reaction.add_to(found)
        return self._stopped.add_to(found, self._hooks.stopped())

    def update(self, update: Update) -> None:
        """Applies labels of pods and of the node."""
        if update.labels is None:
            raise FrameError(f"UPDATE for {self.name} has no `labels`")
        self._profiles.update(update.labels)

    def settle(self, is_blocked: bool) -> bool:
        settled = self._output.ring.settle()
        for record in self._fresh.of(self._output.ring) if self._reactions else ():
            for reaction in self._reactions:
                reaction.react(record)
        if self._stacks:
            self._stacks.take(time.monotonic())
        return settled

    def send(self, channel: Channel) -> int:
        if self._stacks:
            channel.send_stacks(self._stacks)
        return channel.send_ring(self._output.ring)

    @property
    def is_quiet(self) -> bool:
        return self._output.ring.is_quiet and not self._stacks

    @property
    def empty(self) -> bool:
        return not len(self._output.ring.batch())

    def detach(self) -> None:
        self._hooks.detach()

    def close(self) -> None:
        self._output.close()
        self._hooks.close()


def _reactions(spec: PolicySpec, context: NodeContext) -> list[ProcessKiller | OutsideRequests]:
    """Returns the reactions to events that the agent itself carries out."""
    found: list[ProcessKiller | OutsideRequests] = []
    if spec.kill:
        found.append(ProcessKiller(spec.kill, context.warnings.add))
    if spec.requests:
        requests = OutsideRequests(spec.requests, context.warnings.add)
        context.callbacks.after_last.append(requests.finish)
        found.append(requests)
    return found
