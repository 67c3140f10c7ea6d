"""Receivers of exports, with real sockets: they collect what comes, and may be stopped and started again."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme


class Receiver:
    """Collects the bytes of all connections to it, or datagrams."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.data = b""
        self.datagrams: list[bytes] = []
        self.connections = 0
        self.reads = threading.Event()
        """cleared: connections are accepted and nothing is read"""
        self.reads.set()
        self._listening = listening
        self._context = context
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._receive if self.is_datagram else self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def is_datagram(self) -> bool:
        return self._listening.type == socket.SOCK_DGRAM

    @property
    def port(self) -> int:
        found: int = self._listening.getsockname()[1]
        return found

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                thread = threading.Thread(target=self._read, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _read(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            while self.reads.wait() and (piece := connection.recv(65536)):
                self.data += piece
        connection.close()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._listening.recv(65536):
                self.datagrams.append(piece)

    def close(self) -> None:
        self.reads.set()
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)


def bound(port: int = 0, kind: int = socket.SOCK_STREAM) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


@contextmanager
def receiver(
    port: int = 0, kind: int = socket.SOCK_STREAM, context: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    made = Receiver(bound(port, kind), context)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def unix_receiver(path: Path) -> Iterator[Receiver]:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    made = Receiver(listening)
    try:
        yield made
    finally:
        made.close()


def unused_port() -> int:
    """Return a port at which nobody listens."""
    with bound() as free:
        port: int = free.getsockname()[1]
        return port


class Certificates:
    """A certificate authority with a server's and a client's certificate, as files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.example")
        self.ca, self.cert, self.key = (str(folder / name) for name in ("ca.pem", "client.pem", "client.key"))
        authority.cert_pem.write_to_path(self.ca)
        client.private_key_pem.write_to_path(self.key)
        client.cert_chain_pems[0].write_to_path(self.cert)
        self._authority = authority

    def context(self, asks: bool = False) -> ssl.SSLContext:
        """Return a server's context. `asks`: clients need a certificate."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.configure_cert(made)
        if asks:
            made.verify_mode = ssl.CERT_REQUIRED
            self._authority.configure_trust(made)
        return made
