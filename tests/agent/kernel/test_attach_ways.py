"""Why a kernel does not take a program at a hook."""

import errno

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.kernel import attach_ways, features
from tests.messages import way


@pytest.mark.parametrize("kind", ["fentry", "kprobe"])
def test_a_function_that_the_kernel_lacks_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "lacking", lambda kind: None)
    missing = Failure("bpf_program__attach", errno.ENOENT, [])

    def why(function: str) -> str:
        return attach_ways.why(way({"program": f"on_{kind}", "kind": kind, "target": function}), missing)

    assert why("no_such_read") == "the kernel has no function no_such_read; it may be inlined, or have another name"
    assert "no function" not in why("vfs_read")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_kernel_without_kprobe_multi_is_reported(number: int) -> None:
    there = way({"program": "on_kprobe_multi", "kind": "kprobe.multi", "target": "k"})
    assert attach_ways.why(there, Failure("bpf_program__attach_kprobe_multi_opts", number, [])) == (
        "this kernel cannot attach a program to many functions at once (Linux 5.18 with CONFIG_FPROBE can)"
    )


def test_a_security_hook_that_the_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "lacking", lambda kind: None)
    there = way({"program": attach_ways.SLEEPABLE, "kind": "lsm", "target": "no_such_hook"})
    assert attach_ways.why(there, Failure("bpf_object__load", errno.ESRCH, [])) == (
        "the kernel has no security hook no_such_hook; it may be newer"
    )
