"""What a run says is missing is what is missing: numbered opens, each 3 ms on each CPU, whatever happens to the stream.

The time that is missing is read from the rows themselves: between the last one before the gap and the first one after.
"""

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fake_cluster import FakeCluster
from tests.gadget_run import PROJECT
from tests.waiting import PATIENCE, read_until

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]
IMPATIENT_AGENT = (
    "import sys; from kubectl_gadget.agent import __main__; from kubectl_gadget.agent.session import session;"
    "session.HEARTBEAT_LIMIT = 3.0;"
    "sys.exit(__main__.main(sys.argv[1:]))"
)
IMPATIENT_CLIENT = (
    "from kubectl_gadget.run import node; node.HEARTBEAT_SECONDS = 0.5; node.SILENCE_SECONDS = 2.0;"
    "from kubectl_gadget.cli.main import main; main()"
)
PAUSE_US = 3_000


class Stage:
    """A cluster of two nodes, which both are this machine, and a client that traces numbered opens on it."""

    def __init__(self, cluster: FakeCluster, client: asyncio.subprocess.Process) -> None:
        self.cluster = cluster
        self.client = client
        self.said = b""

    async def until_said(self, text: str) -> None:
        self.said = await read_until(self.client.stderr, text, said=self.said)

    def agent(self, node: str) -> int:
        """Its process."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if f"NODE_NAME={node}\0".encode() in environment and parent == os.getpid():
                return int(folder.name)
        raise AssertionError(f"{node} has no agent")


async def stop_the_client(stage: Stage) -> None:
    """As with Ctrl-Z, for longer than agents wait for a sign of life."""
    stage.client.send_signal(signal.SIGSTOP)
    await asyncio.sleep(6)
    stage.client.send_signal(signal.SIGCONT)
    await stage.until_said("node-2: reconnected")
    await stage.until_said("node-1: reconnected")


async def stop_the_agent(stage: Stage) -> None:
    agent = stage.agent("node-1")
    os.kill(agent, signal.SIGSTOP)
    await stage.until_said("node-1: reconnected")
    os.kill(agent, signal.SIGCONT)


async def kill_the_agent(stage: Stage) -> None:
    os.kill(stage.agent("node-1"), signal.SIGKILL)
    await stage.until_said("node-1: reconnected")


async def cut_the_network(stage: Stage) -> None:
    stage.cluster.faults.frozen.add("node-1")
    await stage.until_said("node-1: connection lost")
    await asyncio.sleep(2)
    stage.cluster.faults.frozen.clear()
    await stage.until_said("node-1: reconnected")


async def cut_the_network_until_the_end(stage: Stage) -> None:
    stage.cluster.faults.frozen.add("node-1")
    await stage.until_said("node-1: connection lost")


@pytest.mark.parametrize(
    ("harm", "nodes"),
    [
        (stop_the_client, ("node-1", "node-2")),
        (stop_the_agent, ("node-1",)),
        (kill_the_agent, ("node-1",)),
        (cut_the_network, ("node-1",)),
        (cut_the_network_until_the_end, ("node-1",)),
    ],
)
async def test_the_reported_span_is_the_missing_one(
    harm: Callable[[Stage], Awaitable[None]], nodes: tuple[str, ...], numbered_opens: Path, tmp_path: Path
) -> None:
    folder = f"/{uuid.uuid4().hex}"
    async with FakeCluster(2, (sys.executable, "-c", IMPATIENT_AGENT)) as cluster:
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        words = ("trace", "open", "-A", "--host", "-o", "json", "--path", folder, "--kubeconfig", str(kubeconfig))
        with (tmp_path / "out").open("wb") as out:
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", IMPATIENT_CLIENT, *words), cwd=PROJECT, stdout=out, stderr=subprocess.PIPE
            )
        stage = Stage(cluster, client)
        await stage.until_said("on 2/2 nodes")
        generator = await asyncio.create_subprocess_exec(str(numbered_opens), folder, "1000000", str(PAUSE_US))
        try:
            await asyncio.sleep(1)
            await harm(stage)
            await asyncio.sleep(1)
            client.send_signal(signal.SIGINT)
            ended = datetime.now().timestamp()
            async with asyncio.timeout(PATIENCE):
                _, rest = await client.communicate()
        finally:
            generator.kill()
            await generator.wait()
            cluster.faults.frozen.clear()
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    for node in cluster.nodes:
        rows = [line for line in lines if line["node"] == node and "path" in line]
        said = [line["gap_seconds"] for line in lines if line["node"] == node and "gap_seconds" in line]
        found = re.search(rf"{node}: the connection was lost once, ([\d.]+) s are missing", rest.decode())
        if node not in nodes:
            assert (said, found) == ([], None)
            assert missing(rows) == []
            continue
        assert found, rest.decode()
        (truth,) = missing(rows) or [ended - moment(rows[-1])]
        assert said == [pytest.approx(truth, abs=0.5)]
        assert float(found[1]) == pytest.approx(truth, abs=0.5)
    late = sum(line.get("late", False) for line in lines)
    assert [bool(line.get("late")) for line in lines if "path" in line] == steps_back(lines)
    said = re.search(r"([\d,]+) events?, marked \* or late,", rest.decode())
    assert late == int((said or ["", "0"])[1].replace(",", ""))


def missing(rows: list[dict[str, Any]]) -> list[float]:
    """How long each span is in which opens are missing."""
    numbers = {tuple(map(int, row["path"].split("/")[2:])) for row in rows}
    spans = []
    for before, after in itertools.pairwise(rows):
        cpu, number = map(int, after["path"].split("/")[2:])
        if number and (cpu, number - 1) not in numbers and moment(after) - moment(before) > 0.1:
            spans.append(moment(after) - moment(before))
    return spans


def steps_back(lines: list[dict[str, Any]]) -> list[bool]:
    """Of each row, whether one before it is younger."""
    stamps = [line["timestamp"] for line in lines if "path" in line]
    youngest = itertools.accumulate(stamps, max)
    return [stamp < before for stamp, before in zip(stamps, ["", *youngest], strict=False)]


def moment(row: dict[str, Any]) -> float:
    return datetime.fromisoformat(row["timestamp"]).timestamp()
