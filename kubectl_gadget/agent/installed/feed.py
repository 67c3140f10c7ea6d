"""Sends events of installed policies from the process that keeps them in force to sessions in the same pod.

The packets are those of installed_source.py. The trap: a slow session must not delay the log, so events that its socket
does not take are dropped and counted, and the count is sent to it.
"""

import json
import os
import socket
from contextlib import suppress

from kubectl_gadget.agent.installed.installed_source import COMPLETE, EVENT, LOST, NUMBER, PATH
from kubectl_gadget.agent.policies.log import LoggedEvent
from kubectl_gadget.wire.policy_events import event_spec

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
