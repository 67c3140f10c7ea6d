"""Pins have owners: deployments share a node without touching each other, and what has no owner is found."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.guards import RunningGuard, bpf_file_system

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]


@pytest.fixture
def file_system(tmp_path: Path) -> Iterator[Path]:
    with bpf_file_system(tmp_path / "bpf") as found:
        yield found


@pytest.fixture
def deployment(file_system: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes the node's agent of a deployment, by its namespace."""
    made: list[RunningGuard] = []

    def make(namespace: str, again: int = 0) -> RunningGuard:
        folder = tmp_path / f"{namespace}-{again}"
        folder.mkdir()
        made.append(RunningGuard(folder, file_system, namespace))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def kills(running: RunningGuard, owner: str = "uid-1") -> None:
    """Installs a policy that kills who opens the secret, and waits until it is in force."""
    digest = running.install(running.policy("kills", "Sigkill"), allow_weaker=True, owner=owner)
    running.start()
    running.wait_for(digest)


def is_in_force(running: RunningGuard) -> bool:
    done = subprocess.run(["cat", running.secret], capture_output=True, check=False)
    return done.returncode == -signal.SIGKILL


def listed(running: RunningGuard) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "kubectl_gadget.agent", "pins"]
    done = subprocess.run(command, capture_output=True, text=True, env=running.environment, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def hello(running: RunningGuard) -> dict[str, Any]:
    command = [sys.executable, "-m", "kubectl_gadget.agent", "probe"]
    done = subprocess.run(command, capture_output=True, text=True, env=running.environment, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pins_of(namespace: str, uid: str, **others: Any) -> dict[str, Any]:
    return {"namespace": namespace, "uid": uid, "sets": 1, "held": False, "policies": ["kills"], **others}


def test_two_deployments_have_their_own_policies_and_each_releases_its_own(deployment: Any) -> None:
    one, two = deployment("one"), deployment("two")
    kills(one, "uid-1")
    kills(two, "uid-2")
    assert listed(one) == [pins_of("one", "uid-1", held=True), pins_of("two", "uid-2", held=True)]
    assert hello(one)["pins"] == [pins_of("two", "uid-2", held=True)], "its own is in its state"
    one.wait_for(one.install(owner="uid-1"))
    assert not is_in_force(one)
    assert is_in_force(two)
    assert one.release("own") == {"own": 0}
    assert is_in_force(two)
    assert two.release("own") == {"own": 1}
    assert not is_in_force(two)
    assert listed(one) == []


def test_pins_that_no_agent_holds_are_listed_and_removed_by_owner(deployment: Any) -> None:
    gone, here = deployment("gone"), deployment("here")
    kills(gone, "uid-1")
    kills(here, "uid-2")
    gone.kill()
    assert pins_of("gone", "uid-1") in listed(here)
    assert here.release("gone/uid-3", "elsewhere/uid-1", "gone/") == {"gone/uid-3": 0, "elsewhere/uid-1": 0, "gone/": 0}
    assert is_in_force(gone)
    assert here.release("gone/uid-1") == {"gone/uid-1": 1}
    assert not is_in_force(gone)
    assert not gone.pins.exists()
    assert is_in_force(here)


def test_pins_that_an_agent_holds_are_not_removed_whatever_their_record_says(deployment: Any) -> None:
    one, two = deployment("one"), deployment("two")
    kills(one, "of-a-backup")
    assert two.release("one/of-a-backup") == {"one/of-a-backup": "a running agent keeps them in force"}
    assert is_in_force(one)


def test_release_waits_for_another_command_that_removes_pins(deployment: Any) -> None:
    """Two clients may undeploy at once, and no agent runs."""
    gone, here = deployment("gone"), deployment("here")
    kills(gone, "uid-1")
    gone.kill()
    script = "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], 0), 2); print(flush=True); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", script, str(gone.pins)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert here.release("gone/uid-1") == {"gone/uid-1": 1}
    assert not is_in_force(gone)


def test_policies_that_cannot_be_removed_are_not_reported_as_removed(deployment: Any, file_system: Path) -> None:
    gone, here = deployment("gone"), deployment("here")
    kills(gone, "uid-1")
    gone.kill()
    subprocess.run(["mount", "-o", "remount,ro,bind", str(file_system)], check=True)
    assert here.release("gone/uid-1") == {"gone/uid-1": f"{gone.pins} cannot be removed: Read-only file system"}
    assert is_in_force(gone)


def test_a_namespace_that_was_made_again_is_another_owner(deployment: Any) -> None:
    """What its former agents pinned goes when the new ones start, and they say so."""
    former = deployment("same")
    kills(former, "uid-1")
    former.kill()
    new = deployment("same", 1)
    digest = new.install(new.policy("other"), owner="uid-2")
    new.start()
    new.wait_for(digest)
    assert not is_in_force(former)
    assert new.state()["former"] == ["kills"]
    assert [one["uid"] for one in listed(new)] == ["uid-2"]


def test_the_same_policies_in_a_namespace_that_was_made_again_get_the_new_owner(deployment: Any) -> None:
    former = deployment("same")
    kills(former, "uid-1")
    former.kill()
    former.install(former.policy("kills", "Sigkill"), allow_weaker=True, owner="uid-2")
    former.start()
    former.wait_until(lambda: [one["uid"] for one in listed(former)] == ["uid-2"])
    assert is_in_force(former)


def test_what_was_pinned_is_removed_when_nothing_is_installed_after_its_namespace_was_made_again(
    deployment: Any,
) -> None:
    former = deployment("same")
    kills(former)
    former.kill()
    new = deployment("same", 1)
    new.start()
    new.wait_until(lambda: new.state().get("former") == ["kills"])
    assert not is_in_force(former)


def test_an_owner_cannot_lead_out_of_the_folder(deployment: Any) -> None:
    running = deployment("one")
    running.install(running.policy("kills", "Sigkill"), allow_weaker=True, owner="../../elsewhere")
    running.start()
    running.wait_until(lambda: "is not a UID" in running.state().get("problem", ""))
