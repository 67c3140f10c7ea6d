"""Containers that live a moment, many at a time: every event is there, with the right pod and container.

Each opens known files and executes known programs, and is gone after 50 ms. Names must be read from a bundle that the
runtime removes in a moment, while eight runtimes work at once.
"""

import json
import os
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo import DemoPods
from tests.conftest import why_no_containers
from tests.reliability.local_run import LocalRun
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]
AT_A_TIME = 8
FILES, PROGRAMS = 7, ("echo", "basename", "dirname")


def script(mark: str) -> str:
    opens = f"for i in $(seq {FILES}); do : >/tmp/{mark}-$i; done"
    return f"{opens}; {'; '.join(f'/bin/{program} {mark} >/dev/null' for program in PROGRAMS)}; sleep 0.05"


def expected(mark: str) -> Counter[str]:
    """What one container does."""
    return Counter([f"/tmp/{mark}-{number + 1}" for number in range(FILES)] + [f"/bin/{name}" for name in PROGRAMS])


def seen(run: LocalRun, mark: str) -> dict[tuple[str, str, str], Counter[str]]:
    """What each container of (namespace, pod, container) did, as rows of this test tell it."""
    found: dict[tuple[str, str, str], Counter[str]] = {}
    for line in run.out.read_text().splitlines():
        row: dict[str, Any] = json.loads(line)
        did = row.get("path") if row["event"] == "open" else row["args"][0] if mark in row["args"] else None
        if did and (mark in did or row["event"] == "exec"):
            key = (row["namespace"], row["pod"], row["container"])
            found.setdefault(key, Counter())[did] += 1
    return found


def start(folder: Path) -> LocalRun:
    return LocalRun(folder, "trace", "exec+open", "-A", "-o", "json")


def pods_of(number: int) -> DemoPods:
    return DemoPods(Path(f"/run/kubectl-gadget-churn-{os.getpid()}-{number}"))


def churn(mark: str, containers: int, each: Callable[[], object] = lambda: None) -> None:
    """`containers` in all; `each` is called after each one."""

    def work(number: int) -> None:
        with pods_of(number) as pods:
            for turn in range(containers // AT_A_TIME):
                pods.run_short("churn", f"pod-{number}-{turn}", ["/bin/sh", "-c", script(mark)], f"main-{number}")
                each()

    with ThreadPoolExecutor(AT_A_TIME) as workers:
        list(workers.map(work, range(AT_A_TIME)))


def test_everything_that_containers_of_50_ms_do_is_there_with_their_names(tmp_path: Path, is_long: bool) -> None:
    containers, mark = 200 if is_long else 24, uuid.uuid4().hex
    with start(tmp_path) as run:
        churn(mark, containers)
        run.stop()
    names = [("churn", f"pod-{n}-{t}", f"main-{n}") for n in range(AT_A_TIME) for t in range(containers // AT_A_TIME)]
    assert run.lost == 0
    assert seen(run, mark) == {name: expected(mark) for name in names}


def test_an_agent_that_starts_in_the_middle_gives_no_wrong_name(tmp_path: Path) -> None:
    before, after = uuid.uuid4().hex, uuid.uuid4().hex
    with ThreadPoolExecutor(1) as background:
        churning = background.submit(churn, before, 24)
        with start(tmp_path) as run:
            churn_of_one(after)
            churning.result()
            run.stop()
    assert seen(run, after) == {("late", "pod", "main"): expected(after)}
    for (namespace, pod, container), did in seen(run, before).items():
        if not pod:
            continue  # it was gone before the agent could read its name
        assert namespace == "churn"
        assert container == f"main-{pod.split('-')[1]}"
        assert did <= expected(before)


def churn_of_one(mark: str) -> None:
    with pods_of(99) as pods:
        pods.run_short("late", "pod", ["/bin/sh", "-c", script(mark)])


def test_nested_cgroups_and_two_containers_of_one_pod_are_distinguished(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    waiting = f"until [ -e /tmp/go ]; do sleep 0.05; done; {script(mark)}; : >/tmp/done; sleep 1000"
    with pods_of(0) as pods, start(tmp_path) as run:
        pod = pods.start_pod("two", "xwing", {name: ["/bin/sh", "-c", waiting] for name in ("left", "right")})
        nested = pod.containers["right"].cgroup / "deep" / "deeper"
        nested.mkdir(parents=True)
        (nested / "cgroup.procs").write_text(str(pod.containers["right"].pid))
        folders = [Path(f"/proc/{container.pid}/root/tmp") for container in pod.containers.values()]
        for folder in folders:
            (folder / "go").touch()
        for folder in folders:
            wait_until((folder / "done").exists, "the end of the script")
        run.stop()
    assert seen(run, mark) == {("two", "xwing", name): expected(mark) for name in ("left", "right")}
