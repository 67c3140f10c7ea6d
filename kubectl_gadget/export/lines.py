"""Rows as lines: JSON lines, and syslog messages of RFC 5424 whose text is the JSON line; and the ways that they go.

The lines are as in `-o json`, without anything that could end a line or a message early: control characters
are escaped. Messages over TCP and TLS are counted (RFC 6587, RFC 5425), so a receiver needs no separator.
"""

import os
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Any

from kubectl_gadget import __version__
from kubectl_gadget.errors import UsageError
from kubectl_gadget.export.conventions import LEVELS, levels
from kubectl_gadget.export.delivery import Item, Refused
from kubectl_gadget.export.targets import STANDARD_OUTPUT, Target, Tls
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.columns import EVENT
from kubectl_gadget.output.escape import json_line
from kubectl_gadget.output.machine import gap_record
from kubectl_gadget.output.row_texts import LATE, MemberRows
from kubectl_gadget.rows.amounts import Timestamps
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.members import filter_members, owner_texts
from kubectl_gadget.rows.rows import Rows

_CONNECT_SECONDS = 10.0
_END_SECONDS = 1.0
_FACILITY = 16
"""local0"""
_NOTICE = 5
_APP_NAME = "kubectl-gadget"
_LONGEST_DATAGRAM = 8192
"""Longer messages are cut: receivers need not take more than 2,048 bytes (RFC 5424), and the usual ones take this."""
_LONGEST_HOST, _LONGEST_ID = 255, 32


class JsonLines:
    """Each row as a line of JSON, with the member `event`."""

    def __init__(self, gadgets: Sequence[Gadget]) -> None:
        names = [column.name for gadget in gadgets for column in gadget.columns]
        # Rows with objects have the members of these once more, for columns.
        has_objects = any("." in name for name in names)
        chosen = [name for name in names if has_objects and "." not in name and name != LATE]
        self._members = MemberRows(chosen, event=EVENT not in names)

    def encode(self, rows: Rows) -> list[bytes]:
        """Return all lines as one piece."""
        return ["\n".join([*self.lines(rows), ""]).encode("utf-8", "replace")]

    def lines(self, rows: Rows) -> list[str]:
        """Return the rows without the ends of lines."""
        return self._members.lines(rows)

    def gap(self, node: str, seconds: float, until_ns: int) -> list[bytes]:
        """Return the record of missing time, as `-o json` has it."""
        return [json_line(gap_record(node, seconds, until_ns)).encode() + b"\n"]


class SyslogMessages:
    """Each row as a message of RFC 5424. `is_counted`: each begins with its length."""

    def __init__(self, gadgets: Sequence[Gadget], is_counted: bool) -> None:
        self._lines = JsonLines(gadgets)
        self._is_counted = is_counted

    def encode(self, rows: Rows) -> list[bytes]:
        """Return the messages, one by one for datagrams, else as one piece."""
        heads = rows.collect(_heads)
        messages = [
            f"{head}{line}".encode("utf-8", "replace")
            for head, line in zip(heads, self._lines.lines(rows), strict=True)
        ]
        return self._framed(messages)

    def gap(self, node: str, seconds: float, until_ns: int) -> list[bytes]:
        """Return the record of missing time."""
        record = gap_record(node, seconds, until_ns)
        head = _head(4, str(record["timestamp"]), _visible(node, _LONGEST_HOST), "-", "gap")
        return self._framed([(head + json_line(record)).encode()])

    def _framed(self, messages: list[bytes]) -> list[bytes]:
        if self._is_counted:
            return [b"".join(b"%d %b" % (len(message), message) for message in messages)]
        return [message if len(message) <= _LONGEST_DATAGRAM else _cut(message) for message in messages]


def _cut(message: bytes) -> bytes:
    return message[:_LONGEST_DATAGRAM].decode("utf-8", "ignore").encode()


def _heads(batch: Batch) -> list[str]:
    members = filter_members(batch.gadget)
    hosts = owner_texts(batch, "node")
    nodes = [_visible(name, _LONGEST_HOST) for name in hosts.words]
    pid = members.get("pid")
    pids: Any = batch.vector("pid", pid.read).values() if pid is not None else repeat(None, len(batch))
    event = _visible(batch.gadget.event, _LONGEST_ID)
    times = Timestamps(batch.wall_ns()).values()
    severities = [LEVELS[level].syslog for level in levels(batch).tolist()]
    return [
        _head(severity, time, nodes[code], "-" if pid is None else str(pid), event)
        for severity, time, code, pid in zip(severities, times, hosts.codes.tolist(), pids, strict=True)
    ]


