"""What measures the client still fits the client: its functions are called by benchmarks only, in no other test."""

import pytest

from bench import client, flows


def test_each_sink_has_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PER_BATCH", 200)
    found = client.sinks(200, rounds=1)
    formats = [f"-o {format}" for format in client.SINKS]
    assert list(found) == ["decode, name, filter, count", "--export otlp, encoding", *formats]
    assert all(rate > 0 for rates in found.values() for rate in rates)


@pytest.mark.parametrize("format", flows.FORMATS)
def test_flows_have_a_rate(format: str) -> None:
    assert flows.client(format, nodes=2, flows=5, seconds=1)["flows_per_s"] > 0
