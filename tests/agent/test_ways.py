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
