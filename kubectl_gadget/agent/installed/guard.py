"""The process that keeps installed policies in force: it reads them from the ConfigMap's file, and writes their events
to its own standard output.

The pod's main process starts it when there are policies to install (agent/pod/idle.py), and restarts it when it
ends. Policies stay in force after its end, because they are pinned. The trap: the old set is removed while the new
one is in force, so a set must not depend on anything of another one.
"""

import io
import json
import os
import re
import select
import signal
import socket
import sys
import time
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from typing import NoReturn, TextIO

from kubectl_gadget.agent.bpf.kernel_types import forget_kernel
from kubectl_gadget.agent.bpf.links import NO_FTRACE
from kubectl_gadget.agent.containers.container_programs import ELSEWHERE
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.installed import in_force
from kubectl_gadget.agent.installed.feed import COMPLETE, EVENT, LOST, NUMBER, PATH, lock_state, write_state
from kubectl_gadget.agent.installed.in_force import PoliciesInForce
from kubectl_gadget.agent.installed.pins import Pins, PinsTakenError
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.agent.policies.log import LoggedEvent, line
from kubectl_gadget.errors import AgentError, FrameError, GadgetError
from kubectl_gadget.wire.agent_messages import ContainerNames, PoliciesState
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.message import parse
from kubectl_gadget.wire.policy_events import event_spec, rfc3339
from kubectl_gadget.wire.policy_messages import InstalledFile, PolicySpec
from kubectl_gadget.wire.policy_record import FORMAT

# The policies that should be in force on this node: a file in a ConfigMap, written by the client.
#
# The file is a zip with set.json and the engine's object for each architecture (docs/protocol.md, "Installed
# policies"). A kubelet replaces a ConfigMap's files by swapping a symbolic link, so a file is never seen half written,
# but it may be missing.

FILE = "policies.zip"
_MOST_BYTES = 64 << 20
_OWNER = re.compile("[0-9A-Za-z-]{0,100}")
"""It becomes part of a folder's name."""


NOTHING = InstalledFile(
    format=FORMAT, digest="", policies=(), spec=PolicySpec(name="policy", kind="policy", scopes=(), hooks=())
)


def stamp(folder: str) -> tuple[int, ...] | None:
    """Returns a value that changes when the file does; None when there is no file."""
    try:
        found = os.stat(f"{folder}/{FILE}")
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def read_installed(folder: str) -> tuple[InstalledFile, bytes]:
    """Reads the file: its set.json, and the object for this machine. Without policies, or without a file, returns
    NOTHING and no object. Raises AgentError when it is invalid."""
    try:
        with open(f"{folder}/{FILE}", "rb") as file:
            data = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return NOTHING, b""
    except OSError as error:
        raise AgentError(f"the installed policies cannot be read: {error.strerror}") from None
    remedy = "install them again with a client of the agents' version"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            value = parse(archive.read("set.json"))
            if value.get("format") != FORMAT:
                what = f"the installed policies have the format {value.get('format')!r}, not {FORMAT}"
                raise AgentError(what, remedy)
            found = InstalledFile.from_json(value, "set.json")
            if not found.policies:
                return NOTHING, b""
            if not _OWNER.fullmatch(found.owner):
                raise FrameError(f"`owner` {found.owner!r} is not a UID")
            return found, archive.read(f"{os.uname().machine}.bpf.o")
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, FrameError) as error:
        raise AgentError(f"the installed policies cannot be decoded: {error}", remedy) from None


# Sends events to sessions in the same pod, in packets of feed.py. A slow session must not delay the log, so events that
# its socket does not take are dropped and counted, and the count is sent to it.

_SOCKET_BYTES = 4 << 20


