"""Policies about a program's memory that the program keeps from being read: it must not hide a call by that.

A page of a file that is mapped and was not touched cannot be read when a call begins; the kernel fetches it later.
"""

import ctypes
import mmap
import os
import platform
import signal
from pathlib import Path

import pytest

from kubectl_gadget.observe.policies import event
from kubectl_gadget.policies.read import parse_policies
from tests.bpf import deeds
from tests.bpf.policy_engine import Enforcer, in_force
from tests.bpf.test_policy_types import POLICY

pytestmark = pytest.mark.bpf
FACCESSAT = 269 if platform.machine() == "x86_64" else 48
ASKED = "/asked-for"
HOOK = (
    "tracepoints: [{subsystem: syscalls, event: sys_enter_faccessat, args: [{index: 6, type: string}],"
    " selectors: [%s]}]"
)
EQUAL = "matchArgs: [{index: 6, operator: %s, values: ['" + ASKED + "']}]"


def untouched(folder: Path, path: str = ASKED) -> mmap.mmap:
    """A path in memory that is not paged in."""
    file = folder / "page"
    file.write_bytes(os.fsencode(path).ljust(4096, b"\0"))
    with file.open("r+b") as opened:
        return mmap.mmap(opened.fileno(), 4096)


def ask(memory: mmap.mmap | None) -> None:
    """Calls faccessat() with it; with a null pointer for None."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) if memory else 0
    deeds.syscall(FACCESSAT, deeds.AT_FDCWD, address, 0)


def put_in_force(*selectors: str, enforce: bool = False) -> "Enforcer":
    text = POLICY % (HOOK % ", ".join(f"{{{selector}}}" for selector in selectors))
    (policy,) = parse_policies([("p.yaml", text)], "default")
    return in_force(policy, enforce=enforce, pid=0)  # type: ignore[return-value]


@pytest.mark.parametrize("operator", ["Equal", "NotEqual", "Prefix", "Postfix"])
def test_a_path_that_is_not_paged_in_is_told_as_unread(tracefs: None, tmp_path: Path, operator: str) -> None:
    memory = untouched(tmp_path)
    with put_in_force(EQUAL % operator) as enforcer:
        pid, _ = deeds.in_child(lambda: ask(memory))
        told = [match for match in enforcer.matches() if match.exec.pid == pid]
    assert [value.unreadable for match in told for value in match.values if value] == [True]


def test_all_other_filters_of_a_selector_still_count(tracefs: None, tmp_path: Path) -> None:
    memory = untouched(tmp_path)
    never = EQUAL % "Equal" + ", matchBinaries: [{operator: In, values: [/no/such/program]}]"
    with put_in_force(never) as enforcer:
        pid, _ = deeds.in_child(lambda: ask(memory))
        assert [match for match in enforcer.matches() if match.exec.pid == pid] == []


def test_a_null_pointer_matches_nothing(tracefs: None) -> None:
    with put_in_force(EQUAL % "Equal") as enforcer:
        pid, _ = deeds.in_child(lambda: ask(None))
        assert [match for match in enforcer.matches() if match.exec.pid == pid] == []


def test_what_is_not_known_kills_nobody_and_is_told(tracefs: None, tmp_path: Path) -> None:
    memory = untouched(tmp_path)
    with put_in_force(EQUAL % "Equal" + ", matchActions: [{action: Sigkill}]", enforce=True) as enforcer:
        pid, code = deeds.in_child(lambda: ask(memory))
        told = [event(match, 0) for match in enforcer.matches() if match.exec.pid == pid]
        # It has touched the page by now.
        known, killed = deeds.in_child(lambda: (memory[0], ask(memory)))
        also = [match.signal for match in enforcer.matches() if match.exec.pid == known]
    assert code == 0
    assert [(one.blocked, one.verdict) for one in told] == [(False, "")]
    assert killed == -signal.SIGKILL
    assert also == [signal.SIGKILL]


def test_a_selector_that_is_not_known_to_match_keeps_no_later_one_from_acting(tracefs: None, tmp_path: Path) -> None:
    memory = untouched(tmp_path)
    exception = EQUAL % "Equal" + ", matchActions: [{action: NoPost}]"
    mine = f"matchBinaries: [{{operator: In, values: [{os.path.realpath('/proc/self/exe')}]}}]"
    with put_in_force(exception, f"{mine}, matchActions: [{{action: Sigkill}}]", enforce=True) as enforcer:
        pid, code = deeds.in_child(lambda: ask(memory))
        told = [match.signal for match in enforcer.matches() if match.exec.pid == pid]
    assert code == -signal.SIGKILL
    assert told == [signal.SIGKILL]
