"""The export of one run: gives each row that is shown to all targets, and says what they did not get.

Rows are encoded in the pipeline's thread, from the columns that the output has read already, and sent in a thread of
each target. So the targets get the rows that are shown, in their order; of several targets none waits for another.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kubectl_gadget.errors import require
from kubectl_gadget.export import lines
from kubectl_gadget.export.delivery import Delivery, Transport, lost_line
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


class Export:
    """All targets of one run."""

    def __init__(self, options: ExportOptions, gadgets: Sequence[Gadget]) -> None:
        """`gadgets`: those whose rows are shown. Raises UsageError."""
        self.takes_output = options.takes_output
        self._targets: list[tuple[Encoder, Delivery]] = []
        for target in options.targets:
            encoder, transport = _parts(target, options, gadgets)
            self._targets.append((encoder, Delivery(target.name, transport)))

    def begin(self, warn: Callable[[str], object]) -> None:
        """Start to send. `warn` is called from any thread."""
        for _, delivery in self._targets:
            delivery.begin(warn)

    def write(self, rows: Rows) -> None:
        """Take rows that are shown."""
        if not len(rows):
            return
        for chunk in rows.chunks(ROWS_AT_ONCE):
            for encoder, delivery in self._targets:
                if delivery.is_full:
                    delivery.drop(len(chunk))
                else:
                    delivery.offer(encoder.encode(chunk), len(chunk))

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """Take the record of a time for which a node's rows are missing."""
        for encoder, delivery in self._targets:
            delivery.offer(encoder.gap(node, seconds, until_ns), 0)

    def close(self) -> None:
        """Send what waits, for a few seconds."""
        for _, delivery in self._targets:
            delivery.finish()
        for _, delivery in self._targets:
            delivery.close()

    @property
    def lost(self) -> int:
        """The number of rows that some target did not get. Known after `close`."""
        return sum(delivery.counts().total_lost for _, delivery in self._targets)

    def summary(self) -> Iterator[str]:
        """Yield a line for each target."""
        for _, delivery in self._targets:
            counts = delivery.counts()
            yield f"export {delivery.name}: {count(counts.delivered, 'row')} delivered"

    def losses(self) -> Iterator[str]:
        """Yield a line for each target that did not get all rows."""
        for _, delivery in self._targets:
            if (counts := delivery.counts()).lost:
                yield lost_line(delivery.name, counts)


def _otlp(target: Target, options: ExportOptions, gadgets: Sequence[Gadget]) -> tuple[Encoder, Transport]:
    require("opentelemetry.proto.logs.v1.logs_pb2", "--export otlp", "export")
    from kubectl_gadget.export import http, otlp  # not everybody has what they need

    to = http.endpoint(target.where, dict(options.headers), options.tls)
    return otlp.LogRecords(gadgets, http.given_resource()), http.HttpTransport(to, otlp.LOGS, otlp.rejected_logs)


def _parts(target: Target, options: ExportOptions, gadgets: Sequence[Gadget]) -> tuple[Encoder, Transport]:
    encoder: Encoder
    if target.kind == "otlp":
        return _otlp(target, options, gadgets)
    if target.kind == "syslog":
        encoder = lines.SyslogMessages(gadgets, is_counted=target.scheme != "udp")
    else:
        encoder = lines.JsonLines(gadgets)
    if not target.scheme:
        return encoder, lines.FileTransport(target.where)
    transport = lines.DatagramTransport if target.scheme == "udp" else lines.SocketTransport
    return encoder, transport(target, options.tls)
