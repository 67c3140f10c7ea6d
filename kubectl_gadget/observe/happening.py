"""The events that a story can contain, as decoded from records; lines.py, messages.py and story.py turn them into text.

To add events of another kind, write a `Decoder`: it maps a batch of a gadget's records to one event or several per row,
each with its process as an `ExecId`. The story (story.py) finds the process. Later readers have no batch, so
the decoder reads everything that needs one (wall times).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from kubectl_gadget.kube.addresses import UNKNOWN_PEER, Peer
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.wire.policy_events import Credentials, ExecId, PolicyEvent


@dataclass(frozen=True)
class ProcessEvent:
    """A process was forked, executed a program, ended, or existed before: a row of trace process."""

    operation: Literal["fork", "exec", "exit", "running"]
    process: ExecId
    parent: ExecId | None
    tid: int
    container_pid: int
    started: int
    """time of the fork, wall time in ns"""
    credentials: Credentials
    auid: int | None
    namespaces: dict[str, int]
    """inode numbers by kind"""
    host_namespaces: int | None
    """bits in the order of linux_process.NAMESPACE_KINDS; None: unknown"""
    comm: str
    exe: str | None = None
    path: str | None = None
    """for exec: as the caller wrote it"""
    interpreted: bool = False
    """`path` is a script, which `exe` interprets"""
    args: tuple[str, ...] | None = None
    args_cut: bool = False
    cwd: str | None = None
    inode: int = 0
    links: int = 0
    gained: int = 0
    """bits of gadget_gained"""
    code: int = 0
    signal: int = 0


@dataclass(frozen=True)
class FileEvent:
    """Something was done with a file that is followed from open to the last close."""

    operation: str
    """open, read, write, mmap, truncate, close; `is open`: opened before the run"""
    process: ExecId
    tid: int
    path: str | None
    """at the time of the event; None: it could not be read"""
    file_id: int
    """the same from open to the last close, in all processes that share the open file"""
    inode: int
    device: int
    flags: int = 0
    """the flags with which it is open"""
    bytes: int | None = None
    protection: str = ""
    """for mmap: r-x"""
    credentials: Credentials | None = None
    """at the time of the event; None: as when the process began"""
    comm: str = ""
    """the thread's name"""


@dataclass(frozen=True)
class ConnectionEvent:
    """A connection was made, accepted or closed, or a DNS name was looked up."""

    operation: Literal["connect", "accept", "close", "dns"]
    process: ExecId
    tid: int
    protocol: str
    source: tuple[str, int]
    """address and port of the end that connected or asked"""
    target: tuple[str, int]
    flow_id: str
    """the id that `kubectl gadget flows` shows"""
    error: str = ""
    sent: int | None = None
    received: int | None = None
    duration: int | None = None
    """in ns"""
    name: str = ""
    """for dns; so are the members up to `answers`"""
    type: str = ""
    rcode: str = ""
    answers: tuple[str, ...] = ()
    comm: str = ""
    """the thread's name"""
    peer: Peer = UNKNOWN_PEER
    """the owner of the other end's address"""
    is_called: bool = False
    """the other end is the source"""
    count: int = 1
    """how many connections or questions it stands for (repeats.py)"""

    @property
    def what(self) -> str:
        """`tcp 10.0.0.1:40000 -> shop/db-0:80 ECONNREFUSED`, or `A example.com NOERROR 10.0.0.2`."""
        if self.operation == "dns":
            return " ".join(filter(None, (self.type, self.name, self.rcode, ",".join(self.answers))))
        ends = []
        for is_peer, (ip, port) in ((self.is_called, self.source), (not self.is_called, self.target)):
            text = self.peer.text(ip) if is_peer else ip
            ends.append(text if not port else f"[{text}]:{port}" if text == ip and ":" in ip else f"{text}:{port}")
        return " ".join(filter(None, (self.protocol.lower(), f"{ends[0]} -> {ends[1]}", self.error)))


Happening = ProcessEvent | PolicyEvent | FileEvent | ConnectionEvent
Decoder = Callable[[Batch], Sequence[Happening | Sequence[Happening]]]
"""Returns one event or several for each row of the batch, in their order."""


def event_type(happening: Happening) -> str:
    """The name in JSON, such as `process_exec`; empty for a fork, which is never shown."""
    if isinstance(happening, PolicyEvent):
        return f"process_{happening.hook}"
    if isinstance(happening, FileEvent):
        return "process_file"
    if isinstance(happening, ConnectionEvent):
        return f"process_{happening.operation}"
    return {"exec": "process_exec", "running": "process_exec", "exit": "process_exit"}.get(happening.operation, "")
