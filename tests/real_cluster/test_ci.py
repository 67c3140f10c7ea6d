"""CI runs against a real cluster (pytest --cluster): two releases of one Deployment, and what is never green."""

import contextlib
import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Self

import pytest

from tests.gadget_run import GADGET
from tests.real_cluster.real_cluster import AGENT_FLAGS, ClusterRun, container, kubectl, leftovers, listed
from tests.real_cluster.test_faults import agent_pods, agents_here
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.cluster
RELEASE_1 = "cat /etc/hostname >/dev/null; sleep 1000"
RELEASE_2 = (
    "cat /etc/hostname >/dev/null; cp /bin/busybox /tmp/dropped; /tmp/dropped true; "
    "nc -w 1 127.0.0.1 4444 </dev/null; sleep 1000"
)


def deployment(script: str, release: str) -> str:
    """The Deployment `web` with two pods."""
    labels = {"app": "web"}
    pod = {"terminationGracePeriodSeconds": 0, "containers": [container(script)]}
    template = {"metadata": {"labels": labels, "annotations": {"release": release}}, "spec": pod}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})


def ci(folder: Path, namespace: str, *flags: str, script: str, release: str) -> "subprocess.CompletedProcess[str]":
    """`ci run` around the rollout of a release."""
    (folder / "web.json").write_text(deployment(script, release))
    apply = f"kubectl apply --validate=false -n {namespace} -f web.json"
    rollout = f"kubectl rollout status -n {namespace} deploy/web --timeout=100s"
    return subprocess.run(
        [
            *(*GADGET, "ci", "run", "-n", namespace, "--linger", "3s", *AGENT_FLAGS, *flags),
            *("--", "sh", "-c", f"{apply} && {rollout}"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_what_is_new_in_a_release_is_found_and_the_same_release_is_green(namespace: str, tmp_path: Path) -> None:
    first = ci(tmp_path, namespace, "--report", "baseline=web.yaml", script=RELEASE_1, release="1")
    assert first.returncode == 0, first.stderr
    assert "created" in first.stdout
    baseline = (tmp_path / "web.yaml").read_text()
    assert "Deployment/web" in baseline
    flags = ("--baseline", "web.yaml", "--fail-on-new", "program,connect")
    second = ci(tmp_path, namespace, *flags, "--report", "junit=r.xml", script=RELEASE_2, release="2")
    assert second.returncode == 4, second.stderr
    errors = [line for line in second.stderr.splitlines() if "error: " in line]
    assert any(f"{namespace}/Deployment/web/main: new" in line and "/tmp/dropped" in line for line in errors), errors
    assert any("4444" in line for line in errors), errors
    (failed,) = [case for case in ET.parse(tmp_path / "r.xml").iter("testcase") if case.find("failure") is not None]
    assert failed.get("name") == "web.yaml"
    # Pods of release 2 still run when watching begins, and what started their programs is not known.
    again = ci(tmp_path, namespace, *flags, script=RELEASE_1, release="3")
    assert again.returncode == 0, again.stderr
    wait_until(lambda: not leftovers())


class CiRun(ClusterRun):
    """`ci run` whose COMMAND has begun when the block does, and ends when `end` is called."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self._end = folder / "end"
        waits = f"echo COMMAND has begun >&2; until [ -e {self._end} ]; do sleep 0.2; done"
        checks = ("--fail-on", 'path == "/nope"', "--report", f"junit={folder / 'r.xml'}")
        self._report = folder / "r.xml"
        super().__init__(folder, "ci", "run", "-n", namespace, *checks, command=("sh", "-c", waits))

    def __enter__(self) -> Self:
        self.until_said("\nCOMMAND has begun\n")
        return self

    def end(self) -> int:
        """Lets COMMAND end. Returns the exit code of the run."""
        self._end.touch()
        return self.process.wait(PATIENCE)

    def errors(self) -> list[str]:
        """What JUnit says that could not be decided."""
        return [str(error.get("message")) for error in ET.parse(self._report).iter("error")]


def assert_inconclusive(run: CiRun, code: int) -> None:
    assert code == 5, run.said()
    assert "inconclusive: " in run.said()
    assert run.errors()


def test_an_agent_that_dies_makes_the_verdict_inconclusive(namespace: str, tmp_path: Path) -> None:
    with CiRun(tmp_path, namespace) as run:
        for namespace_of_agents in {found["metadata"]["namespace"] for found in agent_pods()}:
            kubectl("delete", "pod", "-n", namespace_of_agents, "--all", "--force", "--grace-period=0")
        run.until_said("connection lost")
        assert_inconclusive(run, run.end())


def test_an_agent_that_stands_still_makes_the_verdict_inconclusive(namespace: str, tmp_path: Path) -> None:
    with CiRun(tmp_path, namespace) as run:
        sessions = list(agents_here())
        if not sessions:
            pytest.skip("the nodes are not this machine, so no process of an agent can be stopped")
        try:
            for pid in sessions:
                os.kill(pid, signal.SIGSTOP)
            run.until_said("connection lost")
            assert_inconclusive(run, run.end())
        finally:
            for pid in sessions:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def test_a_node_that_joins_while_command_runs_makes_the_verdict_inconclusive(namespace: str, tmp_path: Path) -> None:
    found = listed("nodes")
    if len(found) < 2:
        pytest.skip("the cluster has one node, and another one has to join it")
    late = found[-1]
    saved = {"apiVersion": "v1", "kind": "Node", "spec": late["spec"]}
    saved["metadata"] = {name: late["metadata"].get(name, {}) for name in ("name", "labels", "annotations")}
    name = late["metadata"]["name"]
    kubectl("delete", "node", name)
    try:
        with CiRun(tmp_path, namespace) as run:
            kubectl("create", "--validate=false", "-f", "-", text=json.dumps(saved))
            wait_until(lambda: any(each["spec"]["nodeName"] == name for each in agent_pods()))
            run.until_said(f"{name}: joined")
            assert_inconclusive(run, run.end())
            assert any(name in error for error in run.errors()), run.errors()
    finally:
        if not any(each["metadata"]["name"] == name for each in listed("nodes")):
            kubectl("create", "--validate=false", "-f", "-", text=json.dumps(saved))
        kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=100s")