class Feed:
    """The sending side, in the process of the policies."""

    def __init__(self, path: str = PATH) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._socket.bind(path)
        os.chmod(path, 0o600)
        self._socket.listen()
        self._sessions: dict[socket.socket, int] = {}
        """with the number of events that each has lost"""

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def turn(self) -> bool:
        """Accepts new sessions. Returns whether there are any."""
        with suppress(BlockingIOError):
            while True:
                session, _ = self._socket.accept()
                session.setblocking(False)
                session.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
                self._sessions[session] = 0
        return bool(self._sessions)

    def send(self, logged: LoggedEvent) -> None:
        if self._sessions:
            self._send(EVENT + logged.record + json.dumps(event_spec(logged.event)).encode(), counts=True)

    def complete(self, until: int) -> None:
        """Reports that every event before this boot time, in ns, has been sent."""
        self._send(COMPLETE + NUMBER.pack(until), counts=False)

    def _send(self, packet: bytes, counts: bool) -> None:
        for session, lost in list(self._sessions.items()):
            try:
                if lost:
                    session.send(LOST + NUMBER.pack(lost))
                    self._sessions[session] = 0
                session.send(packet)
            except BlockingIOError:
                self._sessions[session] += counts
            except OSError:
                session.close()
                del self._sessions[session]

    def close(self) -> None:
        for session in self._sessions:
            session.close()
        self._socket.close()


# The process.

