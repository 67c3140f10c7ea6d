"""Policies that follow files: from open through dup, fork and descriptor passing to the last close, one id.

The hook at which a file is first seen differs: fd_install needs a kprobe or a trampoline, the exit of openat neither.
"""

import array
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf.syscall_programs import SyscallObject
from kubectl_gadget.observe.decoders import event
from kubectl_gadget.observe.lines import shape
from kubectl_gadget.policies.compiler.policies import Match
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.bpf import compat
from tests.bpf.policy_engine import Enforcer, in_force

pytestmark = pytest.mark.bpf
TALK = Path(__file__).parent.parent / "policies" / "follow_fd.yaml"
FOLLOWING = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: following}
spec:
  tracepoints:
  - subsystem: syscalls
    event: sys_exit_openat
    args: [{index: 5, type: fd}]
    selectors:
    - matchArgs: [{index: 5, operator: Prefix, values: ["%s/"]}]
      matchActions: [{action: FollowFD, argFd: 5, argName: 5}]
  kprobes:
  - call: sys_write
    syscall: true
    args: [{index: 0, type: fd}, {index: 1, type: char_buf, sizeArgIndex: 3}, {index: 2, type: size_t}]
  - call: sys_read
    syscall: true
    return: true
    args: [{index: 0, type: fd}, {index: 1, type: char_buf, returnCopy: true}]
    returnArg: {type: int}
  - call: sys_close
    syscall: true
    args: [{index: 0, type: int}]
    selectors: [{matchActions: [{action: UnfollowFD, argFd: 0, argName: 0}]}]
"""


@contextmanager
def following(text: str) -> Iterator[Enforcer]:
    (policy,) = parse_policies([("policy.yaml", text)], "default")
    with in_force(policy, pid=0) as enforcer:
        yield enforcer


def told(matches: list[Match]) -> list[tuple[str, int]]:
    """What was done, and by which process."""
    return [(match.place.hook.target.rpartition("_")[2], match.found.exec.pid) for match in matches]


def in_child(deed: Callable[[], object]) -> int:
    """Its number."""
    pid = os.fork()
    if not pid:
        deed()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    return pid


def test_one_id_from_open_to_the_last_close_in_all_processes(tmp_path: Path) -> None:
    with following(FOLLOWING % tmp_path) as enforcer:
        file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        os.write(file, b"first")
        copy = os.dup(file)
        os.close(file)
        child = in_child(lambda: os.write(copy, b"second"))
        os.lseek(copy, 0, os.SEEK_SET)
        os.read(copy, 100)
        os.close(copy)
        matches = enforcer.matches()
        assert enforcer.lost == {}
    me = os.getpid()
    assert told(matches) == [
        *(("openat", me), ("write", me), ("close", me), ("write", child), ("read", me), ("close", me)),
    ]
    assert len({match.found.file_id for match in matches}) == 1
    assert matches[0].found.file_id
    texts = [value.text for match in matches for value in match.values[1:2] if value]
    assert texts == [b"first", b"second", b"firstsecond"]


def test_a_file_that_is_opened_again_has_another_id(tmp_path: Path) -> None:
    with following(FOLLOWING % tmp_path) as enforcer:
        for _ in range(3):
            (tmp_path / "file").write_bytes(b"text")
        matches = enforcer.matches()
    assert [what for what, _ in told(matches)] == ["openat", "write", "close"] * 3
    ids = [match.found.file_id for match in matches]
    assert len(set(ids)) == 3
    assert [ids[at] for at in (0, 3, 6) for _ in range(3)] == ids


def test_a_descriptor_that_was_passed_on_is_of_the_same_file(tmp_path: Path) -> None:
    here, there = socket.socketpair()

    def receive() -> None:
        _, ancillary, _, _ = there.recvmsg(1, socket.CMSG_SPACE(4))
        numbers = array.array("i")
        numbers.frombytes(ancillary[0][2])
        os.write(numbers[0], b"text")

    with here, there, following(FOLLOWING % tmp_path) as enforcer:
        file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
        os.close(file)
        child = in_child(receive)
        matches = enforcer.matches()
    assert ("write", child) in told(matches)
    assert len({match.found.file_id for match in matches}) == 1


def test_what_is_not_followed_is_not_reported(tmp_path: Path) -> None:
    with following(FOLLOWING % (tmp_path / "other")) as enforcer:
        (tmp_path / "file").write_bytes(b"text")
        (tmp_path / "file").read_bytes()
        assert enforcer.matches() == []


def test_a_file_that_is_closed_by_int_0x80_is_forgotten(tmp_path: Path) -> None:
    compat.needs()
    with following((FOLLOWING % tmp_path).partition("  - call: sys_close")[0]) as enforcer:
        file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        assert compat.call("close", file) == 0
        assert [what for what, _ in told(enforcer.matches())] == ["openat"]
        assert list(enforcer.attached[0].map("gadget_followed").keys()) == []


def test_a_file_is_forgotten_where_its_process_ends(tmp_path: Path) -> None:
    with following(FOLLOWING % tmp_path) as enforcer:
        in_child(lambda: os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
        assert [what for what, _ in told(enforcer.matches())] == ["openat"]
        assert list(enforcer.attached[0].map("gadget_followed").keys()) == []


def test_the_talks_policy_runs_as_it_was_written() -> None:
    # A folder of the process's own, since /etc may be read-only.
    name = "/etc/ssl/followed"
    script = f"import os; file = os.open({name!r}, os.O_RDWR | os.O_CREAT); os.write(file, b'x' * 1275); os.close(file)"
    inside = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /etc/ssl; exec "$@"', "sh", sys.executable, "-S"]
    with following(TALK.read_text()) as enforcer:
        with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "300"]) as container:
            (first,) = _children(container.pid)
            # As kubectl exec: a process of the container that its first one did not start.
            enter = ["nsenter", f"--pid=/proc/{first}/ns/pid", *inside]
            try:
                subprocess.run([*enter, "-c", script], check=True)
            finally:
                container.kill()
        matches = [match for match in enforcer.matches() if _path(match) == os.fsencode(name)]
    shapes = [shape(event(match, 0)) for match in matches]
    assert [" ".join([emoji, word, *filter(None, parts)]) for emoji, word, parts in shapes] == [
        f"📬 open {name}",
        f"📝 write {name} 1275 bytes",
        f"📪 close {name}",
    ]
    assert len({match.found.file_id for match in matches}) == 1


def _path(match: Match) -> bytes:
    """Of the file among its arguments."""
    return next((value.text for value in match.values if value and value.text[:1] == b"/"), b"")


def _children(pid: int) -> list[int]:
    while True:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return [int(child) for child in found]


def test_it_is_a_loss_when_the_program_that_sees_the_last_close_is_stopped(tmp_path: Path) -> None:
    """What is followed would be mixed up with files that get its address later."""
    with following(FOLLOWING % tmp_path) as enforcer:
        followed = enforcer.source._hooks.followed
        assert followed
        object = followed._object
        if not isinstance(object, SyscallObject) or "close_begins" not in object.chosen:
            pytest.skip("a function is hooked here, by a link that nobody can detach")
        assert enforcer.lost == {}
        kind, number, place = object._followed["close_begins"][0]
        object.calls._map(f"{kind}_programs").remove(struct.pack("<I", place * 512 + number))
        assert set(enforcer.lost["detached"]) == {"close_begins"}
