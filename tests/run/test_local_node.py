"""The agent of this machine: a real child process."""

import pytest

from kubectl_gadget.run import local_agent
from kubectl_gadget.run.local_node import open_local
from kubectl_gadget.wire.frames import FrameDecoder, FrameType

WORDS = ("trace", "open", "--local")


@pytest.mark.bpf
async def test_the_agent_that_started_early_is_that_of_the_run() -> None:
    local_agent.start_early(WORDS)
    early = local_agent._early
    assert early is not None
    stream = await open_local()
    assert local_agent._early is None
    (hello,) = FrameDecoder().feed(await stream.receive())
    assert hello.type == FrameType.HELLO
    await stream.close()
    assert early.process.returncode == 0
    second = await open_local("nonsense")
    assert await second.receive() == b""
    await second.close()
    assert "usage" in second.stderr_tail


@pytest.mark.bpf
async def test_sending_to_an_agent_that_has_ended_does_not_hide_its_reason() -> None:
    stream = await open_local("nonsense")
    assert await stream.receive() == b""
    for _ in range(3):
        await stream.send(b"a heartbeat")
    await stream.close()
    assert "usage" in stream.stderr_tail


@pytest.mark.parametrize(
    "words",
    [
        ("trace", "open"),
        (*WORDS, "--help"),
        ("bcc", "opensnoop", "--local"),
        ("ci", "run", "--", "make", "--local"),
    ],
)
def test_a_command_line_that_needs_no_session_here_starts_none(words: tuple[str, ...]) -> None:
    local_agent.start_early(words)
    assert local_agent._early is None


@pytest.mark.bpf
def test_an_agent_that_no_run_takes_ends_with_its_input() -> None:
    agent = local_agent.LocalAgent()
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    assert agent.process.wait(60) == 0
