"""An OTLP collector for tests: decodes requests with the protobuf library, and answers as told."""

import gzip
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceRequest,
    ExportProfilesServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_SIGNALS: dict[str, tuple[Any, Any, str]] = {
    "/v1/logs": (ExportLogsServiceRequest, ExportLogsServiceResponse, "rejected_log_records"),
    "/v1/metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse, "rejected_data_points"),
    "/v1development/profiles": (
        ExportProfilesServiceRequest,
        ExportProfilesServiceResponse,
        "rejected_profiles",
    ),
    "/v1/traces": (ExportTraceServiceRequest, ExportTraceServiceResponse, "rejected_spans"),
}


class Answer:
    """An answer other than 200."""

    def __init__(self, status: int, text: str = "", **headers: str) -> None:
        self.status = status
        self.text = text
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Collector(ThreadingHTTPServer):
    """Keeps what it took."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, answers: list[Answer | int]) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers = answers
        """for the first requests; a number: taken, but for so many records"""
        self.requests: list[Any] = []
        """with logs or metrics"""
        self.traces: list[Any] = []
        """requests with spans"""
        self.profiles: list[Any] = []
        """requests with profiles"""
        self.missing: set[str] = set()
        """paths that it does not have"""
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.go = threading.Event()
        """cleared: requests wait for their answer"""
        self.go.set()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that do not trust the certificate hang up."""

    def logs(self) -> list[tuple[dict[str, Any], Any, dict[str, Any]]]:
        """Return resource, record and the record's attributes of all records taken."""
        return [
            (values(group.resource.attributes), record, values(record.attributes))
            for request in self.requests
            for group in request.resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        ]

    def spans(self) -> list[tuple[dict[str, Any], Any, dict[str, Any]]]:
        """Return resource, span and the span's attributes of all spans taken."""
        return [
            (values(group.resource.attributes), span, values(span.attributes))
            for request in self.traces
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]


def points(request: Any) -> list[tuple[dict[str, Any], Any, Any, dict[str, Any]]]:
    """Return resource, metric, data point and the point's attributes of a request with metrics."""
    return [
        (values(group.resource.attributes), metric, point, values(point.attributes))
        for group in request.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]


def value(any: Any) -> Any:
    kind = any.WhichOneof("value")
    if kind == "array_value":
        return [value(each) for each in any.array_value.values]
    if kind == "kvlist_value":
        return values(any.kvlist_value.values)
    return getattr(any, kind) if kind else None


def values(attributes: Any) -> dict[str, Any]:
    found = {each.key: value(each.value) for each in attributes}
    assert len(found) == len(attributes), "an attribute is there twice"
    return found


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.go.wait(30)
        if self.path in self.server.missing:
            self._send(404, b"", {})
            return
        answer = self.server.answers.pop(0) if self.server.answers else 0
        if isinstance(answer, Answer):
            self._send(answer.status, answer.text.encode(), {"Content-Type": "text/plain"} | answer.headers)
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request, response, rejected = _SIGNALS[self.path]
        of_paths = {"/v1/traces": self.server.traces, "/v1development/profiles": self.server.profiles}
        kept = of_paths.get(self.path, self.server.requests)
        kept.append(request.FromString(body))
        said = response()
        if answer:
            setattr(said.partial_success, rejected, answer)
            said.partial_success.error_message = "no room"
        self._send(200, said.SerializeToString(), {"Content-Type": "application/x-protobuf"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def collector(*answers: Answer | int, port: int = 0, context: ssl.SSLContext | None = None) -> Iterator[Collector]:
    server = Collector(port, list(answers))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
