"""The export of one run: gives each row that is shown to all targets, and says what they did not get.

Rows are encoded in the pipeline's thread, from the columns that the output has read already, and sent in a thread of
each target. So the targets get the rows that are shown, in their order; of several targets none waits for another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kubectl_gadget.errors import require
from kubectl_gadget.export import lines
from kubectl_gadget.export.delivery import Transport
from kubectl_gadget.export.sending import Encoder, Sending, Sent, Serving
from kubectl_gadget.export.targets import ExportOptions, Target
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.rows import Rows

if TYPE_CHECKING:
    from kubectl_gadget.export.http import Endpoint


class Export:
    """All targets of one run."""

    def __init__(
        self,
        options: ExportOptions,
        gadgets: Sequence[Gadget],
        serving: Serving | None = None,
    ) -> None:
        """`gadgets`: those whose rows are shown. Raises UsageError."""
        self.takes_output = options.takes_output
        serving = serving or Serving()
        self.targets = [_sending(target, options, gadgets, serving) for target in options.targets]
        serving.sendings += zip((target.name for target in options.targets), self.targets, strict=True)

    def begin(self, warn: Callable[[str], object]) -> None:
        """Start to send. `warn` is called from any thread."""
        for target in self.targets:
            target.begin(warn)

    def write(self, shown: Rows, everything: Rows | None = None) -> None:
        """Take rows that are shown; `everything`: also the rows of a table that --max-rows leaves out."""
        if len(shown):
            for target in self.targets:
                target.write(shown, shown if everything is None else everything)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """Take the record of a time for which a node's rows are missing."""
        for target in self.targets:
            target.gap(node, seconds, until_ns)

    def tick(self, now_ns: int) -> None:
        """Take the time. Called often."""
        for target in self.targets:
            target.tick(now_ns)

    def close(self) -> None:
        """Send what waits, for a few seconds."""
        for target in self.targets:
            target.finish()
        for target in self.targets:
            target.close()

    @property
    def lost(self) -> int:
        """The number of rows that some target did not get. Known after `close`."""
        return sum(target.lost for target in self.targets)

    def summary(self) -> Iterator[str]:
        """Yield a line for each target."""
        for target in self.targets:
            yield from target.summary()

    def losses(self) -> Iterator[str]:
        """Yield a line for each target that did not get all rows."""
        for target in self.targets:
            yield from target.losses()


def _sending(target: Target, options: ExportOptions, gadgets: Sequence[Gadget], serving: Serving) -> Sending:
    if target.kind == "prometheus":
        require("prometheus_client", "--export prometheus", "export")
        from kubectl_gadget.export.prometheus import Prometheus  # not everybody has what it needs

        return Prometheus(target, serving)
    if target.kind == "otlp":
        return _otlp(target, options, gadgets)
    return Sent(target, *_parts(target, options, gadgets))


def _parts(target: Target, options: ExportOptions, gadgets: Sequence[Gadget]) -> tuple[Encoder, Transport]:
    encoder: Encoder
    if target.kind == "syslog":
        encoder = lines.SyslogMessages(gadgets, is_counted=target.scheme != "udp")
    else:
        encoder = lines.JsonLines(gadgets)
    if not target.scheme:
        return encoder, lines.FileTransport(target.where)
    transport = lines.DatagramTransport if target.scheme == "udp" else lines.SocketTransport
    return encoder, transport(target, options.tls)


def _otlp(target: Target, options: ExportOptions, gadgets: Sequence[Gadget]) -> Sending:
    require("opentelemetry.proto.logs.v1.logs_pb2", "--export otlp", "export")
    from kubectl_gadget.export import http, otlp, otlp_metrics, otlp_traces  # not everybody has what they need

    to = http.endpoint(target.where, dict(options.headers), options.tls)
    resource = http.given_resource()
    if otlp_metrics.are_totals(gadgets):
        transport = http.HttpTransport(to, otlp_metrics.METRICS, otlp_metrics.rejected_points)
        return _with_profiles(target, gadgets, otlp_metrics.MetricsSent(target, resource, transport), to, resource)
    logs = Sent(target, otlp.LogRecords(gadgets, resource), http.HttpTransport(to, otlp.LOGS, otlp.rejected_logs))
    if http.wants_no_spans() or not otlp_traces.SHAPES.keys() & {gadget.name for gadget in gadgets}:
        return logs
    transport = http.HttpTransport(to, otlp_traces.TRACES, otlp_traces.rejected_spans, otlp_traces.IF_MISSING)
    return otlp_traces.SpansSent(target, logs, resource, transport)


def _with_profiles(
    target: Target, gadgets: Sequence[Gadget], metrics: Sending, to: "Endpoint", resource: Mapping[str, str]
) -> Sending:
    """Return what also sends call stacks, if the installed OpenTelemetry has messages for them."""
    try:
        from kubectl_gadget.export import http, otlp_profiles
    except ImportError:  # the signal is in development, and these messages change
        return metrics
    if not otlp_profiles.are_profiles(gadgets):
        return metrics
    path, missing = otlp_profiles.PROFILES, otlp_profiles.IF_MISSING
    transport = http.HttpTransport(to, path, otlp_profiles.rejected_profiles, missing)
    return otlp_profiles.ProfilesSent(target, metrics, resource, transport)
