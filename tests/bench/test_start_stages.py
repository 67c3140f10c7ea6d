"""The stages of a start are all seen: they are by names of functions, which may change."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.start import STAGES
from kubectl_gadget.agents.payload import payload_bytes
from tests.fake_cluster import FakeCluster
from tests.gadget_run import PROJECT

OF_A_CLUSTER = {"kubeconfig", "agent found", "agent sent"}


@pytest.fixture(autouse=True)
def opening() -> Iterator[None]:
    """A program that opens files while a test waits for its first row: on a machine at rest there may be no other."""
    with subprocess.Popen(
        ["sh", "-c", "while sleep 0.1; do cat /etc/passwd; done"], stdout=subprocess.DEVNULL
    ) as opener:
        try:
            yield
        finally:
            opener.kill()


@pytest.mark.bpf
def test_each_stage_of_a_local_start_is_reported(tmp_path: Path) -> None:
    told = tmp_path / "stages"
    words = [str(told), "trace", "open", "--local", "--host", "-o", "json", "--max-events", "1"]
    subprocess.run([sys.executable, "-m", "bench.start_stages", *words], cwd=PROJECT, check=True, capture_output=True)
    found = json.loads(told.read_text())
    assert set(found["stages"]) == set(STAGES) - OF_A_CLUSTER
    assert found["sent"] == []
    assert found["resident"][0] > 1 << 20


@pytest.mark.bpf
async def test_what_goes_to_nodes_of_a_cluster_is_counted(tmp_path: Path) -> None:
    told = tmp_path / "stages"
    async with FakeCluster(1) as cluster:
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        words = [str(told), "trace", "open", "-A", "--host", "-o", "json", "--kubeconfig", str(kubeconfig)]
        command = [sys.executable, "-m", "bench.start_stages", *words, "--max-events", "1"]
        process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdout=subprocess.DEVNULL)
        assert await process.wait() == 0
    found = json.loads(told.read_text())
    assert found["sent"] == [len(payload_bytes(os.uname().machine))]
    assert "agent sent" in found["stages"]
