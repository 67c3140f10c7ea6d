"""Who uses agents is known: status shows it, and undeploy takes no agents from a run without asking."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agents import manifests, node_status
from kubectl_gadget.agents.node_status import AgentUse, Candidate, NodeStatus, choose, fits
from kubectl_gadget.agents.per_node import Agents
from kubectl_gadget.agents.resident_agents import deploy, undeploy
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.exec import ExecStream
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.wire.agent_messages import Hello, RunningSession, from_agent
from kubectl_gadget.wire.frames import FrameDecoder
from kubectl_gadget.wire.session_command import SessionCommand
from tests.agents.leftovers import left
from tests.fake_cluster import FakeCluster
from tests.gadget_run import GADGET, PROJECT
from tests.waiting import until

NAMESPACE = "kubectl-gadget"
SESSION = SessionCommand(("trace_exec", "trace_open"))


@pytest.fixture
async def run(api: Api, agent_options: AgentOptions, tasks: Tasks) -> AsyncIterator[Agents]:
    """A run with agents of its own."""
    agents = Agents(api, agent_options, tasks, session=SESSION)
    yield agents
    await agents.close()


async def gadget(cluster: FakeCluster, folder: Path, *words: str) -> tuple[int, str, str]:
    """The exit code, output and messages of the command line, whose standard input is no terminal."""
    path = cluster.write_kubeconfig(folder / "kubeconfig")
    process = await asyncio.create_subprocess_exec(
        *(*GADGET, *words, "--kubeconfig", str(path)),
        cwd=PROJECT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_run_with_agents_of_its_own_says_whose_it_is(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions, run: Agents
) -> None:
    for node in cluster.nodes:
        await (await run.open(node)).close()
    (use,) = await node_status.on_demand(api, agent_options)
    assert use.user.startswith("tester (")
    assert use.user.endswith(f"@{os.uname().nodename})")
    assert use.gadgets == SESSION.gadgets
    assert use.nodes == tuple(cluster.nodes)
    assert -1 < use.seconds < 60
    cluster.store.remove("jobs", NAMESPACE, f"run-{run.run}")
    assert await node_status.on_demand(api, agent_options) == []


async def test_a_cluster_that_does_not_say_who_we_are_is_no_hindrance(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions, run: Agents
) -> None:
    cluster.faults.forbidden.add(("create", "selfsubjectreviews"))
    await (await run.open("node-1")).close()
    (use,) = await node_status.on_demand(api, agent_options)
    assert use.user.endswith(f"@{os.uname().nodename})")


async def test_what_others_wrote_is_cut_and_may_be_missing(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    cluster.add_namespace(NAMESPACE)
    job = manifests.anchor_job(agent_options, "one", 20, user="x" * 100_000)
    del job["metadata"]["annotations"][manifests.GADGETS_ANNOTATION]
    cluster.store.add("jobs", NAMESPACE, job)
    (use,) = await node_status.on_demand(api, agent_options)
    assert (len(use.user), use.gadgets, use.nodes) == (100, ("unknown",), ())


def test_the_sessions_of_a_run_on_many_nodes_are_one() -> None:
    def node(name: str, *found: tuple[str, int]) -> NodeStatus:
        running = tuple(
            RunningSession(gadgets=(gadget,), seconds=seconds, map_bytes=seconds * 1000) for gadget, seconds in found
        )
        return NodeStatus(name, hello=Hello(sessions=running))

    nodes = [node("n1", ("a", 90), ("a", 5), ("b", 3)), node("n2", ("a", 91)), node("n3"), NodeStatus("n4")]
    assert node_status.in_residents(nodes) == [
        AgentUse("", ("a",), ("n1", "n2"), 91, map_bytes=91_000),
        AgentUse("", ("a",), ("n1",), 5, map_bytes=5000),
        AgentUse("", ("b",), ("n1",), 3, map_bytes=3000),
    ]


async def hello(stream: ExecStream) -> Hello:
    decoder = FrameDecoder()
    while data := await stream.receive():
        for frame in decoder.feed(data):
            if isinstance(message := from_agent(frame), Hello):
                return message
    raise AssertionError(f"no HELLO: {stream.stderr_tail}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the agent runs on Linux")
async def test_a_resident_agent_says_which_sessions_run_and_undeploy_asks(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions, tasks: Tasks, tmp_path: Path
) -> None:
    await deploy(api, agent_options, lambda _: None)
    for pod in cluster.pods(NAMESPACE):  # which the pod's main process creates
        folder = Path(cluster.server.folders.name) / pod["metadata"]["name"]
        folder.mkdir()
        (folder / "kubectl-gadget.sessions").touch()
    stream = await Agents(api, agent_options, tasks, session=SESSION).open("node-1")
    assert (await hello(stream)).sessions == ()
    other = await Agents(api, agent_options, tasks).open("node-1")
    (found,) = (await hello(other)).sessions
    await other.close()
    assert found.gadgets == SESSION.gadgets
    assert 0 <= found.seconds < 60
    assert found.map_bytes is not None
    code, out, _ = await gadget(cluster, tmp_path, "status")
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[-1:]] == [
        ["<unknown>", "trace_exec,trace_open", "resident", "node-1"]
    ]
    _, out, _ = await gadget(cluster, tmp_path, "status", "-o", "json")
    first, second = json.loads(out)
    assert [use["gadgets"] for use in first["runs"]] == [list(SESSION.gadgets or ())]
    assert second["runs"] == []
    code, _, said = await gadget(cluster, tmp_path, "undeploy")
    assert code == 2
    assert "trace_exec, trace_open by an unknown user on node-1" in said
    assert "nothing was removed" in said
    assert len(cluster.pods(NAMESPACE)) == 2
    await stream.close()


@pytest.mark.slow
async def test_undeploy_takes_no_agents_from_a_run_without_force(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions, run: Agents, tmp_path: Path
) -> None:
    before = set(cluster.store.objects)
    await (await run.open("node-1")).close()
    code, out, said = await gadget(cluster, tmp_path, "status")
    assert code == 0, said
    assert "tester" in out.splitlines()[-1]
    assert "on demand" in out.splitlines()[-1]
    code, _, said = await gadget(cluster, tmp_path, "undeploy")
    assert code == 2
    assert "trace_exec, trace_open by tester (" in said
    assert "on node-1, for " in said
    assert "--force" in said
    assert len(cluster.pods(NAMESPACE)) == 1
    code, _, said = await gadget(cluster, tmp_path, "undeploy", "--force")
    assert code == 0, said
    assert "these runs lose their agents:\n  trace_exec, trace_open by tester (" in said
    await until(lambda: set(cluster.store.objects) == before)


async def test_undeploy_does_not_end_a_run_that_begins_after_the_question(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions, tasks: Tasks, run: Agents
) -> None:
    await deploy(api, agent_options, lambda _: None)
    before = set(cluster.store.objects)
    late = manifests.anchor_job(agent_options, "late", 20)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text == f"daemonset/{manifests.NAME} deleted":
            cluster.store.add("jobs", NAMESPACE, late)

    await undeploy(api, agent_options, say)
    assert said[-1] == f"namespace/{NAMESPACE} is kept: in use by 1 run; the last one deletes it"
    assert ("jobs", NAMESPACE, "run-late") in cluster.store.objects
    assert manifests.is_on_demand(cluster.store.objects["namespaces", "", NAMESPACE])
    assert not [key for key in cluster.store.objects if key[0] == "daemonsets"]
    assert left(cluster, before) == {("jobs", NAMESPACE, "run-late")}


async def test_undeploy_does_not_delete_a_namespace_in_which_a_run_begins_at_that_moment(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions, monkeypatch: pytest.MonkeyPatch, run: Agents
) -> None:
    await deploy(api, agent_options, lambda _: None)
    deleted, began = api.delete, []

    async def delete(resource: object, name: str, *words: object, **named: object) -> bool:
        if name == NAMESPACE and not began:
            began.append(name)
            cluster.store.add("jobs", NAMESPACE, manifests.anchor_job(agent_options, "late", 20))
            mark = {"annotations": {manifests.LATEST_ANNOTATION: "run-late"}}
            cluster.store.change("namespaces", "", NAMESPACE, lambda found: found["metadata"].update(mark))
        return await deleted(resource, name, *words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(api, "delete", delete)
    await undeploy(api, agent_options, lambda _: None)
    assert began
    found = cluster.store.objects["namespaces", "", NAMESPACE]
    assert "deletionTimestamp" not in found["metadata"]
    assert ("jobs", NAMESPACE, "run-late") in cluster.store.objects


async def test_an_answer_of_no_removes_nothing(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions, run: Agents
) -> None:
    await (await run.open("node-1")).close()
    before = set(cluster.store.objects)

    def refuse(uses: Sequence[AgentUse]) -> None:
        raise UsageError(f"{len(uses)} runs")

    with pytest.raises(UsageError, match="1 runs"):
        await undeploy(api, agent_options, lambda _: None, confirm=refuse)
    assert set(cluster.store.objects) == before


@pytest.mark.parametrize(("seconds", "age"), [(-3.0, "0s"), (59.9, "59s"), (61.0, "1m1s"), (7260.0, "2h1m")])
def test_the_age_of_a_run_is_short(seconds: float, age: str) -> None:
    assert AgentUse("", (), (), seconds).age == age


# Images that nodes have


def node(*images: tuple[tuple[str, ...], int]) -> dict[str, Any]:
    return {"status": {"images": [{"names": list(names), "sizeBytes": size} for names, size in images]}}


@pytest.mark.parametrize(
    "name",
    [
        "docker.io/library/python:3.13-slim",
        "docker.io/library/python:3.9-alpine",
        "registry.example/team/python3.11:1",
        "python@sha256:0123",
        "ghcr.io/kubectl-gadget/agent:0.1.0",
    ],
)
def test_an_image_whose_name_says_python_3_9_or_newer_or_that_is_ours_fits(name: str) -> None:
    assert fits(name)


@pytest.mark.parametrize(
    "name",
    [
        "docker.io/library/python:3.8-slim",
        "docker.io/library/nginx:1.27",
        "ghcr.io/kubectl-gadget/agent:0.1.0-bcc",
        "",
    ],
)
def test_older_pythons_and_other_images_do_not_fit(name: str) -> None:
    assert not fits(name)


def test_images_on_most_nodes_come_first_then_ours_then_small_ones() -> None:
    ours, large, small = "ghcr.io/kubectl-gadget/agent:0.1.0", "python:3.13", "python:3.13-slim"
    everywhere = "registry.example/python:3.12"
    both = (("registry.example/python@sha256:0123", everywhere), 50)
    found = choose([node(((large,), 900), both), node(((small,), 100), ((ours,), 500), both), {"status": {}}])
    assert found == [
        Candidate(everywhere, 2, 50, False),
        Candidate(ours, 1, 500, True),
        Candidate(small, 1, 100, False),
        Candidate(large, 1, 900, False),
    ]


def test_an_image_without_a_tag_is_named_by_its_digest() -> None:
    assert [one.image for one in choose([node((("python@sha256:0123",), 1))])] == ["python@sha256:0123"]
