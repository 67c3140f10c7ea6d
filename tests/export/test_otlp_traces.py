"""OTLP spans of rows with a duration, as a collector decodes them."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from kubectl_gadget.export import delivery, otlp_traces
from kubectl_gadget.export.http import HttpTransport
from kubectl_gadget.export.run import Export
from kubectl_gadget.export.targets import ExportOptions, target
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.rows.rows import Rows
from tests.export.collector import Answer, Collector, collector
from tests.page.made import HOSTILE, batch, opened, process
from tests.waiting import wait_until

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("catalogue_built")]

SECOND = 10**9
CLIENT, SERVER, INTERNAL = Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL
ERROR, UNSET = Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
_CLIENT, _SERVER = 1, 2


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(HttpTransport, "linger", 0.0)


@pytest.fixture
def server() -> Iterator[Collector]:
    with collector() as made:
        yield made


def begun(server: Collector, *gadgets: str) -> Export:
    options = ExportOptions((target(f"otlp=http://127.0.0.1:{server.port}"),))
    made = Export(options, [load_gadget(name) for name in gadgets or ("trace_http", "trace_open")])
    made.begin(print)
    return made


def spans_waiting(export: Export) -> int:
    """Return how many spans wait, for their other end or to be sent."""
    return dict(export.targets[0].counts())["span"].waiting


def request(role: int, second: float, milliseconds: int, port: int = 40000, **more: Any) -> dict[str, Any]:
    """A row of trace http at one end of a request from 10.1.0.2:PORT to 10.1.0.3:80."""
    ends = [("10.1.0.2", port), ("10.1.0.3", 80)]
    (local, local_port), (remote, remote_port) = ends if role == _CLIENT else ends[::-1]
    return {
        "timestamp": second,
        "latency": milliseconds * 10**6,
        "role": role,
        "status": 200,
        "protocol": "HTTP/1.1",
        "method": "GET",
        "target": "/cart?id=1",
        "host": "cart",
        "local": socket.inet_aton(local),
        "local_port": local_port,
        "remote": socket.inet_aton(remote),
        "remote_port": remote_port,
        "grpc_status": (1 << 64) - 1,
    } | more


def http(*rows: dict[str, Any]) -> Rows:
    return Rows([batch("trace_http", rows, ("cart-0",))])


def test_both_ends_of_a_request_are_one_trace(server: Collector) -> None:
    export = begun(server)
    export.write(http(request(_SERVER, 2.001, 8), request(_SERVER, 2.002, 8, port=40001)))
    export.write(http(request(_CLIENT, 2.003, 12), request(_CLIENT, 2.004, 12, port=40001)))
    export.close()
    spans = [span for _, span, _ in server.spans()]
    clients, servers = ([span for span in spans if span.kind == kind] for kind in (CLIENT, SERVER))
    assert len(clients) == len(servers) == 2
    assert {span.parent_span_id for span in servers} == {span.span_id for span in clients}
    parents = {span.span_id: span for span in clients}
    assert all(parents[span.parent_span_id].trace_id == span.trace_id for span in servers)
    assert len({span.trace_id for span in spans}) == 2
    assert not any(span.parent_span_id for span in clients)
    assert {len(span.trace_id) for span in spans} == {16}
    assert {len(span.span_id) for span in spans} == {8}


def test_a_span_has_the_time_the_name_and_the_attributes_of_its_row(server: Collector) -> None:
    export = begun(server)
    export.write(http(request(_CLIENT, 2, 500, pid=10, status=404)))
    export.close()
    ((resource, span, attributes),) = server.spans()
    assert (resource["k8s.pod.name"], resource["service.name"]) == ("cart-0", "app")
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (3 * SECOND // 2, 2 * SECOND)
    assert (span.name, span.kind, span.status.code) == ("GET", CLIENT, ERROR)
    wanted = {
        "http.request.method": "GET",
        "http.response.status_code": 404,
        "url.path": "/cart",
        "url.query": "id=1",
        "server.address": "cart",
        "network.protocol.version": "1.1",
        "process.pid": 10,
    }
    assert wanted.items() <= attributes.items()
    assert "gadget.latency" not in attributes
    assert export.lost == 0
    assert not server.requests


def test_the_trace_that_a_request_names_goes_on(server: Collector) -> None:
    header = f"00-{TRACE}-{PARENT}-01"
    export = begun(server)
    export.write(http(request(_SERVER, 2.001, 8, traceparent=header)))
    export.write(http(request(_CLIENT, 2.003, 12, traceparent=header)))
    export.write(http(request(_SERVER, 9, 8, traceparent=header)))
    export.close()
    spans = [span for _, span, _ in server.spans()]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    (client,) = (span for span in spans if span.kind == CLIENT)
    assert [span.parent_span_id.hex() for span in spans] == [PARENT, client.span_id.hex(), PARENT]
    assert {span.flags for span in spans} == {0x301}


@pytest.mark.parametrize("header", ["", HOSTILE, f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-x", "00-é"])
def test_a_header_that_is_no_trace_context_has_no_effect(server: Collector, header: str) -> None:
    export = begun(server)
    export.write(http(request(_CLIENT, 2, 1, traceparent=header)))
    export.close()
    ((_, span, attributes),) = server.spans()
    assert span.trace_id.hex() != TRACE
    assert not span.parent_span_id
    assert not {name for name in attributes if "traceparent" in name}


def test_a_server_whose_client_is_not_traced_waits_two_seconds(server: Collector) -> None:
    export = begun(server)
    export.tick(10 * SECOND)
    export.write(http(request(_SERVER, 2, 8)))
    export.tick(12 * SECOND - 1)
    export.write(Rows([batch("trace_open", [opened(10, 3, "/data/0")])]))
    wait_until(lambda: spans_waiting(export) == 1)
    export.tick(12 * SECOND)
    wait_until(lambda: spans_waiting(export) == 0)
    export.close()
    ((_, span, _),) = server.spans()
    assert not span.parent_span_id
    assert len(server.logs()) == 1, "the row without a duration"


def test_equal_requests_of_a_connection_each_have_their_own_client(server: Collector) -> None:
    export = begun(server)
    for number in range(20):
        export.tick(10 * SECOND + number)
        export.write(http(request(_SERVER, 2 + number / 100, 8)))
    export.write(http(*(request(_CLIENT, 2.001 + number / 100, 10) for number in range(20))))
    export.close()
    spans = [span for _, span, _ in server.spans()]
    begins = {span.span_id: span.start_time_unix_nano for span in spans if span.kind == CLIENT}
    servers = [span for span in spans if span.kind == SERVER]
    assert len({span.parent_span_id for span in servers}) == 20
    assert all(0 <= span.start_time_unix_nano - begins[span.parent_span_id] < SECOND // 100 for span in servers)


def test_only_so_many_spans_wait(server: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_traces, "_MOST_PAIRS", 10)
    export = begun(server)
    export.write(http(*(request(_SERVER, 2, 8, port=40000 + number) for number in range(50))))
    wait_until(lambda: spans_waiting(export) == 10)
    export.close()
    assert len(server.spans()) == 50
    assert export.lost == 0


@pytest.mark.parametrize(
    ("role", "status", "grpc", "code"),
    [
        (_SERVER, 404, None, UNSET),
        (_SERVER, 500, None, ERROR),
        (_CLIENT, 0, None, ERROR),
        (_SERVER, 200, 5, UNSET),
        (_SERVER, 200, 13, ERROR),
        (_CLIENT, 200, 5, ERROR),
        (_CLIENT, 200, 0, UNSET),
    ],
)
def test_what_a_client_did_wrong_is_no_error_of_the_server(
    server: Collector, role: int, status: int, grpc: int | None, code: int
) -> None:
    more: dict[str, Any] = {} if grpc is None else {"grpc_status": grpc, "protocol": "gRPC", "target": "/shop.Cart/Add"}
    export = begun(server)
    export.write(http(request(role, 2, 1, status=status, **more)))
    export.close()
    ((_, span, _),) = server.spans()
    assert (span.status.code, span.name) == (code, "GET" if grpc is None else "shop.Cart/Add")


def test_processes_names_and_connections_are_spans(server: Collector) -> None:
    export = begun(server, "trace_process", "trace_dns", "trace_tcp", "trace_exit", "trace_fsslower", "trace_tls")
    ends = {"local": socket.inet_aton("10.1.0.2"), "local_port": 40000, "remote": socket.inet_aton("10.1.0.3")}
    ended = process("exit", 11, 1, 5, comm=b"sh", code=1) | {"started": 2 * SECOND}
    rows = {
        "trace_process": [process("exec", 11, 1, 2, "/bin/sh"), ended],
        "trace_dns": [{"timestamp": 3, "latency": SECOND, "role": _CLIENT, "type": 1, "name": "cart", "rcode": 3}],
        "trace_tcp": [{"timestamp": 4, "operation": 3, "duration": SECOND, "initiator": 1, **ends}],
        "trace_exit": [{"timestamp": 4, "comm": b"sh", "run_time": SECOND}],
        "trace_fsslower": [{"timestamp": 4, "operation": b"write", "duration": SECOND, "path": "/data/0"}],
        "trace_tls": [{"timestamp": 4, "duration": SECOND, "role": _SERVER, "result": 1, "name": "cart"}],
    }
    for name, records in rows.items():
        export.write(Rows([batch(name, records)]))
    export.close()
    found = {
        (span.name, span.kind, (span.end_time_unix_nano - span.start_time_unix_nano) // SECOND, span.status.code)
        for _, span, _ in server.spans()
    }
    assert found == {
        ("sh", INTERNAL, 3, ERROR),
        ("DNS A", CLIENT, 1, ERROR),
        ("TCP connection", CLIENT, 1, UNSET),
        ("sh", INTERNAL, 1, UNSET),
        ("write", INTERNAL, 1, UNSET),
        ("TLS handshake", SERVER, 1, UNSET),
    }
    assert [record.event_name for _, record, _ in server.logs()] == ["gadget.process"]


def test_spans_can_be_switched_off(server: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    export = begun(server)
    export.write(http(request(_SERVER, 2, 8, traceparent=f"00-{TRACE}-{PARENT}-01")))
    export.close()
    ((_, record, attributes),) = server.logs()
    assert (record.trace_id.hex(), record.span_id.hex(), record.flags) == (TRACE, PARENT, 1)
    assert attributes["gadget.latency"] == 8 * 10**6


def test_what_a_store_of_logs_alone_refuses_is_counted() -> None:
    with collector(Answer(404)) as server:
        export = begun(server)
        export.write(http(request(_CLIENT, 2, 8)))
        export.close()
        assert list(export.losses()) == [
            f"export otlp=http://127.0.0.1:{server.port}: 1 span not delivered (1: HTTP 404 Not Found; "
            "OTEL_TRACES_EXPORTER=none in the environment sends log records instead)"
        ]
