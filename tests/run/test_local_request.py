"""request.py: the request that this machine's agent gets before the run's own imports."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.run import local_agent, local_node
from kubectl_gadget.run.participants import LocalNodes
from kubectl_gadget.run.request import ask_early, early_request, of_run
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.frames import FrameDecoder, FrameType, encode
from kubectl_gadget.wire.message import parse


@pytest.mark.parametrize(
    "different",
    [
        {"filter": "pid == 1"},
        {"fail_on": "true"},
        {"expect": "true"},
        {"output": OutputOptions(columns=("pid",))},
        {"output": OutputOptions(format="jsonpath={.pid}")},
        {"arrangement": Arrangement(sort=("pid",))},
        {"beforehand": print},
        {"gadgets": (GadgetRun(load_gadget("top_file")),)},
        {"gadgets": (GadgetRun(load_gadget("trace_open"), directory=Path("/tmp")),)},
    ],
)
def test_a_run_is_requested_early_only_if_nothing_else_is_to_be_checked(different: dict[str, Any]) -> None:
    options = RunOptions((GadgetRun(load_gadget("trace_open")),), local=True, rest_ms=70)
    early = early_request(options)
    assert early is not None
    assert (early.gadgets, early.rest_ms) == (of_run(options, [{}]).gadgets, 70)
    assert early_request(replace(options, **different)) is None


def test_nothing_that_a_request_needs_imports_what_takes_long() -> None:
    program = """
import pathlib, sys
before = set(sys.modules)
import kubectl_gadget.cli.run
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.run.request import early_request
from kubectl_gadget.run.run_options import GadgetRun, RunOptions

assert early_request(RunOptions((GadgetRun(load_gadget("trace_open")),)))
assert not {"asyncio", "ctypes", "numpy"} & (sys.modules.keys() - before)

import kubectl_gadget.run.live_run  # until it is attached
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


OPENS = RunOptions((GadgetRun(load_gadget("trace_open")),), selection=Selection(host=True), local=True)


@pytest.mark.bpf
async def test_an_agent_loads_programs_before_its_session_is_read() -> None:
    ask_early(OPENS)
    nodes, decoder = LocalNodes(OPENS.selection, True), FrameDecoder()
    async with Tasks(lambda error: None) as tasks:
        await nodes.begin(tasks)
        assert nodes.is_asked
        assert nodes._stream is not None
        frames = [frame for _ in range(2) for frame in decoder.feed(await nodes._stream.receive())]
        assert [frame.type for frame in frames][:2] == [FrameType.HELLO, FrameType.STARTED]
        await nodes.close()


@pytest.mark.bpf
async def test_a_request_that_is_larger_than_the_pipe_is_sent_as_a_whole() -> None:
    skipped = encode(FrameType.OBJECT, bytes(3 << 20))
    local_agent.ask(skipped + encode(FrameType.STOP, b""))
    stream, decoder = await local_node.open_local(), FrameDecoder()
    frames = [frame for _ in range(2) for frame in decoder.feed(await stream.receive())]
    assert frames[-1].type == FrameType.END
    assert parse(frames[-1].payload)["reason"] == "stop"
    await stream.close()


@pytest.mark.parametrize(
    "options", [replace(OPENS, local=False), replace(OPENS, filter="pid == 1")], ids=["cluster", "filter"]
)
def test_no_agent_is_asked_early_where_nodes_or_the_request_are_not_known(options: RunOptions) -> None:
    ask_early(options)
    assert local_agent._early is None
