"""What measures exports still fits them: its functions are called by benchmarks only, in no other test."""

import urllib.request

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from bench import export
from tests.waiting import wait_until


def test_each_encoder_has_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_PER_BATCH", 200)
    found = export.encoders(400, rounds=1)
    assert list(found) == ["log records of opens", "spans of HTTP requests"]
    assert all(rate > 0 for rates in found.values() for rate in rates)


def test_the_collector_counts_records() -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(event_name="a")
    request.resource_logs[0].scope_logs.add().log_records.add(event_name="b")
    with export.collector() as (port, count):
        url = f"http://127.0.0.1:{port}/v1/logs"
        with urllib.request.urlopen(urllib.request.Request(url, request.SerializeToString())) as answer:
            assert answer.status == 200
        wait_until(lambda: count.value == 2)
