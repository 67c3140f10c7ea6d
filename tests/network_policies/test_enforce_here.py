"""`kubectl gadget enforce --network-policy` on this machine, with containers: the whole way from YAML to EPERM."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_gadget.demo.pods import DemoPods
from tests.conftest import why_no_containers
from tests.gadget_run import until_under_way

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]
TIMES = 7
SECONDS = 60.0
POLICY: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "no-way-out", "namespace": "shop"},
    "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]},
}
CALL = ["sh", "-c", "nc 192.0.2.1 80 2>&1 | grep -q permitted"]
"""Ends with 0 when connect() is refused, and with 1 when it fails otherwise: these pods have no network."""


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory, catalogue_built: Path) -> Iterator[DemoPods]:
    with DemoPods(Path(f"/run/kubectl-gadget-{tmp_path_factory.mktemp('pods').parent.name}-netpol")) as found:
        yield found


def known(name: str, app: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "labels": {"app": app}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    objects = {"kind": "List", "items": [known("web", "web"), known("other", "other")]}
    (tmp_path / "objects.yaml").write_text(yaml.safe_dump(objects))
    return ["--network-policy", str(tmp_path / "policy.yaml"), "--objects", str(tmp_path / "objects.yaml")]


@contextmanager
def enforce(*arguments: str, end: signal.Signals = signal.SIGINT) -> Iterator[list[dict[str, Any]]]:
    """Runs the command while the block does its deed; the rows are in the list afterwards."""
    command = [sys.executable, "-m", "kubectl_gadget.cli.main", "enforce", "--local", "-A", "-o", "json", *arguments]
    found: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until_under_way(process)
        yield found
        process.send_signal(end)
        out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == (-end if end == signal.SIGKILL else 128 + end)
    found += map(json.loads, out.splitlines())


def call(pods: DemoPods, name: str) -> bool:
    """Whether the first thing that a new pod does, a call, is refused."""
    return pods.run_short("shop", name, CALL).containers["main"].exit_code == 0


def test_the_first_call_of_a_new_pod_is_refused_and_told(pods: DemoPods, files: list[str]) -> None:
    with enforce(*files) as rows:
        assert [call(pods, "web") for _ in range(TIMES)] == [True] * TIMES
        assert not call(pods, "other")
        assert call(pods, "unknown")
    web = [row for row in rows if row["pod"] == "web"]
    assert len(web) == TIMES
    for row in web:
        assert (row["namespace"], row["container"], row["comm"]) == ("shop", "main", "nc")
        assert (row["action"], row["operation"], row["direction"]) == ("refused", "connect", "egress")
        assert (row["remote"], row["remote_port"], row["protocol"]) == ("192.0.2.1", 80, "TCP")
        assert (row["policy"], row["rule"], row["peer"]) == ("no-way-out", None, None)
    (unknown,) = [row for row in rows if row["pod"] == "unknown"]
    assert unknown["policy"] == "(the pod's labels are not known yet)"
    assert len(rows) == TIMES + 1


def test_a_dry_run_only_tells(pods: DemoPods, files: list[str]) -> None:
    with enforce(*files, "--dry-run") as rows:
        assert not call(pods, "web")
    assert [row["action"] for row in rows if row["pod"] == "web"][:1] == ["dry-run"]


def test_nothing_stays_when_the_client_dies(pods: DemoPods, files: list[str]) -> None:
    with enforce(*files, end=signal.SIGKILL):
        assert call(pods, "web")
    deadline = time.monotonic() + SECONDS
    while call(pods, "web"):
        assert time.monotonic() < deadline, "it still refuses"
