"""CI runs against a real cluster (pytest --cluster): two releases of one Deployment, and what is never green."""

import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.cluster.real_cluster import AGENT_FLAGS, container, leftovers, until
from tests.gadget_run import GADGET

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
    until(lambda: not leftovers())


def test_an_agent_that_dies_makes_the_verdict_inconclusive(namespace: str, tmp_path: Path) -> None:
    # COMMAND goes on until the run has noticed it.
    agents = (
        "kubectl delete pod -n kubectl-gadget --all --force --grace-period=0; "
        "until grep -q 'connection lost' err; do sleep 0.2; done"
    )
    flags = ("-n", namespace, *AGENT_FLAGS, "--fail-on", 'path == "/nope"')
    with (tmp_path / "err").open("w") as err:
        ran = subprocess.run(
            [*GADGET, "ci", "run", *flags, "--", "sh", "-c", agents], cwd=tmp_path, stderr=err, timeout=240, check=False
        )
    said = (tmp_path / "err").read_text()
    assert ran.returncode == 5, said
    assert "inconclusive: " in said
