"""BPF programs, maps and links that a process holds, and waiting until the kernel has freed them.

Other work on the machine loads BPF, too, so the lists of before and after prove nothing. What a process held is known
by its ids, and the kernel gives no id twice.
"""

import ctypes
import re
from pathlib import Path

from tests.waiting import wait_until

Held = frozenset[tuple[str, int]]
"""Kind (prog, map, link) and id."""


def held_by(pid: int) -> Held:
    """What the process has open now."""
    found = set[tuple[str, int]]()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            info = path.read_text()
        except OSError:
            continue  # closed meanwhile
        found |= {(kind, int(id)) for kind, id in re.findall(r"^(prog|map|link)_id:\s+(\d+)$", info, re.MULTILINE)}
    return frozenset(found)


def existing() -> Held:
    """All that the kernel has, by its ids alone. `bpftool map show` opens each map. While an array of programs loses
    its last holder, the kernel can then take a reference too many, and keep the array for ever."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    found = set[tuple[str, int]]()
    for kind in ("prog", "map", "link"):
        following, last = getattr(libbpf, f"bpf_{kind}_get_next_id"), ctypes.c_uint32(0)
        while following(last, ctypes.byref(last)) == 0:
            found.add((kind, last.value))
    return frozenset(found)


def until_freed(held: Held) -> None:
    """The kernel frees things a moment after the last who held them."""
    assert {kind for kind, _ in held} == {"prog", "map", "link"}, "it held too little to prove anything"
    wait_until(lambda: not held & existing(), "the kernel to free them", state=lambda: sorted(held & existing()))


def until_gone(pid: int) -> None:
    """Until there is no such process, or but a zombie that its parent has not asked for."""

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(is_gone, f"the end of process {pid}")
