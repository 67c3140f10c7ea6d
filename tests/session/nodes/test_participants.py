"""Which nodes a run is about, in words; and the request of this machine's agent."""

import io

import pytest

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.catalogue import load_gadget
from kubectl_gadget.cluster.cluster_options import Selection
from kubectl_gadget.session.nodes.participants import LocalNodes, choose_nodes
from kubectl_gadget.session.progress import Progress
from kubectl_gadget.session.request import of_run
from kubectl_gadget.session.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.frames import FrameDecoder, FrameType


@pytest.mark.parametrize(
    ("by_default", "where"), [(False, "this machine"), (True, "this machine (no kubeconfig was found)")]
)
def test_a_run_without_a_cluster_says_why_it_is_about_this_machine(by_default: bool, where: str) -> None:
    options = RunOptions((), local=True, local_by_default=by_default)
    assert choose_nodes(options, Progress(io.StringIO())).where(1, 1) == where


@pytest.mark.bpf
async def test_an_agent_loads_programs_before_its_session_is_read() -> None:
    options = RunOptions((GadgetRun(load_gadget("trace_open")),), selection=Selection(host=True), local=True)
    nodes = LocalNodes(options.selection, True, request=of_run(options, [{}]))
    async with Tasks(lambda error: None) as tasks:
        await nodes.begin(tasks)
        stream, decoder = nodes._stream, FrameDecoder()
        assert stream is not None
        frames = [frame for _ in range(2) for frame in decoder.feed(await stream.receive())]
        assert [frame.type for frame in frames][:2] == [FrameType.HELLO, FrameType.STARTED]
        await nodes.close()
