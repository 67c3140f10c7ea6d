"""Recordings of runs on a real cluster of two nodes: a replay prints what the run printed, over a lost connection."""

from pathlib import Path

import pytest

from tests.real_cluster.real_cluster import ClusterRun, gadget
from tests.real_cluster.test_faults import beats, delete_an_agent, nothing_remains, two_nodes

pytestmark = pytest.mark.cluster
__all__ = ["beats", "two_nodes"]  # fixtures


def test_a_replay_prints_what_a_run_with_a_lost_connection_printed(
    namespace: str, beats: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "run.kgr"
    words = ("trace", "open", "-n", namespace, "-o", "json")
    with ClusterRun(tmp_path, *words, "--record", str(path)) as run, nothing_remains():
        delete_an_agent(run, *beats)
        assert run.stop() == 130
    replayed = gadget("replay", str(path), "-o", "json")
    assert replayed.returncode == 0, replayed.stderr
    assert replayed.stdout == run.out.read_text()
    assert f"{beats[0]}: the connection was lost once" in replayed.stderr
    processes = gadget("replay", str(path), "--node", beats[1], "-o", "json").stdout.splitlines()
    assert 0 < len(processes) < len(replayed.stdout.splitlines())
