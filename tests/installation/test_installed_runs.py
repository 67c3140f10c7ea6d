"""What was installed in Debian 12 and 13 traces: a double of a cluster as a user who is not root, and this machine."""

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import DemoPods
from tests.gadget_run import PROJECT, until_under_way
from tests.installation.clean import HOME, KINDS, PROGRAMS, USER, DebianRoot
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs"), pytest.mark.timeout(2400)]
OPENS = 3


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The kubeconfig of a double with two nodes, both of which are this machine."""
    path = tmp_path_factory.mktemp("double") / "kubeconfig"
    command = [sys.executable, "-m", "tests.fake_cluster", "--nodes", "2", "--kubeconfig", str(path)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as double:
        assert double.stdout is not None
        assert double.stdout.readline().startswith("export KUBECONFIG=")
        yield path.read_text()
        double.send_signal(signal.SIGINT)


def start(root: DebianRoot, kind: str, *words: str, user: int = USER) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command = root.command(f"{PROGRAMS[kind]}/kubectl-gadget", *words, user=user)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_who_is_not_root_traces_a_cluster(
    installed: DebianRoot, kubeconfig: str, pods: DemoPods, kind: str
) -> None:
    (installed.path / HOME[1:] / "kubeconfig").write_text(kubeconfig)
    path = f"/tmp/{uuid.uuid4().hex}"
    words = ("--kubeconfig", f"{HOME}/kubeconfig", "-o", "json", "--path", path, "--max-events", str(2 * OPENS))
    with start(installed, kind, "trace", "open", "-A", *words) as run:
        until_under_way(run)
        pods.run_short("default", "xwing", ["/bin/sh", "-c", f"for i in 1 2 3; do : >{path}; done"], "spaceship")
        told, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, said
    rows = [json.loads(line) for line in told.splitlines()]
    assert [(row["pod"], row["path"]) for row in rows] == [("xwing", path)] * 2 * OPENS
    assert {row["node"] for row in rows} == {"node-1", "node-2"}
    assert "lost: 0" in said


@pytest.mark.parametrize("kind", KINDS)
def test_root_traces_this_machine_without_libbpf_of_the_system(
    installed: DebianRoot, kind: str, tmp_path: Path
) -> None:
    assert not list(installed.path.glob("usr/lib/*/libbpf.so*"))
    words = ("trace", "open", "--local", "--host", "-o", "json", "--path", str(tmp_path / "seen"), "--max-events", "1")
    with start(installed, kind, *words, user=0) as run:
        until_under_way(run)
        (tmp_path / "seen").write_text("")
        told, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, said
    assert json.loads(told)["path"] == str(tmp_path / "seen")
