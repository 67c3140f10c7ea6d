"""Programs of system calls, which need no perf_event_open().

Debian's and Ubuntu's kernels refuse it to agents in pods; tests/vm runs these tests where they do.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf import syscall_programs
from kubectl_gadget.agent.bpf.object import BpfObject, own_elf
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.frames import FrameType
from tests.agent.client import Client
from tests.agent.conftest import Compiled, Opener
from tests.agent.records import records

pytestmark = pytest.mark.bpf
TIMES = 1009


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as client:
        client.wait_for(FrameType.HELLO)
        yield client


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    caller = BpfObject(own_elf("syscalls"), "syscalls", [])
    try:
        return syscall_programs.numbers(caller)
    finally:
        caller.close()


def test_each_call_is_seen_once_without_its_tracepoint(client: Client, opens: Compiled, opener: Opener) -> None:
    client.run(opens.elf, opens.gadget("openat_exit", "mkdir_exit", parameters={"gadget_filter_pid": opener.pid}))
    hooks = [entry["hooks"] for entry in client.wait_for(FrameType.STARTED)["gadgets"][0]["programs"]]
    assert hooks == [["tp_btf/sys_exit (openat)"], ["tp_btf/sys_exit (mkdir)"]]
    opener.open(TIMES)
    end = client.stop()
    assert len(list(records(client.ring[0]))) == TIMES
    assert end["stats"]["gadgets"][0]["lost"] == {}


def test_a_call_that_the_architecture_does_not_have_is_skipped(client: Client, opens: Compiled) -> None:
    client.run(opens.elf, opens.gadget() | {"programs": [{"any_of": [["nowhere"], ["openat_exit"]]}]})
    [entry] = client.wait_for(FrameType.STARTED)["gadgets"][0]["programs"]
    assert entry["chosen"] == ["openat_exit"]
    assert entry["skipped"] == [{"program": "nowhere", "why": "this architecture has no system call nowhere"}]


def test_a_program_that_reads_a_tracepoints_context_gets_a_remedy(client: Client, opens: Compiled) -> None:
    client.run(opens.elf, opens.gadget() | {"programs": [{"any_of": [["reads_tracepoint"], ["openat_exit"]]}]})
    [entry] = client.wait_for(FrameType.STARTED)["gadgets"][0]["programs"]
    assert "gadget_result(ctx)" in entry["skipped"][0]["why"]


def test_too_many_programs_for_one_call_are_an_error(opens: Compiled) -> None:
    calls = syscall_programs.SyscallDispatcher()
    objects = [syscall_programs.SyscallObject(opens.elf, "opens", ["openat_exit"], calls) for _ in range(17)]
    try:
        for object in objects[:16]:
            object.load()
            object.attach("openat_exit")
        objects[16].load()
        with pytest.raises(AgentError, match="more than 16 programs follow sys_exit_openat"):
            objects[16].attach("openat_exit")
        objects[7].detach()
        objects[16].attach("openat_exit")
    finally:
        for object in objects:
            object.close()
        calls.close()


def test_a_number_is_of_interest_while_any_call_with_it_is_followed(opens: Compiled, numbers: dict[str, int]) -> None:
    calls = syscall_programs.SyscallDispatcher()
    object = syscall_programs.SyscallObject(opens.elf, "opens", ["openat_exit"], calls, syscall_programs.ALL)
    try:
        object.load()
        assert not any(calls.content()[1])
        object.attach("openat_exit")
        of_interest = {number for number, sides in enumerate(calls.content()[1]) if sides}
        assert numbers["openat"] in of_interest
        if os.uname().machine == "x86_64":
            assert of_interest == {numbers["openat"], 295, 102}  # openat and socketcall of 32-bit programs
        object.detach()
        assert not any(calls.content()[1])
    finally:
        object.close()
        calls.close()


def test_every_tracepoint_of_a_system_call_has_its_number(tracefs: Path, numbers: dict[str, int]) -> None:
    prefix = "sys_exit_"
    folders = os.listdir(tracefs / "events" / "syscalls")
    assert {name.removeprefix(prefix) for name in folders if name.startswith(prefix)} - numbers.keys() == set()


def test_numbers_are_those_of_the_kernels_headers(numbers: dict[str, int]) -> None:
    header = next(Path("/usr/include").glob(f"{os.uname().machine}-linux-gnu/asm/unistd_64.h"), None)
    if header is None:
        pytest.skip("this machine has no asm/unistd_64.h")
    defined = dict(re.findall(r"^#define __NR_(\w+) (\d+)$", header.read_text(), re.MULTILINE))
    same = numbers.keys() & defined.keys()
    assert len(same) > 300
    assert {name: numbers[name] for name in same} == {name: int(defined[name]) for name in same}
