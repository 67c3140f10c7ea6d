"""The export of one run: gives each row that is shown to all targets, and says what they did not get.

Rows are encoded in the pipeline's thread, from the columns that the output has read already, and sent in a thread of
each target. So the targets get the rows that are shown, in their order; of several targets none waits for another.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kubectl_gadget.errors import require
from kubectl_gadget.export import lines
from kubectl_gadget.export.delivery import Delivery, Transport, lost_line
from kubectl_gadget.export.serving import Serving
from kubectl_gadget.export.targets import ExportOptions, Target
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wording import count

ROWS_AT_ONCE = 2048
"""in an item, which is sent or refused as a whole"""


class Encoder(Protocol):
    """Makes what one target gets of rows."""

    def encode(self, rows: Rows) -> Sequence[bytes]:
        """Return the rows; there is at least one."""

    def gap(self, node: str, seconds: float, until_ns: int) -> Sequence[bytes]:
        """Return the record of a time for which a node's rows are missing."""


class Sending(Protocol):
    """One target. All calls come from the pipeline's thread."""

    def begin(self, warn: Callable[[str], object]) -> None:
        """Start. `warn` is called from any thread."""

    def write(self, shown: Rows, everything: Rows) -> None:
        """Take rows that are shown, and with them those of a table that --max-rows leaves out."""

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """Take the record of a time for which a node's rows are missing."""

    def finish(self) -> None:
        """Send what waits, for a few seconds. Returns at once."""

    def close(self) -> None:
        """Wait for the end of `finish`."""

    @property
    def lost(self) -> int:
        """The number of rows that it did not get. Known after `close`."""

    def summary(self) -> Iterator[str]:
        """Yield a line."""

    def losses(self) -> Iterator[str]:
        """Yield a line if it did not get all rows."""


class Sent:
    """A target that gets rows as they come."""

    def __init__(self, target: Target, encoder: Encoder, transport: Transport) -> None:
        self._encoder = encoder
        self.delivery = Delivery(target.name, transport)
        self.begin, self.finish, self.close = self.delivery.begin, self.delivery.finish, self.delivery.close

    def write(self, shown: Rows, everything: Rows) -> None:
        """See Sending."""
        for chunk in shown.chunks(ROWS_AT_ONCE):
            if self.delivery.is_full:
                self.delivery.drop(len(chunk))
            else:
                self.delivery.offer(self._encoder.encode(chunk), len(chunk))

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """See Sending."""
        self.delivery.offer(self._encoder.gap(node, seconds, until_ns), 0)

    @property
    def lost(self) -> int:
        """See Sending."""
        return self.delivery.counts().total_lost

    def summary(self) -> Iterator[str]:
        """See Sending."""
        yield f"export {self.delivery.name}: {count(self.delivery.counts().delivered, 'row')} delivered"

    def losses(self) -> Iterator[str]:
        """See Sending."""
        if (counts := self.delivery.counts()).lost:
            yield lost_line(self.delivery.name, counts)


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
        self.targets = [_sending(target, options, gadgets, serving or Serving()) for target in options.targets]

    def begin(self, warn: Callable[[str], object]) -> None:
        """Start to send. `warn` is called from any thread."""
        for target in self.targets:
            target.begin(warn)

    def write(self, shown: Rows, everything: Rows | None = None) -> None:
        """Take rows that are shown; `everything`: also those of a table that --max-rows leaves out."""
        if len(shown):
            for target in self.targets:
                target.write(shown, shown if everything is None else everything)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """Take the record of a time for which a node's rows are missing."""
        for target in self.targets:
            target.gap(node, seconds, until_ns)

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
    from kubectl_gadget.export import http, otlp, otlp_metrics  # not everybody has what they need

    to = http.endpoint(target.where, dict(options.headers), options.tls)
    resource = http.given_resource()
    if otlp_metrics.are_totals(gadgets):
        transport = http.HttpTransport(to, otlp_metrics.METRICS, otlp_metrics.rejected_points)
        return otlp_metrics.MetricsSent(target, resource, transport)
    return Sent(target, otlp.LogRecords(gadgets, resource), http.HttpTransport(to, otlp.LOGS, otlp.rejected_logs))
