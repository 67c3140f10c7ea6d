"""Short pods on a real cluster: what the container runtime does to start them is in no row, unless --runtime is given.

Runc has several names on the way (runc, runc:[2:INIT], memfd:runc_clon…, the number of a descriptor), so rows may have
the names of the pods' own programs only.
"""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.real_cluster.real_cluster import ClusterRun, container, listed, pod, run_pods, until_ready
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
GADGETS = ("exec", "open", "mount", "privilege", "file")
OWN = {"sh", "pause"}
"""The programs of a pod with one container that runs a shell."""


def run_short_pods(namespace: str, prefix: str, count: int) -> set[str]:
    names = {f"{prefix}-{number}" for number in range(count)}
    run_pods(namespace, *(pod(name, container("true")) for name in names))

    def ended() -> set[str]:
        return {
            found["metadata"]["name"]
            for found in listed("pods", "-n", namespace)
            if found["status"].get("phase") == "Succeeded"
        }

    wait_until(lambda: names <= ended())
    return names


def traced(namespace: str, folder: Path, pods: int, *flags: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each gadget while short pods ran."""
    runs: dict[str, ClusterRun] = {}
    with ExitStack() as stack:
        for gadget in GADGETS:
            place = folder / gadget
            place.mkdir(parents=True)
            words = ("trace", gadget, "-n", namespace, "-o", "json", *flags)
            runs[gadget] = stack.enter_context(ClusterRun(place, *words))
        names = run_short_pods(namespace, folder.name, pods)
        # The last row of each pod that every run is certain to have is its shell's exec, so this also waits for `exec`.
        wait_until(lambda: names <= {row["pod"] for row in runs["exec"].rows() if row["comm"] == "sh"})
        for run in runs.values():
            assert run.stop() == 130, run.said()
        return {gadget: run.rows() for gadget, run in runs.items()}


@pytest.mark.usefixtures("deployed")
def test_short_pods_show_no_row_of_the_runtime_unless_it_is_asked_for(
    namespace: str, tmp_path: Path, is_long: bool
) -> None:
    # A run attaches to the nodes on which there are pods of the namespace.
    standing = {node["metadata"]["name"] for node in listed("nodes")}
    run_pods(namespace, *(pod(f"on-{node}", container("exec sleep 1000"), nodeName=node) for node in standing))
    until_ready(namespace, *(f"on-{node}" for node in standing))
    shown = traced(namespace, tmp_path / "shown", 2, "--runtime")
    for gadget, rows in shown.items():
        names = {row["comm"] for row in rows}
        assert names - OWN, f"trace {gadget} --runtime shows nothing of the runtime, so this test would see nothing"
    hidden = traced(namespace, tmp_path / "hidden", 100 if is_long else 10)
    others = Counter(
        (gadget, row["comm"], row.get("path") or row.get("operation"), row["container_mark"])
        for gadget, rows in hidden.items()
        for row in rows
        if row["comm"] not in OWN
    )
    assert not others
