"""The event loop that reads streams with events in turns."""

import asyncio
import selectors
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("needs epoll", allow_module_level=True)

from kubectl_gadget.kube.cluster_options import KubeOptions
from kubectl_gadget.kube.exec import open_exec
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.kube.read_turns import TurnLoop, TurnSelector, run
from kubectl_gadget.kube.requests import Api
from tests.fake_cluster import FakeCluster
from tests.waiting import until


class Pairs:
    """Connected sockets, registered and readable."""

    def __init__(self, count: int) -> None:
        self.selector = TurnSelector()
        self.pairs = [socket.socketpair() for _ in range(count)]
        for ours, theirs in self.pairs:
            self.selector.register(ours, selectors.EVENT_READ, ours)
            theirs.send(b"x")

    def wait_for_turn(self, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
        for ours, _ in pairs:
            self.selector.wait_for_turn(ours.fileno())

    def ready(self) -> list[socket.socket]:
        return [key.data for key, _ in self.selector.select(0)]

    def close(self) -> None:
        self.selector.close()
        for pair in self.pairs:
            for one in pair:
                one.close()


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    pairs = Pairs(101)
    yield pairs
    pairs.close()


def test_a_handshake_waits_for_few_of_many_streams_and_each_of_these_gets_its_turn(pairs: Pairs) -> None:
    (shaking, _), *streams = pairs.pairs
    pairs.wait_for_turn(streams)
    seen = set()
    for _ in range(7):
        ready = pairs.ready()
        assert ready[0] is shaking
        assert len(ready) <= 17
        seen |= set(ready)
    assert len(seen) == 101


def test_all_streams_are_read_at_once_when_nothing_else_is_ready(pairs: Pairs) -> None:
    (shaking, _), *streams = pairs.pairs
    pairs.wait_for_turn(streams)
    shaking.recv(1)
    assert len(pairs.ready()) == 100


def test_a_stream_that_has_its_turn_wakes_the_selector(pairs: Pairs) -> None:
    pairs.wait_for_turn(pairs.pairs)
    for ours, _ in pairs.pairs:
        ours.recv(1)
    pairs.pairs[5][1].send(b"y")
    assert [key.data for key, _ in pairs.selector.select(20)] == [pairs.pairs[5][0]]


def test_a_stream_to_which_something_must_be_written_is_a_usual_one(pairs: Pairs) -> None:
    ours, _ = pairs.pairs[0]
    pairs.wait_for_turn(pairs.pairs[:1])
    pairs.selector.modify(ours, selectors.EVENT_READ | selectors.EVENT_WRITE, ours)
    pairs.wait_for_turn(pairs.pairs[:1])
    events = {key.data: mask for key, mask in pairs.selector.select(0)}
    assert events[ours] == selectors.EVENT_READ | selectors.EVENT_WRITE


def test_a_stream_that_is_not_read_now_is_not_reported(pairs: Pairs) -> None:
    ours, _ = pairs.pairs[0]
    pairs.wait_for_turn(pairs.pairs)
    pairs.selector.unregister(ours)
    assert ours not in pairs.ready()
    pairs.selector.register(ours, selectors.EVENT_READ, ours)
    assert ours in pairs.ready()


def test_a_closed_socket_and_a_new_one_with_its_number(pairs: Pairs) -> None:
    ours, theirs = pairs.pairs.pop()
    pairs.wait_for_turn([(ours, theirs)])
    number = ours.fileno()
    ours.close()
    pairs.selector.unregister(ours)
    fresh, other = socket.socketpair()
    pairs.pairs.append((fresh, other))
    assert fresh.fileno() == number
    pairs.selector.register(fresh, selectors.EVENT_READ, fresh)
    other.send(b"z")
    assert fresh in pairs.ready()
    theirs.close()


def test_an_exec_takes_turns_once_it_sends_events_and_delivers_everything(tmp_path: Path) -> None:
    sent = bytes(range(256)) * 4000
    parts: list[bytes] = []
    in_turns = set[int]()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        selector = loop.turns

        def take(data: bytes) -> bool:
            in_turns.add(len(selector._in_turns))
            if len(data) % 3 == 0:
                return False
            parts.append(data)
            return True

        async def receive() -> None:
            while True:
                parts.append(await stream.receive())
                await asyncio.sleep(0.001)  # so that much is unread, and reading pauses

        async with FakeCluster(1) as cluster:
            cluster.add_pod("p", "node-1")
            path = cluster.write_kubeconfig(tmp_path / "kubeconfig")
            with closing(Api(load(KubeOptions(kubeconfig=str(path))))) as api:
                stream = await open_exec(api, "default", "p", "main", ("cat",), "node-1")
                stream.take = take
                receiving = asyncio.create_task(receive())
                await stream.send(sent)
                await until(lambda: sum(map(len, parts)) >= len(sent))
                receiving.cancel()
                await stream.close()
                assert not selector._in_turns

    run(main())
    assert b"".join(parts) == sent
    assert in_turns == {0, 1}
