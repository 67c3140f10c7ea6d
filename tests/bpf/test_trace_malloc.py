"""trace malloc: a program that leaks a prime number of blocks, linked with libc and without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.gadgets.load import BUILT, read_gadget
from tests.agent.burners import PROGRAMS, WAYS, compile_burner, compile_c
from tests.bpf.followed import Followed, go, waiting
from tests.bpf.tracer import MACHINE

pytestmark = pytest.mark.bpf


@pytest.fixture(params=["static", "pie"])
def leaker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    program = compile_burner(tmp_path / "leaker", *WAYS[request.param], program="leaker")
    environment = {}
    if request.param == "pie":
        # A libc of its own: the probes would hold up all of this machine's programs.
        library = next(
            line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so" in line
        )
        (tmp_path / "libc.so.6").write_bytes(Path(library).read_bytes())
        environment["LD_LIBRARY_PATH"] = str(tmp_path)
    with waiting(program, **environment) as process:
        yield process


def outstanding(process: Any, **options: Any) -> dict[str, list[Any]]:
    """By the function that asked: call, bytes, count."""
    with Followed("trace_malloc", pid=process.pid, **options) as answers:
        answers.look()
        go(process)
        records = answers.take()
        assert answers.lost == 0
    assert all(0 < record["oldest"] < 10**12 for record in records)
    assert {record["pid"] for record in records} <= {process.pid}
    return {
        record["user_stack"][0]: [record["operation"], record["bytes"], record["count"]]
        for record in records
        if "main" in record["user_stack"]
    }


def test_memory_that_is_not_freed_is_reported_by_its_allocation(leaker: Any) -> None:
    found = outstanding(leaker)
    assert found == {
        "keep": ["malloc", 13 * 1009, 13],
        "clears": ["calloc", 3 * 4001, 3],
        "grows": ["realloc", 9001, 1],
        "aligns": ["aligned", 4096, 1],
    }


def test_small_ones_are_left_out_and_mappings_are_there_on_request(leaker: Any) -> None:
    assert outstanding(leaker, min_size=4001, mappings=True) == {
        "clears": ["calloc", 3 * 4001, 3],
        "grows": ["realloc", 9001, 1],
        "aligns": ["aligned", 4096, 1],
        "maps": ["mmap", 70001, 1],
    }


def test_the_caller_and_its_callers_are_in_the_stack(leaker: Any) -> None:
    with Followed("trace_malloc", pid=leaker.pid) as answers:
        answers.look()
        go(leaker)
        stacks = [record["user_stack"][:3] for record in answers.take()]
    assert ["keep", "leaks", "main"] in stacks


def test_young_ones_are_left_out_and_what_ended_leaks_nothing(leaker: Any) -> None:
    with Followed("trace_malloc", pid=leaker.pid, older_than=10**6) as answers:
        answers.look()
        go(leaker)
        assert answers.take() == []
    with Followed("trace_malloc", pid=leaker.pid) as answers:
        leaker.communicate(b"x")
        assert answers.take() == []


def test_what_is_outstanding_is_reported_again_and_not_added_up(leaker: Any) -> None:
    with Followed("trace_malloc", pid=leaker.pid) as answers:
        answers.look()
        go(leaker)
        first, second = ([record["bytes"] for record in answers.take()] for _ in range(2))
        answers.answer.walk(1e9)
        assert sorted(first) == sorted(second) == sorted(record["bytes"] for record in answers.take())
        leaker.communicate(b"x")
        answers.answer.walk(2e9)
        assert answers.take() == []


def test_a_size_leaves_out_what_does_not_say_its_size(leaker: Any) -> None:
    with Followed("trace_malloc_calls", pid=leaker.pid, min_size=2003) as answers:
        answers.look()
        go(leaker)
        records = answers.records()
        assert answers.lost == 0
    assert [record["bytes"] for record in records].count(2003) >= 17
    assert min(record["bytes"] for record in records) == 2003


def test_single_calls_are_reported_with_their_results(leaker: Any) -> None:
    with Followed("trace_malloc_calls", pid=leaker.pid) as answers:
        answers.look()
        go(leaker)
        answers._take_stacks()
        records = [record for record in answers.records() if record["bytes"] == 2003 or record["operation"] == "free"]
        assert answers.lost == 0
    passed = [record for record in records if answers._stacks[record["user_stack"]][:1] == ["passes"]]
    assert [record["operation"] for record in passed] == ["malloc", "free"] * 17
    assert [record["address"] for record in passed[0::2]] == [record["address"] for record in passed[1::2]]
    assert all(record["address"] for record in passed)


@pytest.fixture
def allocating(tmp_path: Path) -> Iterator[Any]:
    """Allocates in a chain of functions without frame pointers."""
    options = ["-fomit-frame-pointer", "-O2", "-static"]
    with waiting(compile_c(tmp_path / "unwound", PROGRAMS / "unwound.c", *options), "allocates") as process:
        yield process


@pytest.mark.skipif(MACHINE != "x86_64", reason="only x86-64 is unwound")
def test_stacks_without_frame_pointers_are_whole(allocating: Any) -> None:
    with Followed("trace_malloc", pid=allocating.pid) as answers:
        if "unwound_caller" not in answers.object.chosen:
            pytest.skip("this kernel cannot unwind")
        answers.look()
        answers.expect(allocating.pid)
        go(allocating)
        found = [record for record in answers.take() if "keep" in record["user_stack"]]
        assert answers.lost == 0
    assert sum(record["count"] for record in found) == 17
    for record in found:
        assert record["user_stack"][:5] == ["keep", "third", "second", "first", "main"]
        assert record["user_stack"][-1] == "_start"


def test_kernels_that_cannot_unwind_follow_frame_pointers(leaker: Any) -> None:
    choices = read_gadget(BUILT / "gadgets" / "trace_malloc.json").agent.programs
    programs = tuple(name for choice in choices for name in choice.any_of[0] if "unwound" not in name)
    with Followed("trace_malloc", programs=programs, pid=leaker.pid) as answers:
        answers.look()
        go(leaker)
        stacks = [record["user_stack"][:3] for record in answers.take()]
        assert answers.lost == 0
    assert ["keep", "leaks", "main"] in stacks
