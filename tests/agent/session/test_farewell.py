"""How long the end of a session takes at most, by a clock of its own."""

from typing import Any

import pytest
import yaml

from kubectl_gadget.agent.session import session as session_module
from kubectl_gadget.agent.session.session import Session
from tests.gadget_run import PROJECT


class Bench:
    """A session that ends, with a source that `turns` describes: whether each turn ships events; then none does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, turns: int, blocked: bool = False, names: bool = True) -> None:
        self.now, self.written, self.blocked, self.closed, self.empty = 100.0, 0, blocked, False, False
        self.queued = 0
        self._turns, self._names = turns, names
        monkeypatch.setattr(session_module.time, "monotonic", lambda: self.now)
        self.session: Any = object.__new__(Session)
        for name in ("_sender", "_pipe", "_client"):
            setattr(self.session, name, self)
        self.session.__dict__ |= {"sources": [], "_context": None, "containers": None, "_ends_process": False}
        self.session.__dict__ |= {"_send": lambda message: None, "_stats": lambda: None}

    def turn(self) -> bool:
        self.written += self._names and not self.blocked
        self._turns -= 1
        return self._turns >= 0

    def wait_for_output(self, seconds: float) -> None:
        self.now += seconds

    def flush(self) -> None:
        pass

    discard = close = flush

    def end(self, reason: str) -> float:
        """Returns how long it took."""
        began = self.now
        self.session._close(reason, None)
        return self.now - began


def test_a_source_that_never_empties_does_not_delay_the_end_while_containers_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Bench(monkeypatch, turns=0).end("stop") == pytest.approx(1.0, abs=0.1)


def test_the_end_waits_for_a_source_that_still_delivers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bench(monkeypatch, turns=2000).end("stop") == pytest.approx(21.0, abs=0.2)


def test_a_client_that_reads_nothing_gets_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bench(monkeypatch, turns=0, blocked=True).end("stop") == pytest.approx(5.0, abs=0.1)


def test_after_a_signal_the_end_comes_before_the_pod_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = yaml.safe_load((PROJECT / "manifests/daemonset.yaml").read_text())["spec"]["template"]["spec"]
    assert Bench(monkeypatch, turns=1 << 20).end("signal") < pod["terminationGracePeriodSeconds"]


def test_sources_that_use_the_socket_owners_of_earlier_ones_are_detached_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def stats(self) -> None:
            log.append(f"stats of {self.name}")

        def detach(self) -> None:
            log.append(f"detach {self.name}")

        def close(self) -> None:
            pass

    log: list[str] = []
    bench = Bench(monkeypatch, turns=0)
    bench.session.sources = [Named("tcp"), Named("tls")]
    bench.end("stop")
    assert log == ["stats of tls", "detach tls", "stats of tcp", "detach tcp"]
