"""Choosing programs, parameters, and the errors when the kernel refuses."""

import os
import re
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.object import variable_bytes
from kubectl_gadget.agent.sources.gadget_programs import without_compare_and_swap
from kubectl_gadget.agent.sources.output import ring_bytes
from kubectl_gadget.errors import AgentError
from kubectl_gadget.gadgets.load import object_bytes
from kubectl_gadget.wire.frames import FrameType, encode
from tests.agent.client import Client
from tests.agent.conftest import Compiled, Opener
from tests.agent.records import records
from tests.bpf import deeds
from tests.bpf.answers import Answers
from tests.bpf.test_profile_syscall import CALL, FIFO


def failure_of(client: Client, opens: Compiled, description: dict[str, Any]) -> dict[str, str]:
    client.send_bytes(encode(FrameType.OBJECT, opens.elf))
    client.send(FrameType.RUN, {"gadgets": [{"object": 0, **description}]})
    end = client.finish()
    assert end["reason"] == "error"
    error: dict[str, str] = end["error"]
    return error


@pytest.mark.bpf
@pytest.mark.parametrize("refused", ["never_loads", "nowhere", "no_such_tracepoint"])
def test_the_next_alternative_is_used_when_the_kernel_refuses_the_first(
    client: Client, opens: Compiled, opener: Opener, refused: str
) -> None:
    description = opens.gadget(parameters={"gadget_filter_pid": opener.pid}) | {
        "programs": [{"any_of": [[refused], ["openat_exit"]]}]
    }
    client.run(opens.elf, description)
    [entry] = client.wait_for(FrameType.STARTED)["gadgets"][0]["programs"]
    assert entry["chosen"] == ["openat_exit"]
    assert [skip["program"] for skip in entry["skipped"]] == [refused]
    assert entry["skipped"][0]["why"]
    opener.open(101)
    client.stop()
    assert len(list(records(client.ring[0]))) == 101


@pytest.mark.bpf
def test_a_set_of_programs_is_taken_whole_or_not_at_all(client: Client, opens: Compiled) -> None:
    description = opens.gadget() | {"programs": [{"any_of": [["mkdir_exit", "never_loads"], ["openat_exit"]]}]}
    client.run(opens.elf, description)
    [entry] = client.wait_for(FrameType.STARTED)["gadgets"][0]["programs"]
    assert entry["chosen"] == ["openat_exit"]


@pytest.mark.bpf
def test_of_an_optional_program_that_is_refused_a_warning_says_what_is_not_seen(
    client: Client, opens: Compiled
) -> None:
    description = opens.gadget("openat_exit")
    description["programs"].append({"any_of": [["nowhere"]], "optional": True, "purpose": "nobody is not seen"})
    client.run(opens.elf, description)
    warning = client.wait_for(FrameType.WARNING)["message"]
    assert warning.startswith(f"{description['name']}: nobody is not seen (nowhere: ")
    assert "no system call nowhere" in warning
    started = client.wait_for(FrameType.STARTED)
    assert [entry["chosen"] for entry in started["gadgets"][0]["programs"]] == [["openat_exit"], []]


@pytest.mark.bpf
def test_a_program_that_the_verifier_refuses_is_an_error_with_the_last_useful_lines(
    client: Client, opens: Compiled
) -> None:
    error = failure_of(client, opens, opens.gadget("never_loads"))
    assert "never_loads" in error["what"]
    assert re.search(r"R0 invalid mem access", error["what"])
    assert "processed" not in error["what"]


@pytest.mark.bpf
def test_a_missing_tracepoint_is_an_error_that_names_it(client: Client, opens: Compiled) -> None:
    error = failure_of(client, opens, opens.gadget("nowhere"))
    assert "has no system call nowhere" in error["what"]


@pytest.mark.bpf
def test_the_alternatives_that_were_tried_before_are_in_the_error(client: Client, opens: Compiled) -> None:
    description = opens.gadget() | {"programs": [{"any_of": [["no_such_tracepoint"], ["nowhere"]]}]}
    error = failure_of(client, opens, description)
    assert "no_such_tracepoint was tried before" in error["what"]


