"""A profile of real containers, from agent to client: named and stripped programs in file systems of their own."""

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo import DemoPods
from tests.agent.burners import WAYS, compile_burner
from tests.conftest import why_no_containers
from tests.gadget_run import GADGET

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]


def profile(*arguments: str) -> list[dict[str, Any]]:
    """Rows of a run on this machine."""
    command = [*GADGET, "profile", "cpu", "--local", "-o", "json", *arguments]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_containers_are_profiled_by_their_own_files(tmp_path: Path) -> None:
    state = Path(f"/run/kubectl-gadget-test-stacks-{os.getpid()}")
    static = compile_burner(tmp_path / "static", *WAYS["static"])
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, static], check=True)
    with DemoPods(state) as pods:
        # The same path in both, and something else behind it.
        for name, program in (("named", static), ("nameless", stripped)):
            shutil.copy(program, state / "image" / "bin" / "work")
            pods.start_pod("default", name, {"burner": ["/bin/work"]})
            (state / "image" / "bin" / "work").unlink()
        rows: list[dict[str, Any]] = []
        graph = tmp_path / "graph.html"
        while min(Counter(row["pod"] for row in rows).get(name, 0) for name in ("named", "nameless")) < 2:
            rows += profile("-n", "default", "--timeout", "3s", "--flame-graph", str(graph))
    by_pod: dict[str, Counter[tuple[str, ...]]] = {"named": Counter(), "nameless": Counter()}
    for row in rows:
        if row["pod"] not in by_pod:
            continue  # of who else runs here
        assert row["container"] == "burner"
        stack = tuple(frame.split(" ")[0] for frame in row["user_stack"][:4])
        by_pod[row["pod"]][stack] += row["samples"]
    named = by_pod["named"]
    heavy, light = named["spin", "heavy", "burn", "main"], named["spin", "light", "burn", "main"]
    assert heavy + light > 0.8 * named.total()
    assert heavy > light
    assert {frame for stack in by_pod["nameless"] for frame in stack} == {"[unknown]"}
    unknown = {frame for row in rows if row["pod"] == "nameless" for frame in row["user_stack"]}
    assert all(frame.startswith("[unknown] (work+0x") for frame in unknown)
    assert '"default/named/burner","place"' in graph.read_text()
