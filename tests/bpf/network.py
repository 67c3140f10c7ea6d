"""Sockets over loopback, in a network namespace that the tests make themselves, and addresses as records have them.

A thread's network namespace is its own, so whoever enters one here runs in a process of its own.
"""

import ctypes
import ipaddress
import os
import pickle
import signal
import socket
import struct
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kubectl_gadget.demo.pods import ip_lines

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
V4, V6 = "127.0.0.1", "::1"
FAMILIES = {V4: socket.AF_INET, V6: socket.AF_INET6, "::ffff:127.0.0.1": socket.AF_INET6}
_libc = ctypes.CDLL(None, use_errno=True)


def address(record: int) -> str:
    """A gadget_ip, which the tracer gives as a number, as text."""
    found = ipaddress.IPv6Address(record.to_bytes(16, "little"))
    return str(found.ipv4_mapped or found)


def ip(*words: str, within: str = "") -> None:
    """Runs ip once, in the network namespace of this file."""
    ip_lines([" ".join(words)], within)


def in_namespace(deed: Callable[[], Any]) -> tuple[int, Any]:
    """Runs `deed` in a child process in a new network namespace with nothing but loopback. Returns its pid and what the
    deed returned; what it raised is raised here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            if _libc.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            answer = (True, deed())
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        good, value = pickle.load(file)
    os.waitpid(pid, 0)
    assert good, value
    return pid, value


@contextmanager
def alone_on_cpu() -> Iterator[None]:
    """Inside, nothing but this process and a child of it runs on its CPU, even while it sleeps.

    A socket's timers fire there, whoever the CPU is at. There are machines (seen with 6.18) whose kernel runs no BPF
    program while a thread of their init is the current one, so that whatever a timer does then is not seen.
    """
    before = os.sched_getaffinity(0)
    cpu = min(before)
    spinner = os.fork()
    if spinner == 0:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        while True:
            pass
    try:
        for pid, priority in ((spinner, 1), (0, 2)):
            os.sched_setaffinity(pid, {cpu})
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(priority))
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, before)
        os.kill(spinner, signal.SIGKILL)
        os.waitpid(spinner, 0)


def listener(host: str, port: int = 0) -> socket.socket:
    """A TCP socket that listens on a port of `host`, by default a free one; of ::ffff:127.0.0.1, an IPv6 socket that
    takes IPv4."""
    sock = socket.socket(FAMILIES[host])
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, port))
    sock.listen(64)
    return sock


def accept_late(host: str, request: bytes, answer: bytes, comm: str) -> tuple[str, int]:
    """A client's request has arrived before the server, a process called `comm`, accepts the connection. Returns the
    client's address and port."""
    with listener(host) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(request)
        # What a socket sends over loopback is in the other one's queue when sendall() returns.
        child = os.fork()
        if child == 0:
            with open("/proc/self/comm", "w") as name:
                name.write(comm)
            accepted, _ = server.accept()
            accepted.recv(len(request), socket.MSG_WAITALL)
            accepted.sendall(answer)
            os._exit(0)
        client.recv(len(answer), socket.MSG_WAITALL)
        os.waitpid(child, 0)
        name, port, *_ = client.getsockname()
        return name, port


def unused_port(host: str) -> int:
    """A port of `host` without a listener: in the namespace, only the test could have one."""
    with listener(host) as sock:
        port: int = sock.getsockname()[1]
    return port


def drop_all(sock: socket.socket) -> None:
    """From now on the socket takes no packet any more: a filter with the one instruction `ret 0`."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(instruction))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def drop_nothing(sock: socket.socket) -> None:
    """Undoes drop_all."""
    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def sent_again(sock: socket.socket) -> int:
    """Segments that a TCP socket has sent again: tcpi_total_retrans of struct tcp_info."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    number: int = struct.unpack_from("I", info, 100)[0]
    return number
