"""Pods as policies know them: processes, each in a cgroup and a network namespace of its own, on one bridge.

The bridge is the node's, in a namespace of its own, too, so nothing of this machine's network is touched. What a pod is
to do is pickled, so it has to be a function of a module.
"""

import ctypes
import multiprocessing
import os
import socket
import struct
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kubectl_gadget.agent.host.cgroups import find_root
from kubectl_gadget.demo.pods import lay_cable, make_bridge, namespace_of
from tests.bpf.network import CLONE_NEWNET, ip
from tests.vm import modules
from tests.waiting import PATIENCE

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWPID = 0x20000000
NODE_V4 = "10.9.0.1"
SILENCE = 1.0
"""after which what does not come counts as dropped; the order of packets makes most tests need it once at most"""


class Worker:
    """A process in namespaces of its own, of the network and of others on request, which does what it is asked to. In a
    PID namespace of its own it is the first one there, and `pid` is its parent's."""

    def __init__(self, cgroup: Path | None = None, others: int = 0) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._pipe.close()
            _serve(theirs, cgroup, others)
        theirs.close()
        self.run(os.getpid)

    def run(self, deed: Callable[..., Any], *arguments: Any) -> Any:
        """What the deed returns there. Raises AssertionError with the traceback when it raises something."""
        self.begin(deed, *arguments)
        return self.end()

    def begin(self, deed: Callable[..., Any], *arguments: Any) -> None:
        self._pipe.send((deed, arguments))

    def end(self) -> Any:
        """The result of what was begun."""
        assert self._pipe.poll(PATIENCE), "it did not answer"
        good, value = self._pipe.recv()
        assert good, value
        return value

    def close(self) -> None:
        self._pipe.close()
        os.waitpid(self.pid, 0)


def _serve(pipe: Connection, cgroup: Path | None, others: int) -> None:
    try:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        if _libc.unshare(CLONE_NEWNET | others):
            raise OSError(ctypes.get_errno(), "unshare")
        if others & CLONE_NEWPID and (first := os.fork()):
            pipe.close()
            os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]))
        ip("link", "set", "lo", "up")
        while True:
            deed, arguments = pipe.recv()
            try:
                answer = (True, deed(*arguments))
            except BaseException:
                answer = (False, traceback.format_exc())
            pipe.send(answer)
    except EOFError:
        os._exit(0)
    finally:
        os._exit(1)


class Pod(Worker):
    """`v4` and `v6` are its addresses."""

    def __init__(self, namespace: str, name: str, number: int, cgroup: Path) -> None:
        cgroup.mkdir(parents=True)
        super().__init__(cgroup)
        self.namespace, self.name = namespace, name
        self.cgroup = cgroup
        self.cgroup_id = cgroup.stat().st_ino
        self.v4, self.v6 = f"10.9.0.{number}", f"fd09::{number}"

    def close(self) -> None:
        super().close()
        self.cgroup.rmdir()


def why_no_network() -> str | None:
    """Why pods cannot be given a network here, or None. The virtual machine's kernel has bridges as a module."""
    if os.geteuid() == 0:
        modules.load("bridge", "veth")
    node = Worker()
    try:
        for kind in (["bridge"], ["veth", "peer", "name", "other"]):
            node.run(ip, "link", "add", "probe", "type", *kind)
            node.run(ip, "link", "del", "probe")
    except AssertionError:
        return f"this kernel has no {kind[0]} (CONFIG_{kind[0].upper()}, or its module)"
    finally:
        node.close()
    return None


@contextmanager
def pods(names: Sequence[tuple[str, str]], network: bool = True) -> Iterator[list[Pod]]:
    """Pods (namespace, name), numbered from 11 on. Without a network they have loopback alone."""
    top = Path(find_root()) / f"network-pods-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        stack.callback(_remove, top)
        node = Worker()
        stack.callback(node.close)
        if network:
            make_bridge("bridge", f"{NODE_V4}/24", namespace_of(node.pid))
        found = []
        for number, (namespace, name) in enumerate(names, 11):
            pod = Pod(namespace, name, number, top / name)
            stack.callback(pod.close)
            found.append(pod)
            if network:
                addresses = [f"{pod.v4}/24", f"{pod.v6}/64"]
                lay_cable(pod.pid, f"pod{number}", "bridge", addresses, namespace_of(node.pid))
        yield found


def _remove(top: Path) -> None:
    with suppress(FileNotFoundError):
        top.rmdir()


_kept: dict[str, socket.socket] = {}
"""Of a worker: sockets that outlive one deed."""


def family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def listen(name: str, kind: socket.SocketKind, port: int) -> None:
    """A socket for both IPv4 and IPv6."""
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    # A connection that was cut off may still wait for its end, on this port.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        sock.listen(64)
    sock.settimeout(PATIENCE)
    _kept[name] = sock


def close(name: str) -> None:
    _kept.pop(name).close()


def connect(host: str, port: int, seconds: float = PATIENCE, keep: str = "") -> str:
    """ "connected", or the error's name, or "timeout"."""
    sock = socket.socket(family(host))
    sock.settimeout(seconds)
    try:
        sock.connect((host, port))
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return type(error).__name__
    else:
        if keep:
            _kept[keep] = sock
            return "connected"
        return "connected"
    finally:
        if not keep:
            sock.close()


def accept(name: str, keep: str = "") -> str:
    """The caller's address."""
    sock, address = _kept[name].accept()
    if keep:
        _kept[keep] = sock
    else:
        sock.close()
    return str(address[0]).removeprefix("::ffff:")


def send_to(host: str, port: int, data: bytes, name: str = "") -> str:
    """One datagram; "sent" or the error's name."""
    kept = _kept.get(name)
    sock = kept or socket.socket(family(host), socket.SOCK_DGRAM)
    if kept and kept.family == socket.AF_INET6 and ":" not in host:
        host = f"::ffff:{host}"
    try:
        sock.sendto(data, (host, port))
    except OSError as error:
        return type(error).__name__
    finally:
        if name:
            _kept[name] = sock
        else:
            sock.close()
    return "sent"


def connect_datagrams(name: str, host: str, port: int) -> str:
    """A socket of UDP with another end."""
    sock = socket.socket(family(host), socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    _kept[name] = sock
    try:
        sock.connect((host, port))
    except OSError as error:
        return type(error).__name__
    return "connected"


def send(name: str, data: bytes) -> str:
    try:
        _kept[name].send(data)
    except OSError as error:
        return type(error).__name__
    return "sent"


def receive(name: str, seconds: float = PATIENCE) -> tuple[bytes, tuple[str, int]] | None:
    """What comes and from where; None when nothing does."""
    sock = _kept[name]
    sock.settimeout(seconds)
    try:
        data, address = sock.recvfrom(65536)
    except TimeoutError:
        return None
    return data, (str(address[0]).removeprefix("::ffff:"), address[1]) if address else ("", 0)


def send_raw(destination: str, packets: Sequence[tuple[str, int, int, bytes]], fragment: int = 0) -> None:
    """Datagrams of UDP with any source: (source, source port, port, data). IPv4 lets them go without a checksum.
    `fragment`: as if they were a part of a packet that begins there, in units of 8 bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for source, source_port, port, data in packets:
            udp = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, fragment, 64, socket.IPPROTO_UDP, 0)
            head += socket.inet_aton(source) + socket.inet_aton(destination)
            sock.sendto(head + udp, (destination, 0))
