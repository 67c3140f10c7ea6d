"""The stages of a start are all seen: they are by names of functions, which may change."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.start import STAGES
from tests.gadget_run import PROJECT

OF_A_CLUSTER = {"kubeconfig", "agent found"}


@pytest.mark.bpf
def test_each_stage_of_a_local_start_is_told(tmp_path: Path) -> None:
    told = tmp_path / "stages"
    words = [str(told), "trace", "open", "--local", "--host", "-o", "json", "--max-events", "1"]
    subprocess.run([sys.executable, "-m", "bench.start_stages", *words], cwd=PROJECT, check=True, capture_output=True)
    assert set(json.loads(told.read_text())) == set(STAGES) - OF_A_CLUSTER
