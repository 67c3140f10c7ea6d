"""`loader` in this kernel: executable files that are mapped, with the build ids that their own notes have."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget.agent.elf import build_id
from kubectl_gadget.observe.decoders import event
from kubectl_gadget.observe.lines import shape
from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.wire.policy_events import policy_body
from tests.bpf.policy_engine import in_force

pytestmark = pytest.mark.bpf
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: loaded}
spec: {loader: true}
"""


def test_a_program_its_loader_and_its_libraries_are_reported_with_their_build_ids() -> None:
    (policy,) = parse_policies([("policy.yaml", POLICY)], "default")
    with in_force(policy, pid=0) as enforcer:
        child = subprocess.Popen([sys.executable, "-c", "import ctypes"])
        assert child.wait() == 0
        told = [event(match, 0) for match in enforcer.matches() if match.found.exec.pid == child.pid]
    found = {one.path: policy_body(one) for one in told}
    program = os.path.realpath(sys.executable)
    assert program in found
    assert any(Path(path).name.startswith("ld-linux") for path in found)
    assert any(Path(path).name.startswith("_ctypes") for path in found)
    for one in told:
        with open(one.path, "rb") as file:
            # The kernel looks no further than what it has read of the file already.
            assert one.args[0].value in ("", build_id(file.fileno()))
    assert next(one for one in told if one.path == program).args[0].value
    assert shape(told[0])[:2] == ("💾", "loader")


def test_files_without_execute_permission_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(8192))
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    (policy,) = parse_policies([("policy.yaml", POLICY)], "default")
    with in_force(policy) as enforcer, open(file, "rb") as opened:
        read_only, executable = 1, 1 | 4
        for protection in (read_only, executable):
            assert libc.mmap(None, 4096, protection, 2, opened.fileno(), 0) != ctypes.c_void_p(-1).value
        # Memory that is no file.
        assert libc.mmap(None, 4096, executable, 0x22, -1, 0) != ctypes.c_void_p(-1).value
        told = [event(match, 0) for match in enforcer.matches()]
    assert [(one.path, one.args[0].value) for one in told] == [(str(file), "")]
