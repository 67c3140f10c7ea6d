"""`kubectl gadget enforce --network-policy` on this machine, with containers: the whole way from YAML to EPERM."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPods
from tests.conftest import why_no_containers
from tests.gadget_run import GADGET
from tests.policies.network.enforcing import enforcing, known_pod
from tests.waiting import PATIENCE

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]
TIMES = 7
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


@contextmanager
def enforce(folder: Path, *arguments: str, end: signal.Signals = signal.SIGINT) -> Iterator[list[dict[str, Any]]]:
    known = [known_pod("shop", name, name) for name in ("web", "other")]
    with enforcing(folder, [POLICY], known, *arguments, end=end) as rows:
        yield rows


def call(pods: DemoPods, name: str) -> bool:
    """True if the first thing that a new pod does, a call, is refused."""
    return pods.run_short("shop", name, CALL).containers["main"].exit_code == 0


def test_the_first_call_of_a_new_pod_is_refused_and_reported(pods: DemoPods, tmp_path: Path) -> None:
    with enforce(tmp_path) as rows:
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


def test_a_dry_run_only_reports(pods: DemoPods, tmp_path: Path) -> None:
    with enforce(tmp_path, "--dry-run") as rows:
        assert not call(pods, "web")
    assert [row["action"] for row in rows if row["pod"] == "web"][:1] == ["dry-run"]


def replayed(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*GADGET, "replay", str(path), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)


def test_a_replay_shows_what_the_run_refused(pods: DemoPods, tmp_path: Path) -> None:
    path = tmp_path / "refused.kgr"
    with enforce(tmp_path, "--record", str(path)) as rows:
        assert call(pods, "web")
    assert rows
    for words in ((), ("enforce", "-n", "shop")):
        found = replayed(path, *words, "-o", "json")
        assert [json.loads(line) for line in found.stdout.splitlines()] == rows, found.stderr
    assert not replayed(path, "enforce", "-o", "json", "-n", "elsewhere").stdout
    refused = replayed(path, "enforce", "--network-policy", "x.yaml")
    assert refused.returncode == 2
    assert "--network-policy cannot be used with a replay, which enforces nothing" in refused.stderr


def test_nothing_stays_when_the_client_dies(pods: DemoPods, tmp_path: Path) -> None:
    with enforce(tmp_path, end=signal.SIGKILL):
        assert call(pods, "web")
    deadline = time.monotonic() + PATIENCE
    while call(pods, "web"):
        assert time.monotonic() < deadline, "it still refuses"