@pytest.mark.bpf
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"programs": [{"any_of": [["missing"]]}]}, "has no program missing"),
        ({"parameters": {"missing": 1}}, "has no parameter missing"),
        ({"parameters": {"gadget_filter_pid": "x" * 5}}, "at most 4 bytes"),
        ({"parameters": {"gadget_filter_pid": 1 << 32}}, "gadget_filter_pid cannot be"),
        (
            {"globals": {"gadget_filter_pid": {"offset": 4000, "size": 4}}, "parameters": {"gadget_filter_pid": 1}},
            "outside",
        ),
        ({"ring_bytes": 1 << 40}, "cannot create a ring buffer"),
        ({"ring_bytes": -1}, "cannot create a ring buffer"),
    ],
)
def test_impossible_requests_are_refused_with_the_reason(
    client: Client, opens: Compiled, change: dict[str, Any], words: str
) -> None:
    assert words in failure_of(client, opens, opens.gadget("openat_exit") | change)["what"]


@pytest.mark.bpf
def test_bytes_that_are_not_an_object_are_an_error(client: Client, opens: Compiled) -> None:
    error = failure_of(client, opens._replace(elf=b"not an ELF file"), opens.gadget("openat_exit"))
    assert "gadget opens cannot run here" in error["what"]


@pytest.mark.bpf
def test_two_gadgets_run_side_by_side(client: Client, opens: Compiled, opener: Opener) -> None:
    description = opens.gadget("openat_exit", parameters={"gadget_filter_pid": opener.pid})
    client.send_bytes(encode(FrameType.OBJECT, opens.elf))
    both = [{"object": 0, **description}, {"object": 0, **description, "name": "again"}]
    client.send(FrameType.RUN, {"gadgets": both, "filter": {"host": True}})
    client.wait_for(FrameType.STARTED)
    opener.open(1009)
    end = client.stop()
    assert [len(list(records(client.ring[index]))) for index in (0, 1)] == [1009, 1009]
    assert [one["events"] for one in end["stats"]["gadgets"]] == [1009, 1009]


@pytest.mark.parametrize(("wanted", "given"), [(1, 4096), (4096, 4096), (4097, 8192), (4 << 20, 4 << 20)])
def test_a_ring_has_a_power_of_two_of_bytes(wanted: int, given: int) -> None:
    assert ring_bytes(wanted) == given


@pytest.mark.parametrize("wanted", [0, -1, 1 << 30])
def test_a_ring_of_another_size_is_refused(wanted: int) -> None:
    with pytest.raises(AgentError):
        ring_bytes(wanted)


def test_parameters_lie_in_memory_as_c_has_them() -> None:
    assert variable_bytes(1, 4) == b"\1\0\0\0"
    assert variable_bytes(-1, 2) == b"\xff\xff"
    assert variable_bytes(True, 1) == b"\1"
    assert variable_bytes("vi", 4) == b"vi\0\0"
    assert variable_bytes(b"\0\xff", 4) == b"\0\xff\0\0"


# Objects without compare-and-swap, for kernels before Linux 5.12.


MACHINE = os.uname().machine


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_compare_and_swap_becomes_a_store_and_nothing_else_changes(machine: str) -> None:
    elf = object_bytes("profile_syscall", machine)
    changed = without_compare_and_swap(elf)
    differing = [at for at, (old, new) in enumerate(zip(elf, changed, strict=True)) if old != new]
    assert differing
    assert {(elf[at], changed[at]) for at in differing} == {(0xDB, 0x7B), (0xF1, 0)}
    assert without_compare_and_swap(changed) == changed


@pytest.mark.bpf
def test_a_histogram_has_its_maximum() -> None:
    profile = Answers("profile_syscall", pid=os.getpid())
    profile._elf = without_compare_and_swap(profile._elf)
    with profile:
        for _ in range(1009):
            deeds.syscall(CALL, FIFO)
        records = profile.take()
    (record,) = [record for record in records if record["syscall"] == CALL]
    assert record["count"] == sum(record["buckets"]) == 1009
    assert 0 < record["max"] <= record["total"]
    assert record["total"] <= 1009 * record["max"]