def _head(severity: int, time: str, node: str, pid: str, event: str) -> str:
    """Return all of a message before its text. A time has at most six digits after the point."""
    time = f"{time[:26]}Z"
    data = f'[origin software="{_APP_NAME}" swVersion="{__version__}"]'
    return f"<{_FACILITY * 8 + severity}>1 {time} {node} {_APP_NAME} {pid} {event} {data} "


def _visible(name: str, most: int) -> str:
    """Return a name with only the characters that a head may have: nodes choose their names."""
    return "".join(one if "!" <= one <= "~" else "?" for one in name[:most]) or "-"


# Ways.


class FileTransport:
    """Appends to a file, or writes to standard output. After a full disk it goes on where it stopped."""

    most_items = 64
    linger = 0.0
    why = ""

    def __init__(self, path: str) -> None:
        """Create the file. Raises UsageError."""
        self.taken = 0
        self._path = path
        self._file: int | None = None
        self._rest = b""
        if path == STANDARD_OUTPUT:
            self._file = 1
        elif not Path(path).is_fifo():  # opening one waits for its reader
            try:
                self._file = os.open(path, _APPEND, 0o644)
            except OSError as error:
                raise UsageError(f"--export jsonl={path}: {error.strerror}") from None

    def send(self, items: Sequence[Item]) -> int:
        """See Transport."""
        self.taken = 0
        if self._file is None:
            self._file = os.open(self._path, _APPEND, 0o644)
        for item in items:
            self._rest = self._rest or b"".join(item.data)
            while self._rest:
                try:
                    self._rest = self._rest[os.write(self._file, self._rest) :]
                except BrokenPipeError as error:
                    raise Refused(f"no process reads it: {error.strerror}") from None
            self.taken += 1
        return 0

    def end(self) -> None:
        """See Transport."""
        if self._file is not None and self._path != STANDARD_OUTPUT:
            os.close(self._file)
            self._file = None


_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class SocketTransport:
    """Writes to a connection, which it opens again after an error. Rows that the other end had not read are then
    lost, which TCP does not tell."""

    most_items = 64
    linger = 0.0
    why = ""

    def __init__(self, target: Target, tls: Tls) -> None:
        self.taken = 0
        self._target = target
        self._tls = tls
        self._socket: socket.socket | None = None

    def send(self, items: Sequence[Item]) -> int:
        """See Transport."""
        self.taken = 0
        try:
            if self._socket is None:
                self._socket = self._connected()
            elif _has_ended(self._socket):
                raise ConnectionResetError("the other end has closed the connection")
            for item in items:
                for piece in item.data:
                    self._write(piece)
                self.taken += 1
        except (OSError, ValueError) as error:
            self._close()
            raise error if isinstance(error, OSError) else OSError(str(error)) from None
        return 0

    def _write(self, piece: bytes) -> None:
        assert self._socket is not None
        self._socket.sendall(piece)

    def _connected(self) -> socket.socket:
        target = self._target
        if target.scheme == "unix":
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(_CONNECT_SECONDS)
            made.connect(target.host)
            return made
        made = socket.create_connection((target.host, target.port), _CONNECT_SECONDS)
        return made if target.scheme == "tcp" else context(self._tls).wrap_socket(made, server_hostname=target.host)

    def end(self) -> None:
        """See Transport. What the other end has sent must be read: with unread data, the kernel resets the connection,
        and the other end loses what it had not read. TLS always sends something."""
        if self._socket is None:
            return
        with suppress(OSError, ValueError):
            self._socket.settimeout(_END_SECONDS)
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket = self._socket.unwrap()
            self._socket.shutdown(socket.SHUT_WR)
            until = time.monotonic() + _END_SECONDS
            while time.monotonic() < until and self._socket.recv(4096):
                pass
        self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class DatagramTransport(SocketTransport):
    """Sends each message in a datagram."""

    def _write(self, piece: bytes) -> None:
        assert self._socket is not None
        self._socket.send(piece)

    def _connected(self) -> socket.socket:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            self._target.host, self._target.port, type=socket.SOCK_DGRAM
        )
        made = socket.socket(family, kind, protocol)
        made.connect(address)
        return made


def context(tls: Tls) -> ssl.SSLContext:
    """Return what TLS needs. Raises OSError and ValueError."""
    made = ssl.create_default_context(cafile=tls.ca)
    if tls.cert is not None:
        made.load_cert_chain(tls.cert, tls.key)
    return made


def _has_ended(connection: socket.socket) -> bool:
    """Return True if the other end has closed a connection, in which it has nothing to say."""
    before = connection.gettimeout()
    connection.settimeout(0.0)
    try:
        if isinstance(connection, ssl.SSLSocket):
            return connection.recv(1) == b""
        return connection.recv(1, socket.MSG_PEEK) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    finally:
        connection.settimeout(before)
