"""Files that policies give by path, and the kernel compares by device and inode, in every container's own root.

They are looked up when a container is first seen, and again later, since a file may be created meanwhile. A file that
was found stays a match until its container has ended. The trap: stat() may report another device than the kernel's
(overlayfs, btrfs), so mountinfo and fdinfo are read instead.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.host.foreign_files import Rechecks, RootId, identity_inside, through_one_of
from kubectl_gadget.wire.policy_messages import SameFile

Identity = tuple[int, int]
"""Device and inode, as the kernel stores them."""


class SameFiles:
    """The files of one hook. `entries` are its `files` (docs/protocol.md, "Policies"), `map` is its policy_files."""

    def __init__(self, map: BpfMap, entries: Iterable[SameFile], warn: Callable[[str], None]) -> None:
        self._map = map
        self._warn = warn
        self._entries = [(entry.test, entry.path, int.from_bytes(entry.selectors, "little")) for entry in entries]
        self._found: dict[RootId, dict[str, set[Identity]]] = {}
        self._rechecks = Rechecks[RootId]()
        self._written: dict[tuple[int, Identity], int] = {}

    def turn(self, roots: Mapping[RootId, Sequence[int]]) -> None:
        """Searches roots that are new, or were not searched for a while. `roots`: the processes of each."""
        for gone in self._found.keys() - roots.keys():
            del self._found[gone]
        for root in self._rechecks.due(roots.keys()):
            known = self._found.setdefault(root, {})
            for path in {path for _, path, _ in self._entries}:
                if (identity := identity_of(roots[root], path)) is not None:
                    known.setdefault(path, set()).add(identity)
        self._write()

    def _write(self) -> None:
        wanted: dict[tuple[int, Identity], int] = {}
        for test, path, selectors in self._entries:
            for known in self._found.values():
                for identity in known.get(path, ()):
                    wanted[test, identity] = wanted.get((test, identity), 0) | selectors
        for key in self._written.keys() - wanted.keys():
            self._map.remove(_key(*key))
            del self._written[key]
        try:
            for key, selectors in wanted.items():
                if self._written.get(key) != selectors:
                    self._map.put(_key(*key), selectors.to_bytes(self._map.value_size, "little"))
                    self._written[key] = selectors
        except Failure as failure:  # such as a full map; the next turn tries again
            self._warn(f"files of policies are not compared in some containers: {failure}")


def identity_of(pids: Sequence[int], path: str) -> Identity | None:
    """Returns the identity of the file that these processes have at a path. None if there is no file, if all of the
    processes have ended, or if the file may be served by FUSE (host/foreign_files.py)."""
    try:
        return through_one_of(pids, lambda pid: identity_inside(pid, path))
    except OSError:
        return None


def _key(test: int, identity: Identity) -> bytes:
    """Returns a `struct policy_number_key`."""
    return struct.pack("<IIQ", test, *identity)