_RETRIES = (0.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds until stopped policies are loaded again, by the number of failures; each attempt takes CPU time."""
_TURN_SECONDS = 0.2
_FILE_SECONDS = 1.0
_STATE_SECONDS = 5.0


class Guard:
    """`folder` contains the file; events are written to `out`."""

    def __init__(self, folder: str, out: TextIO) -> None:
        self._folder = folder
        self._out = out
        self._node = this_node.name()
        lock_state()
        self._stamp: object = ""
        self._problem = ""
        self._stopped: dict[str, str] = {}
        """why hooks in force no longer run, by hook"""
        self._reloads = False
        """True if the newest set is loaded again, although the file has not changed"""
        self._not_reloaded = ""
        """why that failed"""
        self._failures = 0
        self._reload_at = 0.0
        self._next_check = self._next_state = 0.0
        self._sets: list[PoliciesInForce] = []
        """the last one is the newest"""
        self._ended: list[PoliciesInForce] = []
        """no longer in force; some of their events are not written yet"""
        self._lost: dict[int, int] = {}
        self._names: dict[int, str | None] = {}
        self._described: dict[str, ContainerNames] = {}
        self._removed: list[int] = []
        self._pins: Pins | None = None
        self._not_pinned = ""
        self._former: set[str] = set()
        """policies that were pinned and are no longer installed"""
        try:
            self._pins = Pins(this_node.pins())
        except PinsTakenError:
            raise
        except AgentError as error:
            self._not_pinned = str(error)
        self._containers = Containers()
        self._containers.set_filter(FilterSpec(host=True))
        self._feed = Feed()
        self._epoll = select.epoll()
        for fd in (self._containers.fd, self._feed.fd):
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def take_over(self) -> None:
        """Takes over the pinned sets. One that cannot be taken over is removed as soon as another one is in force."""
        current: dict[str, int] = self._containers.variables()
        if self._pins is None:
            return
        for name in self._pins.names():
            try:
                found, variables = in_force.take_over(self._pins, name, self._containers)
            except GadgetError as error:
                self._log(f"{name} is not taken over: {error}")
                continue
            if variables != current:
                found.digest = ""  # so that it is loaded again
            found.follow(self._containers)
            for before in self._sets:
                before.until = found.since
            self._sets.append(found)
            self._log(f"{name} is taken over: {', '.join(name for _, name in sorted(found.keys()))}")

    def turn(self) -> None:
        """Does everything that is due."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + _FILE_SECONDS
            self._check_file()
        has_sessions = self._feed.turn()
        complete = self._drain()
        if has_sessions and complete is not None:
            self._feed.complete(complete)
        if now >= self._next_state:
            self._check_stopped()
            self._write_state()

    def wait(self) -> None:
        """Waits until something happens, at most 0.2 s."""
        self._epoll.poll(0 if self._has_more else _TURN_SECONDS)

    @property
    def _has_more(self) -> bool:
        """True if there are more events to write."""
        return any(one.has_more for one in [*self._ended, *self._sets])

    def _check_file(self) -> None:
        """Puts the file's policies in force if the file has changed, or if they have to be loaded again."""
        if os.path.exists(presence.RELEASE):
            self._release()
        current = stamp(self._folder)
        if current == self._stamp:
            return
        self._stamp = current
        try:
            chosen, elf = read_installed(self._folder)
        except AgentError as error:
            self._problem = str(error)
            self._log(f"the policies in force are kept: {error}")
            self._next_state = 0.0
            return
        self._problem = ""
        again, self._reloads = self._reloads, False
        if len(self._sets) == 1 and self._sets[0].digest == chosen.digest and self._sets[0].owner == chosen.owner:
            self._sets[0].confirmed = True
            if not again:
                return
        self._switch_to(chosen, elf)

    def _release(self) -> NoReturn:
        """Takes all sets out of force, writes their last events, and ends. The process that requested this then
        removes the pins."""
        for one in self._sets:
            one.end(self._containers, None)
        if self._pins is not None:
            self._pins.close()
        self._ended, self._sets = [*self._ended, *self._sets], []
        while self._ended:
            self._drain()
            self.wait()
        raise SystemExit(0)

    def _check_stopped(self) -> None:
        """Requests that the set is loaded again, if another process has stopped hooks or removed pins."""
        if not self._sets:
            return
        newest = self._sets[-1]
        found = newest.stopped()
        is_ftrace_off = any(why == NO_FTRACE for why in found.values())
        if newest.pinned and self._pins is not None and not self._pins.is_complete(newest.pinned):
            found["pins"] = f"another process has removed some of {newest.pinned}"
        for what, why in found.items():
            if self._stopped.get(what) != why:
                self._log(f"{what} was stopped ({why}); since then, events are missing and calls were not denied")
        self._stopped = found
        if not found:
            self._not_reloaded, self._failures, self._reload_at = "", 0, 0.0
        elif not is_ftrace_off and time.monotonic() >= self._reload_at:
            self._reloads, self._stamp = True, ""

    def _switch_to(self, chosen: InstalledFile, elf: bytes) -> None:
        before = self._sets
        new = None if chosen is NOTHING else in_force.load(chosen, elf, self._containers)
        forget_kernel()
        if new and new.error and before and (before[-1].digest, before[-1].owner) == (chosen.digest, chosen.owner):
            # Some of its hooks may still be in force, so it is kept.
            self._failures += 1
            seconds = _RETRIES[min(self._failures, len(_RETRIES) - 1)]
            self._reload_at = time.monotonic() + seconds
            self._not_reloaded = f"the stopped policies cannot be loaded again: {new.error}"
            self._log(f"{self._not_reloaded}; next attempt in {seconds:.0f} s")
            self._write_state()
            return
        self._not_reloaded = ""
        self._sets = []
        self._note_former(before, chosen)
        if new:
            new.follow(self._containers)
            new.succeed(before)
            if self._pins is not None:
                new.pin(self._pins, self._containers.variables())
            else:
                new.not_pinned = self._not_pinned
            self._sets.append(new)
        for old in before:
            old.end(self._containers, self._pins)
        if self._pins is not None:
            for name in self._pins.names():
                if not any(one.pinned == name for one in self._sets):
                    self._pins.remove(name)
        for one in self._sets:
            self._describe(one)
        if not self._sets:
            self._log("no policies are in force")
        self._write_state()
        self._ended += before  # their events are written in later turns, since there may be many

    def _note_former(self, before: Iterable[PoliciesInForce], chosen: InstalledFile) -> None:
        """Remembers policies that were pinned and are no longer installed, for example since their namespace was
        deleted."""
        for one in before:
            if not one.confirmed and (chosen is NOTHING or one.owner != chosen.owner):
                self._former |= {policy.title for policy in one.policies}
                self._log(f"{one.pinned} is removed: its policies are not installed any more")

    def _drain(self) -> int | None:
        """Writes new events. Returns the boot time in ns up to which they are complete; None if that is unknown."""
        settled = [one.settle() for one in self._sets]
        self._containers.drain()
        if changes := self._containers.take_changes():
            self._described |= {one.id: one for one in changes.containers}
            self._names |= changes.cgroups
        for one in self._ended[:]:
            self._write_losses(one)
            self._write_events(one.take_remaining())
            if one.closed:
                self._ended.remove(one)
                self._lost.pop(id(one), None)
        for one in self._sets:
            self._write_events(one.take())
            for warning in one.warnings():
                self._log(warning)
            self._write_losses(one)
        if self._has_more:
            return None
        for cgroup in self._removed:
            self._names.pop(cgroup, None)
        self._removed = self._containers.take_removed()
        if self._removed:
            known = set(self._names.values())
            self._described = {id: one for id, one in self._described.items() if id in known}
        if not self._sets or self._ended or not all(settled):
            return None
        return min(one.complete_until for one in self._sets)

    def _write_events(self, events: Iterable[LoggedEvent]) -> None:
        clocks = this_node.clocks()
        offset = clocks["realtime_ns"] - clocks["boot_ns"]
        for logged in events:
            self._write(line(logged, self._container(logged), self._node, offset))
            self._feed.send(logged)
        self._out.flush()

    def _container(self, logged: LoggedEvent) -> ContainerNames | None:
        id = self._names.get(logged.head.cgroup & ~ELSEWHERE)
        return self._described.get(id) if id else None

    def _write_losses(self, one: PoliciesInForce) -> None:
        lost = one.lost()
        if lost > self._lost.get(id(one), 0):
            self._lost[id(one)] = lost
            self._write(
                json.dumps({"rate_limit_info": {"number_of_dropped_process_events": str(lost)}} | self._envelope())
            )

    def _describe(self, one: PoliciesInForce) -> None:
        for state in one.state():
            ways = ", ".join(f"{hook.method} at {hook.by}" for hook in state.hooks)
            why = f": {state.error}" if state.error else ""
            self._log(f"policy {state.name}: {state.state}{why}{f' ({ways})' if ways else ''}")
        if one.not_pinned:
            self._log(f"in force only while this process runs: {one.not_pinned}")

    def _log(self, text: str) -> None:
        """Writes a message as JSON, like the events in the same log."""
        self._write(json.dumps({"message": text} | self._envelope()))
        self._out.flush()

    def _envelope(self) -> dict[str, str]:
        return {"node_name": self._node, "time": rfc3339(time.time_ns())}

    def _write(self, text: str) -> None:
        self._out.write(text + "\n")

    def _write_state(self) -> None:
        self._next_state = time.monotonic() + _STATE_SECONDS
        newest = self._sets[-1] if self._sets else None
        stopped = "; ".join(f"{what} was stopped: {why}" for what, why in self._stopped.items())
        state = PoliciesState(
            digest=newest.digest if newest else "",
            pinned=bool(newest and newest.pinned),
            not_pinned=newest.not_pinned if newest else "",
            problem=self._problem or self._not_reloaded or stopped,
            lost=newest.lost() if newest else 0,
            policies=newest.state() if newest else (),
            former=tuple(sorted(self._former)),
        )
        write_state(state)


def run(folder: str) -> int:
    """Runs until SIGTERM; policies stay in force. Returns the exit code."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    if os.path.exists(presence.RELEASE):
        return 0
    try:
        guard = Guard(folder, sys.stdout)
        guard.take_over()
        while not _stopped:
            guard.turn()
            guard.wait()
        return 0
    except AgentError as error:
        remedy = f"; try: {error.remedy}" if error.remedy else ""
        sys.stdout.write(json.dumps({"message": f"no policies are in force: {error}{remedy}"}) + "\n")
        sys.stdout.flush()
        return 1


_stopped: list[object] = []
"""The signals that arrived. An exception of a handler is lost if it is raised while libbpf calls back into Python."""


def _stop(number: object, _: object) -> None:
    _stopped.append(number)
    raise SystemExit(0)
