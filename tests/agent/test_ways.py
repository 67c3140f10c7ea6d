"""Why a kernel does not take a program at a hook."""

import errno

import pytest

from kubectl_gadget.agent import probe, ways
from kubectl_gadget.agent.libbpf import Failure


@pytest.mark.parametrize("kind", ["fentry", "kprobe"])
def test_a_function_that_the_kernel_has_not_got_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "lacking", lambda kind: None)
    missing = Failure("bpf_program__attach", errno.ENOENT, [])

    def why(function: str) -> str:
        return ways.why({"program": f"on_{kind}", "kind": kind, "target": function}, missing)

    assert why("no_such_read") == "the kernel has no function no_such_read; it may be inlined, or have another name"
    assert "no function" not in why("vfs_read")


def test_a_security_hook_that_the_kernel_has_not_got_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "lacking", lambda kind: None)
    way = {"program": ways.SLEEPABLE, "kind": "lsm", "target": "no_such_hook"}
    assert ways.why(way, Failure("bpf_object__load", errno.ESRCH, [])) == (
        "the kernel has no security hook no_such_hook; it may be newer"
    )
