"""OTLP metrics of tables, as a collector decodes them."""

from typing import Any

import numpy as np
import pytest

from kubectl_gadget.export import delivery
from kubectl_gadget.export.http import HttpTransport
from kubectl_gadget.export.run import Export
from kubectl_gadget.export.targets import ExportOptions, target
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.rows.histogram import STARTS
from kubectl_gadget.rows.rows import Rows
from tests.export.collector import Answer, collector, points
from tests.page.made import batch
from tests.waiting import wait_until

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("catalogue_built")]

SECOND = 10**9


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(HttpTransport, "linger", 0.0)


def begun(port: int, gadget: str) -> Export:
    made = Export(ExportOptions((target(f"otlp=http://127.0.0.1:{port}"),)), [load_gadget(gadget)])
    made.begin(print)
    return made


def pods(second: float, cpu: int, memory: int, name: str = "cart-0") -> Rows:
    row = {"timestamp": second, "interval": SECOND, "cpu_time": cpu, "memory": memory, "opens": 3}
    return Rows([batch("top_pod", [row], (name,))])


def test_sums_grow_from_the_begin_and_amounts_of_now_are_gauges() -> None:
    with collector() as server:
        made = begun(server.port, "top_pod")
        for second in range(2, 14):
            made.write(pods(second, SECOND // 2, second << 20))
        wait_until(lambda: server.asked, "the first request, which else may be joined with the last")
        made.close()
    assert [path for path, _ in server.asked] == ["/v1/metrics"] * 2, "one after 10 s of rows, and one at the end"
    first, last = (
        {metric.name: (resource, metric, point) for resource, metric, point, _ in points(request)}
        for request in server.requests
    )
    resource, metric, point = last["gadget.top_pod_cpu"]
    assert (resource["k8s.pod.name"], resource["service.name"]) == ("cart-0", "app")
    assert (metric.unit, metric.sum.is_monotonic, metric.sum.aggregation_temporality) == ("s", True, 2)
    assert (point.as_int, first["gadget.top_pod_cpu"][2].as_int) == (6, 5)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (SECOND, 13 * SECOND)
    _, metric, point = last["gadget.top_pod_memory"]
    assert (metric.WhichOneof("data"), metric.unit, point.as_int) == ("gauge", "By", 13 << 20)
    assert last["gadget.top_pod_opens"][2].as_int == 36
    assert made.lost == 0
    assert next(made.summary()).endswith("data points delivered")


def test_histograms_are_exponential_and_exact() -> None:
    rows = batch("profile_blockio", [{"timestamp": 5, "interval": SECOND, "operation": b"read", "total": 1234}])
    counts = np.zeros((1, len(STARTS)), np.uint64)
    for start, number in ((0, 1), (64, 2), (1 << 20, 4), ((1 << 20) + (1 << 17), 8), (1 << 22, 16)):
        counts[0, STARTS.index(start)] = number
    rows.give("buckets", counts)
    with collector() as server:
        made = begun(server.port, "profile_blockio")
        made.write(Rows([rows]))
        made.close()
    ((_, metric, point, attributes),) = [one for one in points(server.requests[0]) if one[1].unit == "ns"]
    assert metric.name == "gadget.profile_blockio_duration"
    assert (point.count, point.sum, point.scale) == (31, 1234, 0)
    assert (point.zero_count, point.zero_threshold) == (1, 64)
    buckets = {point.positive.offset + place: n for place, n in enumerate(point.positive.bucket_counts) if n}
    assert buckets == {6: 2, 20: 12, 22: 16}
    assert attributes == {"gadget.operation": "read"}


def test_points_that_are_not_taken_are_counted() -> None:
    with collector(Answer(400, "no"), 1) as server:
        made = begun(server.port, "top_pod")
        made.write(pods(2, 1, 1))
        made.write(pods(13, 1, 1))
        wait_until(lambda: made.lost)
        made.write(pods(14, 1, 1))
        made.close()
    (line,) = made.losses()
    assert "HTTP 400 Bad Request: no" in line
    assert "1: no room" in line
    assert line.startswith(f"export otlp=http://127.0.0.1:{server.port}: ")
    assert "data points not delivered" in line


def test_series_beyond_the_limit_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.export.totals.MOST_SERIES", 1)
    said: list[str] = []
    with collector() as server:
        made = begun(server.port, "top_pod")
        (sending,) = made.targets
        sending_any: Any = sending
        sending_any._warn, sending_any._totals.most = said.append, 1
        for number in range(5):
            made.write(pods(1, SECOND, 1, f"cart-{number}"))
        made.close()
    found = [(resource["k8s.pod.name"], point) for resource, metric, point, _ in points(server.requests[0])]
    assert {name for name, _ in found} == {"cart-0", "other"}
    assert len(said) == 1
