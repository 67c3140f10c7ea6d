"""The stack of each program with all that it calls: kernels refuse more than 512 bytes, and 6.1 counts the most."""

import os
from pathlib import Path

import pytest

from kubectl_gadget.gadgets.compiler import compile_object, find_clang
from tests.gadgets.stack_use import deepest

CEILING = 480
"""One frame less than the kernel takes, so that what is changed next still loads."""
CALLS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static __noinline int leaf(volatile int *number)
{
	return *number;
}

static long step(__u32 index, void *context)
{
	volatile char bytes[40] = {};

	return bytes[index & 7];
}

static __noinline int middle(int number)
{
	volatile int copies[20] = {number};

	bpf_loop(4, step, (void *)0, 0);
	return leaf(&copies[0]);
}

SEC("raw_tp/sys_enter")
int program(void *ctx)
{
	volatile char bytes[100] = {};

	return middle(bytes[0]);
}

SEC("raw_tp/sys_exit")
int alone(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.mark.skipif(find_clang() is None, reason="needs clang")
def test_frames_of_calls_and_callbacks_are_added_in_steps_of_32(tmp_path: Path) -> None:
    source = tmp_path / "calls.bpf.c"
    source.write_text(CALLS)
    compile_object(source, os.uname().machine, tmp_path / "calls.bpf.o")
    found = deepest(tmp_path / "calls.bpf.o")
    assert found["alone"] == (32, ("alone 0",))
    assert [frame.split()[0] for frame in found["program"].frames] == ["program", "middle", "step"]
    assert found["program"].bytes == 128 + 96 + 64


def test_no_program_takes_nearly_as_much_stack_as_kernels_have(catalogue_built: Path) -> None:
    programs = {
        f"{object.parent.name}/{object.name} {name}": chain
        for object in sorted(catalogue_built.glob("objects/*/*.bpf.o"))
        for name, chain in deepest(object).items()
    }
    assert len(programs) > 100
    assert not {name: chain for name, chain in programs.items() if chain.bytes > CEILING}
