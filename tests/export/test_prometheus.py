"""Metrics as Prometheus reads them: names, labels, units, limits, and the port."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kubectl_gadget.errors import UsageError
from kubectl_gadget.export import totals
from kubectl_gadget.export.prometheus import Prometheus
from kubectl_gadget.export.run import Export, Sent
from kubectl_gadget.export.sending import Serving
from kubectl_gadget.export.targets import ExportOptions, target
from kubectl_gadget.export.totals import Totals
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.rows.histogram import STARTS
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import Coverage, NodeCoverage
from tests.export.receivers import bound, unused_port
from tests.page.made import HOSTILE, batch, opened, recording
from tests.waiting import wait_until

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("catalogue_built")]

CLIENT = [sys.executable, "-m", "kubectl_gadget.cli.main"]
COVERED = Coverage(
    nodes=(NodeCoverage(name="node-1", attached_ns=1, lost={"ring_full": 7}), NodeCoverage(name="node-2"))
)
PLACE = {"node": "node-1", "namespace": "shop", "pod": "cart-7d4b9c6f5-x2x7k", "container": "app"}


class Covered(Serving):
    """Knows two nodes."""

    def covered(self) -> Coverage:
        return COVERED


@contextmanager
def served(*gadgets: str, place: str = "prometheus=0") -> Iterator[tuple[Export, int]]:
    made = Export(ExportOptions((target(place),)), [load_gadget(name) for name in gadgets], Covered())
    made.begin(print)
    (serving,) = made.targets
    assert isinstance(serving, Prometheus)
    try:
        yield made, serving.port
    finally:
        made.close()
        serving.stop()


def got(port: int, path: str = "/metrics", **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def answered(milliseconds: float, flags: str = "") -> dict[str, Any]:
    """A request that a server has answered after this time; with flags it belongs to a trace."""
    made = {"timestamp": 5.0, "latency": int(milliseconds * 1e6), "role": 2, "status": 200, "method": "GET"}
    return made | ({"traceparent": f"00-{TRACE}-{CALLER}-{flags}"} if flags else {})


def test_latencies_are_histograms_whose_exemplars_are_sampled_traces() -> None:
    with served("trace_http") as (export, port):
        export.write(Rows([batch("trace_http", [answered(3), answered(5, "01"), answered(90, "00")])]))
        export.write(Rows([batch("trace_http", [answered(6)])]))
        text = got(port)[1]
        _, open_metrics = got(port, Accept=OPEN_METRICS)
    found = samples(text)
    labels = {"gadget": "http", "role": "server", **PLACE}
    assert found["kubectl_gadget_latency_seconds_count"] == [(labels, 4.0)]
    assert found["kubectl_gadget_latency_seconds_sum"] == [(labels, pytest.approx(0.104))]
    (upto,) = (value for one, value in found["kubectl_gadget_latency_seconds_bucket"] if one["le"] == "0.008388608")
    assert upto == 3
    (line,) = (line for line in open_metrics.splitlines() if " # " in line)
    assert 'le="0.008388608"' in line
    assert line.endswith(f'# {{span_id="{CALLER}",trace_id="{TRACE}"}} 0.005 5.0')


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def opens(number: int, errno: int = 0, **more: Any) -> Rows:
    return Rows([batch("trace_open", [opened(10, 1 + each, "/x", errno) for each in range(number)], **more)])


def test_events_are_counted_by_container_and_severity_and_losses_by_node() -> None:
    with served("trace_open") as (made, port):
        made.write(opens(3))
        made.write(opens(2, errno=2))
        made.write(opens(1))
        status, text = got(port)
        found = samples(text)
    assert status == 200
    counts = {labels["severity"]: value for labels, value in found["kubectl_gadget_events_total"]}
    assert counts == {"info": 4, "warn": 2}
    assert found["kubectl_gadget_events_total"][0][0] == {"gadget": "open", "severity": "info", **PLACE}
    assert found["kubectl_gadget_lost_events_total"] == [({"node": "node-1", "cause": "ring_full"}, 7)]
    assert found["kubectl_gadget_node_traced"] == [({"node": "node-1"}, 1), ({"node": "node-2"}, 0)]
    assert list(made.summary()) == ["export prometheus=0: 1 scrapes"]


def test_sums_of_tables_grow_and_amounts_of_now_are_replaced() -> None:
    rows = [
        {"timestamp": 1, "cpu_time": 2_000_000_000, "memory": 1 << 20, "read_bytes": 10, "interval": 10**9},
        {"timestamp": 1, "cpu_time": 1_000_000_000, "memory": 1 << 20, "read_bytes": 5, "interval": 10**9},
    ]
    with served("top_pod") as (made, port):
        for _ in range(2):
            made.write(Rows([batch("top_pod", rows)]))
        found = samples(got(port)[1])
    assert found["kubectl_gadget_top_pod_cpu_seconds_total"] == [(PLACE, 6)]
    assert found["kubectl_gadget_top_pod_read_bytes_total"] == [(PLACE, 30)]
    assert found["kubectl_gadget_top_pod_memory_bytes"] == [(PLACE, 2 << 20)]


def test_what_is_unknown_is_not_added() -> None:
    with served("top_pod") as (made, port):
        made.write(Rows([batch("top_pod", [{"timestamp": 1, "cpu_time": (1 << 64) - 1, "memory": 1}])]))
        found = samples(got(port)[1])
    assert "kubectl_gadget_top_pod_cpu_seconds_total" not in found


def test_histograms_have_buckets_in_seconds() -> None:
    rows = batch("profile_blockio", [{"timestamp": 1, "operation": b"read", "total": 3_001_000_000}])
    counts = np.zeros((1, len(STARTS)), np.uint64)
    counts[0, STARTS.index(1 << 9)] = 1
    counts[0, STARTS.index(1 << 20)] = 2
    counts[0, STARTS.index(1 << 31)] = 1
    rows.give("buckets", counts)
    with served("profile_blockio") as (made, port):
        made.write(Rows([rows]))
        made.write(Rows([rows]))
        found = samples(got(port)[1])
    name = "kubectl_gadget_profile_blockio_duration_seconds"
    by_bound = {float(labels["le"]): value for labels, value in found[f"{name}_bucket"]}
    assert (by_bound[1.024e-06], by_bound[1.048576e-3], by_bound[2.097152e-3]) == (2, 2, 6)
    assert by_bound[float("inf")] == 8
    assert found[f"{name}_sum"][0][1] == pytest.approx(6.002)
    assert found[f"{name}_count"][0][0]["operation"] == "read"


def test_hostile_names_are_escaped_and_cut() -> None:
    name = HOSTILE + '"\\\n} 1\nevil_total 1 ' + "x" * 500
    with served("trace_open") as (made, port):
        made.write(opens(1, pods=(name,)))
        text = got(port)[1]
    found = samples(text)
    assert "evil_total" not in found
    ((labels, value),) = found["kubectl_gadget_events_total"]
    assert (labels["pod"], value) == (name[:128], 1)


def test_series_are_bounded_and_the_rest_is_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.export.prometheus.MOST_SERIES", 5)
    said: list[str] = []
    with served("trace_open") as (made, port):
        (serving,) = made.targets
        assert not isinstance(serving, Sent)
        serving._totals.most = 5
        serving.begin = lambda warn: None
        serving._warn = said.append
        for number in range(20):
            made.write(opens(2, pods=(f"pod-{number}",)))
        found = samples(got(port)[1])
    events = {labels["pod"]: value for labels, value in found["kubectl_gadget_events_total"]}
    assert len(events) == 6
    assert events["other"] == 30
    assert found["kubectl_gadget_series_overflow_total"] == [({}, 15)]
    assert said == ["export prometheus=0: more than 5 series; further ones are added to 'other'"]


def test_series_of_a_pod_go_when_it_is_not_seen_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("kubectl_gadget.export.totals.time.monotonic", lambda: now)
    made = Totals(most=2)
    made.add(opens(1, pods=("dead",)))
    made.add(opens(1, pods=("alive",)))
    now += totals.POD_SECONDS / 2
    made.add(opens(1, pods=("alive",)))
    now += totals.POD_SECONDS / 2 + 1
    ((_, series),) = made.read()
    assert [labels[4] for labels, _ in series] == ["alive"]
    made.add(opens(1, pods=("new",)))
    assert made.beyond == 0, "there is room again"


def test_the_port_serves_health_and_nothing_else() -> None:
    with served("trace_open") as (_, port):
        assert got(port, "/healthz") == (200, "ok\n")
        assert got(port, "/")[0] == 404
        assert got(port, "/metrics", Host="evil.example")[0] == 403
        assert got(port, "/metrics", Host="localhost:1")[0] == 200
        status, text = got(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert (status, text.endswith("# EOF\n")) == (200, True)


def test_a_port_that_is_taken_or_no_address_is_an_error() -> None:
    with bound() as taken, pytest.raises(UsageError, match="Address already in use"):
        Export(ExportOptions((target(f"prometheus={taken.getsockname()[1]}"),)), [])
    for text, words in (("9x", r"prometheus=\[ADDRESS:\]PORT"), ("example.com:90", "is not an"), ("70000", "PORT")):
        with pytest.raises(ValueError, match=words):
            target(f"prometheus={text}")
    assert target("prometheus=[::1]:9090").host == "::1"


def test_a_replay_is_served_until_ctrl_c_and_its_flows_add_up(tmp_path: Path) -> None:
    path, port = recording(tmp_path / "shop.kgr"), unused_port()
    words = ["replay", str(path), "flows", "--export", f"prometheus={port}"]
    with subprocess.Popen([*CLIENT, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        wait_until(lambda: "replay finished" in process.stderr.readline(), over=lambda: process.poll() is not None)
        found = samples(got(port)[1])
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    sent = [(labels["protocol"], value) for labels, value in found["kubectl_gadget_flow_sent_bytes_total"]]
    assert sent == [("TCP", 1000)]
    assert {labels["verdict"] for labels, _ in found["kubectl_gadget_flow_events_total"]} == {"FORWARDED", "ERROR"}
    assert f"export prometheus={port}: 1 scrapes" in said


def test_what_other_targets_got_lost_and_wait_for_is_served(tmp_path: Path) -> None:
    file, nobody = tmp_path / "rows", f"jsonl=tcp://127.0.0.1:{unused_port()}"
    targets = tuple(map(target, ("prometheus=0", f"jsonl={file}", nobody)))
    made = Export(ExportOptions(targets), [load_gadget("trace_open")], Covered())
    made.begin(print)
    serving, to_file, _ = made.targets
    assert isinstance(serving, Prometheus)
    assert isinstance(to_file, Sent)
    try:
        made.write(opens(5))
        wait_until(lambda: to_file.delivery.counts().delivered == 5)
        found = samples(got(serving.port)[1])

        def of(name: str) -> dict[str, float]:
            return {labels["target"]: value for labels, value in found[f"kubectl_gadget_export_{name}"]}

        assert of("delivered_total") == {f"jsonl={file}": 5, nobody: 0}
        assert of("waiting") == {f"jsonl={file}": 0, nobody: 5}
        assert of("waiting_bytes")[nobody] > 100
        assert of("lag_seconds")[f"jsonl={file}"] == 0 < of("lag_seconds")[nobody]
        made.targets[2].delivery.drop(3, "no room")  # type: ignore[attr-defined]
        found = samples(got(serving.port)[1])
        (labels, value), *rest = found["kubectl_gadget_export_lost_total"]
        assert (labels["target"], labels["cause"], value, rest) == (nobody, "no room", 3, [])
    finally:
        made.close()
        serving.stop()
