"""Totals as metrics for Prometheus, by its client library, at /metrics; and /healthz.

The server listens on loopback unless an address is given. It answers a few requests at a time, so that a port that
others can reach does not fill memory.
"""

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar

from kubectl_gadget import __version__
from kubectl_gadget.errors import UsageError
from kubectl_gadget.export.delivery import Counts
from kubectl_gadget.export.sending import Serving, Untimed
from kubectl_gadget.export.targets import Target
from kubectl_gadget.export.totals import MOST_SERIES, OTHER, Series, Totals, octave_buckets
from kubectl_gadget.export.totals import Metric as Total
from kubectl_gadget.rows.rows import Rows

if TYPE_CHECKING:
    from kubectl_gadget.run.coverage import Coverage, NodeCoverage

_MOST_AT_ONCE = 8
_REQUEST_SECONDS = 10.0


class Prometheus(Untimed):
    """Serves the totals of rows."""

    def __init__(self, target: Target, serving: Serving) -> None:
        """Listen, until `serving` ends. Raises UsageError."""
        self._name = target.name
        self._covered, self._delivered = serving.covered, serving.delivered
        self._totals = Totals()
        self._has_warned = False
        self._warn: Callable[[str], object] = lambda text: None
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server = _Server(target, registry, self._is_ready)
        except OSError as error:
            raise UsageError(f"--export {target.name}: {error.strerror or error}") from None
        serve = self._server.serve_forever
        serving.stops.append(self.stop)
        self._thread = threading.Thread(target=serve, args=(0.2,), name=f"export {target.name}", daemon=True)

    @property
    def port(self) -> int:
        """The port, which was 0 for any."""
        return self._server.server_address[1]

    # See run.Sending.

    lost = 0

    def begin(self, warn: Callable[[str], object]) -> None:
        """Answer requests."""
        self._warn = warn
        self._thread.start()

    def write(self, shown: Rows, everything: Rows) -> None:
        """Add rows up; of tables also those that --max-rows leaves out."""
        self._totals.add(everything)
        if self._totals.beyond and not self._has_warned:
            self._has_warned = True
            self._warn(f"export {self._name}: more than {MOST_SERIES:,} series; further ones are added to {OTHER!r}")

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """Do nothing: `covered` has gaps."""

    def finish(self) -> None:
        """Do nothing: the run's end is not the end of what is served."""

    def close(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Close the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def counts(self) -> Iterator[tuple[str, Counts]]:
        """Yield nothing: it is asked."""
        yield from ()

    def summary(self) -> Iterator[str]:
        """Yield how often it was asked."""
        yield f"export {self._name}: {self._server.scrapes:,} scrapes"

    def losses(self) -> Iterator[str]:
        """Yield nothing: what does not fit into series is in `other`."""
        yield from ()

    def _is_ready(self) -> bool:
        covered = self._covered()
        return covered is not None and any(map(_is_traced, covered.nodes))

    # The library's Collector.

    def describe(self) -> list[Family]:
        """Return nothing, so that the library does not ask for metrics when it registers this."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield all metrics."""
        for metric, series in self._totals.read():
            yield _family(metric, series)
        build = GaugeMetricFamily("kubectl_gadget_build_info", "The version.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build
        beyond = CounterMetricFamily(
            "kubectl_gadget_series_overflow", f"Additions to the series {OTHER}, for which there was no room."
        )
        beyond.add_metric((), self._totals.beyond)
        yield beyond
        if (covered := self._covered()) is not None:
            yield from _coverage(covered)
        yield from _deliveries(self._delivered())


def _family(metric: Total, series: list[tuple[tuple[str, ...], Series]]) -> Family:
    name = f"{metric.name}_{metric.unit}" if metric.unit else metric.name
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for labels, one in series:
            histogram.add_metric(labels, list(_buckets(one)), one.value)
        return histogram
    family = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
    made = family(name, metric.help, labels=metric.labels)
    for labels, one in series:
        made.add_metric(labels, one.value)
    return made


def _buckets(series: Series) -> "Iterator[tuple[str, float] | tuple[str, float, Exemplar]]":
    """Yield bound and count of each bucket; the one of the exemplar also has it."""
    found, low = series.exemplar, 0.0
    for bound, count in octave_buckets(series):
        if found is not None and low <= found.seconds < bound:
            labels = {"trace_id": found.trace, "span_id": found.span}
            yield _bound(bound), count, Exemplar(labels, found.seconds, found.time)
        else:
            yield _bound(bound), count
        low = bound


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else f"{seconds:.9g}"


def _coverage(covered: "Coverage") -> Iterator[Family]:
    lost = CounterMetricFamily("kubectl_gadget_lost_events", "Lost events by cause.", labels=("node", "cause"))
    missing = CounterMetricFamily("kubectl_gadget_missing_seconds", "Time without rows.", labels=("node",))
    traced = GaugeMetricFamily("kubectl_gadget_node_traced", "1 if the node is traced, else 0.", labels=("node",))
    for node in covered.nodes:
        traced.add_metric((node.name,), int(_is_traced(node)))
        if node.attached_ns:
            missing.add_metric((node.name,), node.gap_seconds)
            for cause, number in node.lost.items():
                lost.add_metric((node.name, cause), number)
    yield from (lost, missing, traced)


def _is_traced(node: "NodeCoverage") -> bool:
    return bool(node.attached_ns) and not node.until_ns and not node.cause


def _deliveries(found: Iterable[tuple[str, str, Counts]]) -> Iterator[Family]:
    labels = ("target", "what")
    delivered = CounterMetricFamily("kubectl_gadget_export_delivered", "What other targets got.", labels=labels)
    lost = CounterMetricFamily("kubectl_gadget_export_lost", "What they did not get.", labels=(*labels, "cause"))
    waiting = GaugeMetricFamily("kubectl_gadget_export_waiting", "What waits for them.", labels=labels)
    size = GaugeMetricFamily("kubectl_gadget_export_waiting_bytes", "The size of what waits.", labels=labels)
    lag = GaugeMetricFamily("kubectl_gadget_export_lag_seconds", "How long the first has waited.", labels=labels)
    for target, what, counts in found:
        place = target, what
        delivered.add_metric(place, counts.delivered)
        waiting.add_metric(place, counts.waiting)
        size.add_metric(place, counts.waiting_bytes)
        lag.add_metric(place, counts.lag)
        for cause, number in counts.lost.items():
            lost.add_metric((*place, cause), number)
    yield from (delivered, lost, waiting, size, lag)


# The server.


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, target: Target, registry: CollectorRegistry, is_ready: Callable[[], bool]) -> None:
        if ":" in target.host:
            self.address_family = socket.AF_INET6
        super().__init__((target.host, target.port), _Handler)
        self.registry = registry
        self.is_ready = is_ready
        self.scrapes = 0
        self.is_local = ipaddress.ip_address(target.host).is_loopback
        self._room = threading.BoundedSemaphore(_MOST_AT_ONCE)

    def process_request_thread(self, request: Any, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def verify_request(self, request: Any, client_address: object) -> bool:
        return self._room.acquire(blocking=False)

    def handle_error(self, request: Any, client_address: object) -> None:
        """Say nothing: clients hang up."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_SECONDS
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.server.is_local and not _is_local(self.headers.get("Host", "")):
            self._send(403, b"this host is not served here\n", "text/plain")  # a page whose name points to loopback
        elif path == "/healthz":
            self._send(200, b"ok\n", "text/plain")
        elif path == "/readyz":
            self._send(*((200, b"ok\n") if self.server.is_ready() else (503, b"no node is traced\n")), "text/plain")
        elif path == "/metrics":
            encode, type = choose_encoder(self.headers.get("Accept", ""))
            self.server.scrapes += 1
            self._send(200, encode(self.server.registry), type)
        else:
            self._send(404, b"try: /metrics, /healthz, /readyz\n", "text/plain")

    def _send(self, status: int, body: bytes, type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        """Write nothing: standard error is the run's."""


def _is_local(host: str) -> bool:
    """Return True if a Host header is empty, names loopback, or is an address."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name.lower() in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
