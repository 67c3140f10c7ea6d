"""`kubectl gadget enforce --action isolate-pod` on this machine: who does what is forbidden has no network any more."""

import signal
import subprocess
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import DemoPods
from tests.conftest import why_no_containers
from tests.gadget_run import GADGET, until_under_way
from tests.policies.test_reactions_here import POLICY
from tests.waiting import PATIENCE

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]
CALL = "nc 192.0.2.1 80 2>&1 | grep -q permitted"
"""Ends with 0 when connect() is refused, and with 1 when it fails otherwise: these pods have no network."""
BREAKS = (
    f"read x < /no/such/secret; i=0; while [ $i -lt 100 ]; do {CALL} && exit 0; i=$((i+1)); sleep 0.1; done; exit 1"
)


def enforce(folder: Path, *flags: str) -> "subprocess.Popen[str]":
    (folder / "policy.yaml").write_text(POLICY)
    command = [*GADGET, "enforce", "--local", "-A"]
    command += ["-f", str(folder / "policy.yaml"), "--action", "isolate-pod", *flags]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def exit_code(pods: DemoPods, name: str, script: str) -> int | None:
    return pods.run_short("shop", name, ["sh", "-c", script]).containers["main"].exit_code


def test_the_pod_that_did_it_is_cut_off_until_the_command_ends_and_no_other(pods: DemoPods, tmp_path: Path) -> None:
    with enforce(tmp_path, "--yes") as process:
        until_under_way(process)
        assert exit_code(pods, "breaks", BREAKS) == 0
        assert exit_code(pods, "other", CALL) == 1
        assert exit_code(pods, "breaks", CALL) == 1, "a later pod of the same name is cut off as well"
        process.send_signal(signal.SIGINT)
        told, said = process.communicate(timeout=PATIENCE)
    assert said.count("shop/breaks is cut off from the network: policy secrets") == 1
    assert "/no/such/secret" in told
    assert exit_code(pods, "breaks", CALL) == 1


def test_without_an_answer_nothing_is_begun(tmp_path: Path) -> None:
    with enforce(tmp_path) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "any pod in all namespaces that violates these policies is cut off from the network" in said
