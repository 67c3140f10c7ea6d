"""Every command in README.md and docs/install.md runs as it is written (documented.py), and is cut short if it would go
on until Ctrl-C."""

import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.conftest import why_no_containers
from tests.fake_cluster import FakeCluster
from tests.gadget_run import GADGET, PROJECT
from tests.installation.documented import CLUSTER, DEMO, ELSEWHERE, NOT_RUN, OFFLINE, commands
from tests.waiting import PATIENCE

WATCHED = "3s"
INCONCLUSIVE = 5
GOES_ON = ("diagnose", "trace", "flows", "observe", "top", "advise", "enforce")
CONTAINERS = pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers()))
TABLES = (DEMO, CLUSTER, OFFLINE, ELSEWHERE, NOT_RUN)


def test_each_command_is_run_by_a_test_or_has_a_reason_not_to_be() -> None:
    listed = [command for table in TABLES for command in table]
    assert [command for command in commands() if listed.count(command) != 1] == [], "try: add it to documented.py"
    assert sorted(set(listed) - set(commands())) == [], "no page has these any more. try: remove them there"


def words_of(command: str) -> list[str]:
    """The command as these tests run it: from this tree, and not for ever."""
    words = shlex.split(command.removeprefix("sudo "))
    own = {("kubectl", "gadget"): 2, (".venv/bin/kubectl-gadget", words[1]): 1}.get((words[0], words[1]))
    if own is None:
        return words
    rest = words[own:]
    if "--timeout" in rest:
        rest[rest.index("--timeout") + 1] = WATCHED
    elif rest[rest[0] == "demo"] in GOES_ON and "--help" not in rest:
        rest += ["--timeout", WATCHED]
    return [*GADGET, *rest]


async def run(words: list[str], folder: Path = PROJECT, more: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Returns what it wrote to both streams. Fails the test if it fails."""
    pipe, given = subprocess.PIPE, os.environ | dict(more or {})
    none = subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*words, cwd=folder, stdin=none, stdout=pipe, stderr=pipe, env=given)
    try:
        told, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
    # Two recordings of an idle cluster prove nothing: docs/behavior.md.
    good = {0, INCONCLUSIVE} if "diff" in words else {0}
    assert process.returncode in good, said.decode()
    assert b"Traceback" not in said
    return told.decode(), said.decode()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Mapping[str, str]]:
    """A double of a cluster, as variables of the environment."""
    async with FakeCluster(2) as cluster:
        cluster.add_pod("xwing", "node-1", labels={"app": "demo"})
        yield {"KUBECONFIG": str(cluster.write_kubeconfig(tmp_path / "kubeconfig")), "PYTHONPATH": str(PROJECT)}


@pytest.mark.bpf
@CONTAINERS
@pytest.mark.usefixtures("catalogue_built", "tracefs")
@pytest.mark.parametrize("command", DEMO)
async def test_with_the_demos_pods(command: str) -> None:
    told, _ = await run(words_of(command))
    assert told.strip()


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built", "tracefs")
@pytest.mark.parametrize("command", CLUSTER)
async def test_with_a_cluster(cluster: Mapping[str, str], command: str, tmp_path: Path) -> None:
    variable, _, value = command.removeprefix("export ").partition("=")
    if command.startswith("export "):
        cluster = {**cluster, variable: value}
        command = "kubectl gadget trace open -A"
    _, said = await run(words_of(command), tmp_path, cluster)
    if words_of(command)[-2:] == ["--timeout", WATCHED]:
        assert re.search(r" on (1/1|2/2) nodes", said), said


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built", "tracefs")
@pytest.mark.parametrize("command", OFFLINE)
async def test_without_a_cluster(cluster: Mapping[str, str], command: str, tmp_path: Path) -> None:
    for name in ("old.kgr", "new.kgr") if "old.kgr" in command else ():
        record = f"kubectl gadget record -A --for behavior -o {name} --timeout 1s"
        await run(words_of(record), tmp_path, cluster)
    nowhere = {"PYTHONPATH": str(PROJECT), "KUBECONFIG": "/nonexistent"}
    assert (await run(words_of(command), tmp_path, nowhere))[0].strip()


async def test_what_is_run_in_part(cluster: Mapping[str, str], tmp_path: Path) -> None:
    told, _ = await run(words_of("kubectl gadget version"), tmp_path, cluster)
    assert "Client: " in told
    deploy = next(command for command in ELSEWHERE if "kubectl apply" in command).partition(" | ")[0]
    told, _ = await run(words_of(deploy), tmp_path, cluster)
    assert {"DaemonSet", "ConfigMap"} <= {item["kind"] for item in yaml.safe_load_all(told) if item}


@pytest.mark.root
def test_the_packages_to_build_with_exist() -> None:
    (command,) = (command for command in ELSEWHERE if command.startswith("apt-get "))
    done = subprocess.run([*command.split(), "--simulate"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    setup = next(line for line in (PROJECT / "Makefile").read_text().splitlines() if line.startswith("SETUP_PACKAGES"))
    assert set(command.split()[2:]) <= set(setup.split()), "make setup installs these"
