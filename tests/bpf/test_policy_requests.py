"""GetUrl and DnsLookup: the agent asks when a selector has matched, and neither the ring nor the deed waits for it."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.policies.policy_source import MOST_IN_A_SECOND, MOST_QUEUED, SECONDS
from kubectl_gadget.policies.model import Action, ActionKind, Policy, PolicyOptions, Selector
from tests.bpf.policy_engine import Enforcer
from tests.bpf.test_policy import argument, openat

pytestmark = pytest.mark.bpf


class Canary(http.server.ThreadingHTTPServer):
    """Remembers the paths that were asked for, and answers all with 404."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Canary)
        self.server.paths.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def bell(path: Path, *actions: tuple[ActionKind, dict[str, Any]], **options: Any) -> Policy:
    wanted = tuple(Action(kind, **parameters) for kind, parameters in actions)
    hook = openat(Selector(filters=(argument(1, "equal", str(path)),), actions=wanted))
    return Policy("bell", hooks=(hook,), options=PolicyOptions(**options))


def ring(policy: Policy, path: Path, times: int = 1) -> dict[str, int]:
    """Opens the file so often; how the requests went."""
    with Enforcer(policy) as enforcer:
        for _ in range(times):
            path.read_bytes()
        while not enforcer.ring.settle():
            pass
        begun = time.monotonic()
        enforcer.source.settle(is_blocked=False)
        assert time.monotonic() - begun < SECONDS, "the ring waited for what is outside"
        for finish in enforcer.context.callbacks.after_last:
            finish()
        requests = enforcer.source.stats().requests
        return (requests.to_json() if requests else {}) | {"events": len(enforcer.matches())}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "honey"
    path.write_text("pot")
    return path


def test_a_url_is_asked_for_when_a_selector_has_matched(canary: Canary, file: Path) -> None:
    found = ring(bell(file, ("GetUrl", {"url": f"{canary.url}/touched?what=honey"})), file)
    assert found == {"answered": 1, "failed": 0, "left_out": 0, "events": 1}
    assert canary.paths == ["/touched?what=honey"]


def test_nothing_is_asked_for_in_monitor_mode(canary: Canary, file: Path) -> None:
    assert ring(bell(file, ("GetUrl", {"url": canary.url}), mode="monitor"), file) == {"events": 1}
    assert canary.paths == []


def test_a_name_is_looked_up_and_what_has_no_address_is_reported(file: Path) -> None:
    actions = (("DnsLookup", {"domain_name": name}) for name in ("localhost", "honey.invalid"))
    found = ring(bell(file, *actions), file)
    assert found == {"answered": 1, "failed": 1, "left_out": 0, "events": 1}


def test_a_flood_of_events_sets_off_few_requests_and_loses_no_event(canary: Canary, file: Path) -> None:
    times = 4 * MOST_QUEUED
    found = ring(bell(file, ("GetUrl", {"url": canary.url})), file, times)
    assert found["events"] == times
    assert 0 < found["answered"] == len(canary.paths) <= 5 * MOST_IN_A_SECOND
    assert found["answered"] + found["left_out"] == times


def test_a_server_that_never_answers_delays_nothing(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert ring(bell(file, ("GetUrl", {"url": url})), file)["answered"] == 0
