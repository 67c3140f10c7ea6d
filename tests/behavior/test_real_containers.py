"""Facts of real containers: runc starts them, and real BPF programs watch them."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.behavior.baseline import read_baseline
from kubectl_gadget.behavior.comparison import compare, doubts, paired
from kubectl_gadget.behavior.facts import Behavior, FactKind
from kubectl_gadget.demo import DemoPods
from tests.conftest import why_no_containers
from tests.gadget_run import GADGET, PROJECT, GadgetRun

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]
WORK = """
mkdir -p /tmp/work.$$ && cd /tmp/work.$$
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo $i > part$i; done
cat /etc/passwd /etc/hosts part1 > all
head -c 16 /dev/urandom | md5sum > sum-$$.txt
touch "$(printf '/tmp/a\\377')"
"""
ATTACK = "cp /bin/busybox /tmp/kworker; /tmp/kworker true; cat /etc/shadow"


@pytest.fixture
def pods(catalogue_built: Path, request: pytest.FixtureRequest) -> Iterator[DemoPods]:
    del catalogue_built
    with DemoPods(Path(f"/run/kg-behavior-{os.getpid()}-{abs(hash(request.node.name)) % 10**6}")) as pods:
        yield pods


def run_pod(pods: DemoPods, namespace: str, name: str, script: str) -> None:
    """A pod whose container does its work, and says so by a file; it is left running."""
    pod = pods.start_pod(namespace, name, {"main": ["sh", "-c", f"{script}\nmkfifo /tmp/wait; read x < /tmp/wait"]})
    fifo = Path(f"/proc/{pod.containers['main'].pid}/root/tmp/wait")
    assert (
        subprocess.run(["timeout", "60", "sh", "-c", f"until [ -p {fifo} ]; do :; done"], check=False).returncode == 0
    )


def watched(pods: DemoPods, folder: Path, pod: str, script: str, *words: str) -> Behavior:
    """What a pod does, from its start on."""
    folder.mkdir()
    namespace, path = f"behavior-{os.getpid()}", folder / "baseline.yaml"
    with GadgetRun(folder, "behavior", "save", str(path), "-n", namespace, "--local", *words) as run:
        run_pod(pods, namespace, pod, script)
        assert run.stop() == 0, run.said()
    return read_baseline(path).behavior


def test_the_same_work_twice_has_no_changes_and_a_new_program_is_the_first_one(pods: DemoPods, tmp_path: Path) -> None:
    one = watched(pods, tmp_path / "one", "cart-7c9d5b8f6d-x2x4z", WORK)
    two = watched(pods, tmp_path / "two", "cart-5d8f6bb9c7-zzzzz", WORK)
    attacked = watched(pods, tmp_path / "attacked", "cart-5d8f6bb9c7-bbbbb", f"{WORK}\n{ATTACK}")

    assert FactKind.PROGRAM in {fact.kind for fact in one.facts}
    assert any(fact.value.startswith("write /tmp/work.<n>/") for fact in one.facts)
    assert any(fact.value == "write /tmp/a\ufffd" for fact in one.facts)
    assert (compare(one, two), compare(two, one), doubts(one, two)) == ((), (), ())
    first, second = compare(one, attacked)[:2]
    assert first.fact.program == "/tmp/kworker"
    assert first.risk.name == "program in a writable place"
    assert second.fact.value == "read /etc/shadow"


def test_a_recording_gives_the_facts_that_watching_gives(pods: DemoPods, tmp_path: Path) -> None:
    live = watched(pods, tmp_path / "live", "cart-0", WORK)
    folder, namespace = tmp_path / "recorded", f"behavior-recorded-{os.getpid()}"
    folder.mkdir()
    recording = folder / "run.kgr"
    with GadgetRun(folder, "record", "--for", "behavior", "-o", str(recording), "-n", namespace, "--local") as run:
        run_pod(pods, namespace, "cart-1", WORK)
        assert run.stop() in (0, 130), run.said()
    saved = tmp_path / "saved.yaml"

    subprocess.run([*GADGET, "behavior", "save", str(saved), "--from", str(recording)], cwd=PROJECT, check=True)

    found = read_baseline(saved).behavior
    assert compare(paired(live, found), found) == ()
    assert doubts(paired(live, found), found) == ()


def test_a_recording_for_security_says_which_facts_it_lacks(pods: DemoPods, tmp_path: Path) -> None:
    namespace, recording = f"behavior-security-{os.getpid()}", tmp_path / "run.kgr"
    with GadgetRun(tmp_path, "record", "--for", "security", "-o", str(recording), "-n", namespace, "--local") as run:
        run_pod(pods, namespace, "cart-1", WORK)
        run.stop()
    saved = tmp_path / "saved.yaml"

    done = subprocess.run(
        [*GADGET, "behavior", "save", str(saved), "--from", str(recording)],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )

    assert "not observed: open, change, dependency, capability" in done.stderr
    assert {fact.kind for fact in read_baseline(saved).behavior.facts} == {FactKind.PROGRAM}


def test_a_container_that_ran_before_is_incomplete(pods: DemoPods, tmp_path: Path) -> None:
    namespace, path = f"behavior-late-{os.getpid()}", tmp_path / "baseline.yaml"
    run_pod(pods, namespace, "cart-1", WORK)
    with GadgetRun(tmp_path, "behavior", "save", str(path), "-n", namespace, "--local") as run:
        assert run.stop() == 0

    found = read_baseline(path).behavior

    assert [coverage.complete_runs for coverage in found.coverage.values()] == [0]
    assert "already running when watching began" in run.said()
    assert [fact.says for fact in found.facts] == ["already runs /bin/busybox sh"]


def test_check_shows_only_what_the_baseline_does_not_have(pods: DemoPods, tmp_path: Path) -> None:
    watched(pods, tmp_path / "one", "cart-7c9d5b8f6d-x2x4z", WORK)
    baseline, namespace = tmp_path / "one" / "baseline.yaml", f"behavior-{os.getpid()}"
    words = ("behavior", "check", str(baseline), "-n", namespace, "--local", "-o", "json")

    with GadgetRun(tmp_path, *words) as run:
        run_pod(pods, namespace, "cart-5d8f6bb9c7-zzzzz", WORK)
        assert run.stop() == 130
    assert run.rows() == []

    with GadgetRun(tmp_path, *words, "--fail-on", 'risk == "program in a writable place"') as run:
        run_pod(pods, namespace, "cart-5d8f6bb9c7-bbbbb", f"{WORK}\n{ATTACK}")
        assert run.process.wait(60) == 4
    assert run.rows()[-1]["program"] == "/tmp/kworker"
    assert json.dumps(run.rows()[-1]["attack"])
