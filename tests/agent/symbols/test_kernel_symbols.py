"""Names of the kernel's functions, compared with /proc/kallsyms, which root may read."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from kubectl_gadget.agent.symbols.kernel_symbols import (
    HERE,
    INTERRUPT,
    TRACEPOINT,
    KernelSymbols,
    _tracing_frames,
    listed,
)
from kubectl_gadget.agent.symbols.user_symbols import UNKNOWN, ResolvedFrame


def stack(*names: str) -> list[ResolvedFrame]:
    return [ResolvedFrame(name, "", 0) for name in names]


@pytest.mark.bpf
def test_the_kernel_formats_the_names_of_its_functions() -> None:
    starts, names = listed()
    if not starts:
        pytest.skip("/proc/kallsyms hides addresses")
    unique = [place for place, name in enumerate(names) if name in ("ksys_read", "do_sys_open", "schedule")]
    symbols = KernelSymbols()
    try:
        for place in unique:
            calls = [starts[place] + 4, starts[place] + 5]
            found = symbols.frames(calls, HERE)
            assert [(frame.function, frame.offset) for frame in found] == [(names[place], 4)] * 2
        assert [frame.function for frame in symbols.frames([0x1234, *calls], HERE)] == [
            UNKNOWN,
            names[place],
            names[place],
        ]
        many = starts[1000:1300]
        assert len(symbols.frames(many, HERE)) == 300
    finally:
        symbols.close()


@pytest.mark.bpf
def test_one_request_to_the_kernel_resolves_many_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, names = listed()
    if not starts:
        pytest.skip("/proc/kallsyms hides addresses")
    unique = [place for place, name in enumerate(names) if name in ("ksys_read", "do_sys_open", "schedule")]
    stacks = [[starts[place] + 4, starts[place] + 5] for place in unique]
    symbols, asked = KernelSymbols(), list[int]()
    ask = symbols._formatted

    def counted(addresses: Sequence[int]) -> list[str]:
        asked.append(len(addresses))
        return ask(addresses)

    monkeypatch.setattr(symbols, "_formatted", counted)
    try:
        symbols.prefetch(stacks)
        found = [symbols.frames(stack, HERE)[1].function for stack in stacks]
    finally:
        symbols.close()
    assert found == [names[place] for place in unique]
    assert asked == [len(unique)]


def test_a_list_that_hides_addresses_counts_as_missing(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("0000000000000000 T ksys_read\n0000000000000000 t other [module]\n")
    assert listed(str(tmp_path / "kallsyms")) == ([], [])
    (tmp_path / "kallsyms").write_text("20 T second\n10 t first [module]\n18 d data\n")
    assert listed(str(tmp_path / "kallsyms")) == ([16, 32], ["first", "second"])


def test_what_an_interrupt_or_a_tracepoint_itself_calls_is_left_out() -> None:
    interrupted = stack("hrtimer_interrupt", "asm_sysvec_apic_timer_interrupt", "vfs_read", "asm_sysvec_call", "ksys")
    assert _tracing_frames(interrupted, INTERRUPT) == 2
    assert _tracing_frames(interrupted, HERE) == 0
    traced = stack("bpf_prog_12_switches", "bpf_trace_run4", "__traceiter_sched_switch", "__schedule", "schedule")
    assert _tracing_frames([*traced, *stack("futex_wait")], TRACEPOINT) == 5
    assert _tracing_frames(stack("schedule_timeout"), TRACEPOINT) == 0


def test_only_the_tracings_own_frames_before_the_traced_function_are_left_out() -> None:
    own = ("bpf_prog_12_on_lsm", "bpf_trampoline_6442")
    assert _tracing_frames(stack(*own, "security_bpf", "bpf_prog_other", "ksys"), HERE) == 2
    called = ("bpf_prog_12_on_raw", "bpf_trace_run2", "__bpf_trace_sys_enter", "__traceiter_sys_enter")
    assert _tracing_frames(stack(*called, "syscall_trace_enter"), HERE) == 4
    assert _tracing_frames(stack("bpf_check", "bpf_prog_load"), HERE) == 0, "a function that was traced itself"
    assert _tracing_frames(stack(*own), HERE) == 0
