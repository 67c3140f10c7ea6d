"""`kubectl gadget enforce`: what it asks before it begins."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.gadget_run import GADGET, PROJECT

POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: secrets}
spec:
  kprobes:
    - call: sys_openat
      syscall: true
      args: [{index: 1, type: string}]
      selectors:
        - matchArgs: [{index: 1, operator: Equal, values: [/no/such/secret]}]
          matchActions: [{action: Sigkill}]
"""


@pytest.mark.usefixtures("catalogue_built")
def test_answering_no_is_no_error_and_nothing_is_changed(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    ours, theirs = pty.openpty()
    words = ("enforce", "-f", str(tmp_path / "policy.yaml"), "--action", "isolate-pod", "--local", "-A")
    process = subprocess.Popen(
        [*GADGET, *words], cwd=PROJECT, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.write(ours, b"no\n")
    out, said = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert said.endswith("Continue? [y/N] nothing was changed\n")
    assert "error" not in said
    assert (process.returncode, out) == (1, "")
