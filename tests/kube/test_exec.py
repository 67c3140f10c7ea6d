"""The exec stream, against real child processes behind a real websocket."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.uri import WebSocketURI, parse_uri

from kubectl_gadget.errors import ClusterError, ForbiddenError
from kubectl_gadget.kube.connection import in_thread
from kubectl_gadget.kube.exec import ExecStream, open_exec
from kubectl_gadget.kube.failure import StatusError
from kubectl_gadget.kube.requests import Api
from tests.fake_cluster import FakeCluster
from tests.waiting import until

ECHO = ("cat",)


@pytest.fixture(autouse=True)
def _pod(cluster: FakeCluster) -> None:
    cluster.add_pod("p", "node-1")


async def start(api: Api, *command: str) -> ExecStream:
    return await open_exec(api, "default", "p", "main", command, "node-1")


async def drain(stream: ExecStream) -> bytes:
    data = b""
    while piece := await stream.receive():
        data += piece
    return data


async def test_what_is_sent_comes_back_whole(api: Api) -> None:
    stream = await start(api, *ECHO)
    sent = bytes(range(256)) * 10007
    sending = asyncio.create_task(stream.send(sent))
    received = b""
    while len(received) < len(sent):
        received += await stream.receive()
    await sending
    assert received == sent
    await stream.close()


async def test_a_stream_does_not_keep_the_command_and_the_headers_of_its_handshake(api: Api) -> None:
    stream = await start(api, "cat", "--", "a-long-word" * 100)
    websocket = stream.websocket
    kept = [websocket.request, websocket.response, websocket.protocol]
    assert "long-word" not in str([vars(one) for one in kept if one is not None])
    assert websocket.response is not None
    assert not websocket.response.headers
    await stream.close()


async def test_what_is_parsed_and_cached_of_urls_has_no_command(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache keeps 128 URLs, and a command that starts an agent has 4 KB."""
    parsed = []

    def remembered(uri: str) -> WebSocketURI:
        parsed.append(uri)
        return parse_uri(uri)

    monkeypatch.setattr("websockets.asyncio.client.parse_uri", remembered)
    stream = await start(api, "echo", "a-long-word")
    assert await drain(stream) == b"a-long-word\n"
    await stream.close()
    assert parsed
    assert "long-word" not in str(parsed)


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_both_subprotocols_are_spoken(cluster: FakeCluster, api: Api, protocol: str) -> None:
    cluster.faults.subprotocols = (protocol,)
    stream = await start(api, "echo", "hello")
    assert await drain(stream) == b"hello\n"
    assert stream.exit_code == 0
    await stream.close()


async def test_streams_that_are_opened_together_ask_for_the_credentials_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def counted(call: Callable[[], Any]) -> Any:
        asked.append(call)
        return await in_thread(call)

    monkeypatch.setattr("kubectl_gadget.kube.websocket.in_thread", counted)
    await (await start(api, "true")).close()
    first = len(asked)
    assert first  # a token may have to be renewed, which may take long
    for _ in range(3):
        await (await start(api, "true")).close()
    assert len(asked) == first


async def test_exit_code_and_standard_error_are_kept(api: Api) -> None:
    stream = await start(api, "sh", "-c", "echo out; echo why >&2; exit 7")
    assert await drain(stream) == b"out\n"
    assert (stream.exit_code, stream.stderr_tail) == (7, "why")
    await stream.close()


async def test_a_command_that_cannot_be_started_says_why(api: Api) -> None:
    stream = await start(api, "/no-such-program")  # with its path: that of the user may lead to what is not theirs
    assert await drain(stream) == b""
    assert stream.exit_code is None
    assert "No such file" in stream.stderr_tail
    await stream.close()


async def test_a_cut_connection_is_an_error_that_names_the_node(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.cut_after["node-1"] = 100_000
    stream = await start(api, "head", "-c", "1000000", "/dev/zero")
    with pytest.raises(ClusterError, match="the connection to node-1 was lost"):
        await drain(stream)
    with pytest.raises(ClusterError, match="the connection to node-1 was lost"):
        await stream.send(b"x")
    await stream.close()


async def test_output_in_small_messages_arrives_in_order(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.piece = 7
    stream = await start(api, "seq", "1", "997")
    assert await drain(stream) == "".join(f"{number}\n" for number in range(1, 998)).encode()
    await stream.close()


async def test_a_slow_reader_slows_the_process_and_loses_nothing(api: Api) -> None:
    code = "import sys\nfor n in range(8000): sys.stdout.write('x' * 1023 + '\\n')\n"
    stream = await start(api, sys.executable, "-c", code)
    first = await stream.receive()
    await asyncio.sleep(0.3)
    assert len(first) + len(await drain(stream)) == 8000 * 1024
    await stream.close()


async def test_closing_ends_the_process_at_once(api: Api, tmp_path: Path) -> None:
    stream = await start(api, "sh", "-c", f"cat; echo ended > {tmp_path}/mark")
    await stream.send(b"x")
    assert await stream.receive() == b"x"
    await stream.close()
    await until((tmp_path / "mark").exists)


async def test_cancelling_receive_loses_nothing(api: Api) -> None:
    stream = await start(api, *ECHO)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.receive(), 0.05)
    await stream.send(b"still here")
    assert await stream.receive() == b"still here"
    await stream.close()


async def test_a_pod_that_does_not_exist_is_a_404(api: Api) -> None:
    with pytest.raises(StatusError, match='pods "nothing" not found') as error:
        await open_exec(api, "default", "nothing", "main", ECHO)
    assert error.value.code == 404


async def test_forbidden_exec_names_the_right_that_is_missing(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.forbidden.add(("create", "pods/exec"))
    with pytest.raises(ForbiddenError) as error:
        await start(api, *ECHO)
    assert error.value.remedy == "kubectl auth can-i create pods --subresource=exec -n default"


async def test_refused_exec_passes_the_servers_reason_on(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.refused_exec["node-1"] = 500
    with pytest.raises(StatusError, match="error dialing backend"):
        await start(api, *ECHO)


async def test_a_process_that_was_killed_and_reported_nothing_is_reported_by_its_signal(api: Api) -> None:
    stream = await start(api, "sh", "-c", "exit 137")  # so the kubelet tells it
    assert await drain(stream) == b""
    assert stream.stderr_tail == "killed by signal 9"
    await stream.close()
