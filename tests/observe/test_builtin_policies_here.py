"""`kubectl gadget observe --policy` with all that come with the program, while the runtime makes containers.

They take hooks that not every kernel has; the virtual machine's has.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent.kernel import features
from kubectl_gadget.demo.pods import DemoPods
from kubectl_gadget.policies.read.policy_files import read_builtin_policies
from tests.conftest import why_no_bpf, why_no_containers
from tests.gadget_run import GadgetRun

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]
ALL = ",".join(builtin.name for builtin in read_builtin_policies())
STATE = Path(f"/run/kubectl-gadget-ready-{os.getpid()}")


@pytest.fixture(name="pods")
def some_pods() -> Iterator[DemoPods]:
    can = {} if why_no_bpf() else features.can()
    if not (can.get("kprobe") or can.get("fentry")):
        pytest.skip("this kernel has no hook that ready policies take")
    with DemoPods(STATE) as found:
        yield found


def test_pods_that_start_are_not_reported_and_processes_from_outside_are(pods: DemoPods, tmp_path: Path) -> None:
    words = ("observe", "--local", "-A", "-o", "json", "-e", "process_kprobe,process_lsm", "--policy", ALL)
    patience = ("--start-timeout", "5m")  # an emulated processor verifies the programs of all policies in minutes
    with GadgetRun(tmp_path, *words, *patience) as run:
        pods.run_short("default", "short", ["/bin/true"])
        idle = pods.start_pod("default", "idle", {"main": ["/bin/sleep", "100003"]}).containers["main"]
        subprocess.run(["runc", "--root", f"{STATE}/runc/k8s.io", "exec", idle.id, "/bin/true"], check=True)
        assert run.stop() == 130
    events = [event for row in run.rows() for kind, event in row.items() if kind.startswith("process_")]
    told = [(event["policy_name"], event["function_name"], event["process"]["pod"]["name"]) for event in events]
    assert [(policy, pod) for policy, _, pod in told] == [("kubectl-exec", "idle")], told
