"""Which hooks this kernel has, asked of the kernel itself."""

import platform

import pytest

from kubectl_gadget.agent.kernel.kernel_hooks import look_up
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import FoundFunctions
from tests.messages import look_up_of


def test_functions_and_system_calls_are_found_by_their_portable_names() -> None:
    found = look_up(look_up_of({"functions": ["sys_openat", "do_exit", "no_such_function"]})).functions
    assert [found[name].exists for name in ("sys_openat", "do_exit", "no_such_function")] == [True, True, False]


def test_the_kernels_symbols_are_listed_only_if_functions_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.agent.kernel.kernel_hooks._KALLSYMS", "/nowhere")
    assert look_up(look_up_of({"tracepoints": ["../etc"]})).tracepoints == {"../etc": False}
    with pytest.raises(AgentError, match="/nowhere cannot be read"):
        look_up(look_up_of({"functions": ["do_exit"]}))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of 32-bit calls are x86's here")
def test_32_bit_calls_have_their_own_functions() -> None:
    found = look_up(look_up_of({"functions": ["i386/sys_getpid", "i386/sys_nothing"]})).functions
    assert found["i386/sys_nothing"].exists is False
    assert "i386/sys_getpid" in found


def test_tracepoints_are_found_where_tracefs_is() -> None:
    found = look_up(look_up_of({"tracepoints": ["sched/sched_process_exec", "sched/nothing", "../etc"]})).tracepoints
    assert found["sched/sched_process_exec"] in (True, None)
    assert found["sched/nothing"] is (False if found["sched/sched_process_exec"] else None)
    assert found["../etc"] is False


def test_names_similar_to_a_missing_one_are_reported() -> None:
    names = (
        ["sched/sched_process_exce"]
        if look_up(look_up_of({"tracepoints": ["sched/no"]})).tracepoints["sched/no"] is False
        else []
    )
    near = look_up(look_up_of({"functions": ["vfs_raed", "sys_raed", "do_exit", "x"], "tracepoints": names})).near
    assert set(near) == {"vfs_raed", *names}
    assert "vfs_read" in near["vfs_raed"]
    assert all("sched/sched_process_exec" in near[name] for name in names)


def test_a_list_of_functions_is_counted_or_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kubectl_gadget.agent.kernel.kernel_hooks.traceable_names", lambda: ["vfs_read", "vfs_write", "do_exit"]
    )
    assert look_up(look_up_of({"patterns": ["^vfs_"]})).generated["^vfs_"] == FoundFunctions(
        count=2, functions=("vfs_read", "vfs_write")
    )
    with pytest.raises(AgentError, match="not a valid regular expression"):
        look_up(look_up_of({"patterns": ["("]}))
    monkeypatch.setattr("kubectl_gadget.agent.kernel.kernel_hooks.traceable_names", lambda: None)
    assert look_up(look_up_of({"patterns": [""]})).generated[""] is None


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built", "tracefs")
def test_a_way_that_the_kernel_accepts_is_found_after_refused_ones() -> None:
    """No kernel has a security module's hook of this name; the raw tracepoint is everywhere."""
    ways = [
        {"program": "on_fentry", "kind": "fentry", "target": "there_is_no_such_function"},
        {"program": "on_raw_tracepoint", "kind": "raw_tracepoint", "target": "sched_process_exec"},
        {"program": "on_kprobe", "kind": "kprobe", "target": "never_tried"},
    ]
    answer = look_up(look_up_of({"ways": {"hook": ways, "other": ways[:1]}})).ways
    assert answer["hook"].way == "raw_tracepoint/sched_process_exec"
    assert list(answer["hook"].refused) == ["fentry/there_is_no_such_function"]
    assert answer["other"].way is None
    assert answer["other"].refused["fentry/there_is_no_such_function"]
