"""Why a kernel does not take a program at a hook."""

import errno
import os
import platform
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.kernel import features, hooks
from kubectl_gadget.agent.kernel.hooks import hookable_functions, look_up
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import FoundFunctions
from tests.messages import look_up_of, way


@pytest.mark.parametrize("kind", ["fentry", "kprobe"])
def test_a_function_that_the_kernel_lacks_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "lacking", lambda kind: None)
    missing = Failure("bpf_program__attach", errno.ENOENT, [])

    def why(function: str) -> str:
        return hooks.why(way({"program": f"on_{kind}", "kind": kind, "target": function}), missing)

    assert why("no_such_read") == "the kernel has no function no_such_read; it may be inlined, or have another name"
    assert "no function" not in why("vfs_read")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_kernel_without_kprobe_multi_is_reported(number: int) -> None:
    there = way({"program": "on_kprobe_multi", "kind": "kprobe.multi", "target": "k"})
    assert hooks.why(there, Failure("bpf_program__attach_kprobe_multi_opts", number, [])) == (
        "this kernel cannot attach a program to many functions at once (Linux 5.18 with CONFIG_FPROBE can)"
    )


def test_a_security_hook_that_the_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "lacking", lambda kind: None)
    there = way({"program": hooks.SLEEPABLE, "kind": "lsm", "target": "no_such_hook"})
    assert hooks.why(there, Failure("bpf_object__load", errno.ESRCH, [])) == (
        "the kernel has no security hook no_such_hook; it may be newer"
    )


# Lists of functions that a node makes.


@pytest.mark.usefixtures("catalogue_built")
def test_the_system_calls_have_their_own_numbers() -> None:
    found = hookable_functions("")
    assert found[0 if os.uname().machine == "x86_64" else 63] == "sys_read"


def test_a_name_that_several_functions_share_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["ksys_write", "ksys_read", "ksys_twice", "other", "ksys_twice"]
    monkeypatch.setattr("kubectl_gadget.agent.kernel.hooks.traceable_names", lambda: names)
    assert hookable_functions("^ksys_") == {0: "ksys_read", 1: "ksys_write"}


@pytest.mark.parametrize(
    ("names", "pattern", "why"),
    [
        (None, "^ksys_", r"is not mounted \(mount -t tracefs"),
        (["other"], "^ksys_", "no function that can be hooked matches"),
        ([f"f{number}" for number in range(20_001)], "f", "20001 functions match"),
        ([], "(", "not a valid regular expression"),
    ],
)
def test_why_there_is_no_list_is_reported(
    names: list[str] | None, pattern: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agent.kernel.hooks.traceable_names", lambda: names)
    monkeypatch.setattr("kubectl_gadget.agent.host.this_node.TRACEFS_FOLDERS", ())
    with pytest.raises(AgentError, match=why):
        hookable_functions(pattern)


def test_a_kernel_that_lists_no_functions_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.agent.host.this_node.TRACEFS_FOLDERS", (str(tmp_path),))
    (tmp_path / "events").mkdir()
    with pytest.raises(
        AgentError, match=r"this kernel lists no functions that can be hooked \(CONFIG_DYNAMIC_FTRACE\)"
    ):
        hookable_functions("^ksys_")


# Which hooks this kernel has, asked of the kernel itself.


def test_functions_and_system_calls_are_found_by_their_portable_names() -> None:
    found = look_up(look_up_of({"functions": ["sys_openat", "do_exit", "no_such_function"]})).functions
    assert [found[name].exists for name in ("sys_openat", "do_exit", "no_such_function")] == [True, True, False]


def test_the_kernels_symbols_are_listed_only_if_functions_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.agent.kernel.hooks.KALLSYMS", "/nowhere")
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
        "kubectl_gadget.agent.kernel.hooks.traceable_names", lambda: ["vfs_read", "vfs_write", "do_exit"]
    )
    assert look_up(look_up_of({"patterns": ["^vfs_"]})).generated["^vfs_"] == FoundFunctions(
        count=2, functions=("vfs_read", "vfs_write")
    )
    with pytest.raises(AgentError, match="not a valid regular expression"):
        look_up(look_up_of({"patterns": ["("]}))
    monkeypatch.setattr("kubectl_gadget.agent.kernel.hooks.traceable_names", lambda: None)
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
