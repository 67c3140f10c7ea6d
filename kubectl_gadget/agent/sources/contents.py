"""Digests of files that programs have opened: taken from a gadget's map (bpf/include/gadget/files/content.h), read, and
sent in STACKS frames, as stacks with one frame, before the records that refer to them.

The agent reads a file through a process that sees it, and only if device and inode are those that the kernel opened.
A container chooses which files these are, so bytes and time for them are limited, and nothing but digests leaves the
node. And a file may be changed later, so one that is opened again is looked at again after some seconds.
"""

import os
import struct
import time

from kubectl_gadget.agent.bpf.maps import Batches, BpfMap
from kubectl_gadget.agent.host.foreign_files import identity_inside, open_inside, through_one_of
from kubectl_gadget.wire.agent_messages import StackNames

_KEPT = struct.Struct("<2IQII512s")
"""struct gadget_kept_content"""
_ID = struct.Struct("<Q")
_AGAIN = 10.0
"""Seconds after which a file is looked at again."""
_MOST_AT_ONCE = 64
_LARGEST = 64 << 20
_MOST_BYTES, _BYTES_A_SECOND = 512 << 20, 16 << 20
"""Bytes that may be read without a pause, and bytes that are added each second: what a container loads as it starts is
read, but no container keeps the agent from its events."""
_MOST_KNOWN = 8192
_CHUNK = 1 << 20


class Contents:
    """The files in the map `gadget_contents` of a gadget's object."""

    def __init__(self, map: BpfMap) -> None:
        self._batches = Batches(map, _MOST_AT_ONCE)
        self._sent: dict[int, float] = {}
        """when the digest of each id was sent last"""
        self._digests: dict[tuple[int, ...], str] = {}
        """of files, by what changes with their contents"""
        self._new: dict[int, str] = {}
        self._left = float(_MOST_BYTES)
        self._left_at = time.monotonic()

    def take(self, now: float) -> None:
        """Read new files, while their processes exist. `now` is monotonic."""
        self._left = min(float(_MOST_BYTES), self._left + (now - self._left_at) * _BYTES_A_SECOND)
        self._left_at = now
        for keys, values in self._batches.take():
            for key, value in zip(keys, values, strict=True):
                id = _ID.unpack(key)[0]
                if now - self._sent.get(id, -_AGAIN) >= _AGAIN and (digest := self._digest(value)):
                    if len(self._sent) >= _MOST_KNOWN:
                        self._sent.clear()
                    self._sent[id] = now
                    self._new[id] = digest

    def take_new(self, gadget: int) -> StackNames | None:
        """Return the digests that are new since the last call, or None. `gadget` is the index in RUN."""
        if not self._new:
            return None
        texts = list(dict.fromkeys(self._new.values()))
        stacks = {id: (texts.index(text),) for id, text in self._new.items()}
        self._new = {}
        return StackNames(gadget=gadget, first=0, frames=tuple(texts), stacks=stacks)

    def _digest(self, value: bytes) -> str:
        """Return the digest; empty: it cannot be had."""
        *pids, inode, device, length, names = _KEPT.unpack(value)
        path = "/" + "/".join(os.fsdecode(names[:length]).rstrip("\0").split("\0")[::-1])

        def read(pid: int) -> str:
            return self._read(pid, path) if identity_inside(pid, path) == (device, inode) else ""

        try:
            return through_one_of(dict.fromkeys(pids), read) or ""
        except (OSError, ValueError):
            return ""

    def _read(self, pid: int, path: str) -> str:
        """Raises OSError."""
        file = open_inside(pid, path)
        try:
            status = os.fstat(file)
            key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            if (known := self._digests.get(key)) is not None:
                return known
            if status.st_size > min(_LARGEST, self._left):
                return ""
            found = self._sum(file, status.st_size)
        finally:
            os.close(file)
        if len(self._digests) >= _MOST_KNOWN:
            self._digests.clear()
        self._digests[key] = found
        return found

    def _sum(self, file: int, size: int) -> str:
        """Raises OSError."""
        import hashlib  # loads libcrypto, 4 MB that few sessions need

        digest, left = hashlib.sha256(), size
        while left > 0 and (data := os.read(file, min(left, _CHUNK))):
            digest.update(data)
            left -= len(data)
        self._left -= size - left
        return digest.hexdigest()
