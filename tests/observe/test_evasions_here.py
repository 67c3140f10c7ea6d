"""The table of evasions in docs/policies.md by `kubectl gadget enforce -f`, as a user runs it: each way to a secret and
to a program is tried while the command runs, and what is refused is on a line of it.

A way that does not work at all would look held, so each is tried first where nothing is in force.
"""

import functools
import os
import signal
from pathlib import Path

import pytest

from tests.bpf.test_policy import in_child
from tests.bpf.test_policy_evasions import READS, RUNS, Way, fill
from tests.observe.test_enforce_here import ended, start
from tests.waiting import wait_until

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]
EACCES = 13
WAYS = (*READS, *RUNS)
KINDS = {"path": "Equal", "file": "SameFile"}
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: by-{kind}}}
spec:
  lsmhooks:
  - hook: file_open
    args: [{{index: 0, type: file}}]
    selectors:
    - matchArgs: [{{index: 0, operator: {operator}, values: ["{folder}/secret"]}}]
      matchActions: [{{action: Override, argError: EACCES}}]
  - hook: bprm_check_security
    args: [{{index: 0, type: linux_binprm}}]
    selectors:
    - matchArgs: [{{index: 0, operator: {operator}, values: ["{folder}/tool", "{folder}/script"]}}]
      matchActions: [{{action: Override, argError: EACCES}}]
  - hook: mmap_file
    args: [{{index: 0, type: file}}, {{index: 1, type: uint64}}]
    selectors:
    - matchArgs:
      - {{index: 0, operator: {operator}, values: ["{folder}/tool"]}}
      - {{index: 1, operator: Mask, values: [4]}}
      matchActions: [{{action: Override, argError: EACCES}}]
"""


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """One for each policy."""
    found = {kind: tmp_path / kind for kind in KINDS}
    for folder in found.values():
        fill(folder)
    return found


def outcome(way: Way, folder: Path) -> int:
    """0, or the error's number."""
    file = folder / ("secret" if way in READS else "tool")
    code = os.waitstatus_to_exitcode(in_child(functools.partial(way.deed, file)))
    for left in folder.parent.glob(f"{folder.name}-*"):
        left.rmdir() if left.is_dir() else left.unlink()
    return code


def test_each_way_is_denied_as_the_table_says_and_reported(folders: dict[str, Path], tmp_path: Path) -> None:
    works = [way for way in WAYS if outcome(way, folders["path"]) == 0]
    assert len(works) > len(WAYS) / 2
    policies = [POLICY.format(kind=kind, operator=KINDS[kind], folder=folders[kind]) for kind in KINDS]
    found: dict[tuple[str, str], int] = {}
    with ended(start(tmp_path, "---".join(policies))) as enforcing:
        for kind, folder in folders.items():
            found |= {(way.told, kind): outcome(way, folder) for way in works}
        denied = sum(code == EACCES for code in found.values())
        wait_until(lambda: enforcing.told().count("BLOCKED EACCES") >= denied, f"{denied} lines of what is denied")
        enforcing.end(signal.SIGINT)
    wanted = {(way.told, "path"): EACCES * way.by_path for way in works}
    wanted |= {(way.told, "file"): EACCES * way.by_file for way in works}
    assert found == wanted
