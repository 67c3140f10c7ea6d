"""GetUrl and DnsLookup: what the other side does costs the agent little."""

import socket
import threading
from collections.abc import Iterator

import pytest

from kubectl_gadget.agent.policies import outside_requests
from kubectl_gadget.agent.policies.outside_requests import OutsideRequests
from kubectl_gadget.wire.agent_messages import GadgetStats
from tests.waiting import wait_until


@pytest.fixture(name="stuck")
def look_ups_that_never_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    asked, over = list[str](), threading.Event()

    def look_up(name: str, *_: object, **__: object) -> None:
        asked.append(name)
        over.wait(60)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(outside_requests, "MOST_SECONDS", 0.05)
    monkeypatch.setattr(outside_requests, "MOST_IN_A_SECOND", 10_000)
    yield asked
    over.set()


def counted(requests: OutsideRequests) -> tuple[int, int]:
    found = requests.add_to(GadgetStats()).requests
    assert found is not None
    return found.failed, found.left_out


def test_a_look_up_that_never_ends_is_given_up_and_so_many_are_not_repeated(stuck: list[str]) -> None:
    said: list[str] = []
    requests = OutsideRequests({}, said.append)
    for number in range(40):
        requests._queue.put(("name", f"n{number}.test"))
        wait_until(lambda expected=number + 1: sum(counted(requests)) == expected)  # type: ignore[misc]
    assert counted(requests) == (16, 24)
    assert len(stuck) == 16
    assert said[0] == "n0.test could not be looked up: no answer within 0.05 s"
    requests.finish()
