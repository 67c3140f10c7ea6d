"""Totals as OTLP metrics: sums and exponential histograms that grow from the run's begin, amounts of now as gauges.

Rows of tables are amounts of an interval, so a record for each would be neither an event nor a number that stores can
add up. The times are the rows' times, so that a replay has the original ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as MetricMessage

from kubectl_gadget import __version__
from kubectl_gadget.export.conventions import SCHEMA_URL, attribute_name
from kubectl_gadget.export.delivery import Counts, Delivery, Transport, lost_line
from kubectl_gadget.export.otlp import SCOPE, answered, key_value, resource_of
from kubectl_gadget.export.sending import Untimed
from kubectl_gadget.export.targets import Target
from kubectl_gadget.export.totals import MOST_SERIES, OTHER, PLACE, Labels, Metric, Series, Totals
from kubectl_gadget.gadgets.schema import TABLES, Gadget
from kubectl_gadget.rows.histogram import octaves
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wording import count

METRICS = "v1/metrics"
"""The end of the URL that takes metrics."""
_SECONDS = 10.0
"""of rows between two requests"""
_POINTS_AT_ONCE = 1000
_NOUN = "data point"
_OURS = "kubectl_gadget_"
_UNITS = {"bytes": "By", "seconds": "s"}
_LOWEST_BIT = 6
"""The second octave of a row begins at 64 ns (rows/histogram.py)."""
_ZERO = 64.0


def are_totals(gadgets: Sequence[Gadget]) -> bool:
    """Return True if the rows of these gadgets are metrics."""
    return all(gadget.kind in TABLES and gadget.totals.sums for gadget in gadgets)


class MetricsSent(Untimed):
    """A collector that gets totals of rows (sending.Sending)."""

    def __init__(self, target: Target, resource: Mapping[str, str], transport: Transport) -> None:
        self._totals = Totals()
        self._resource = dict(resource)
        self._delivery = Delivery(target.name, transport, noun=_NOUN)
        self._warn: Callable[[str], object] = lambda text: None
        self._began_ns = self._until_ns = self._sent_ns = 0
        self._has_warned = False

    def begin(self, warn: Callable[[str], object]) -> None:
        """See Sending."""
        self._warn = warn
        self._delivery.begin(warn)

    def write(self, shown: Rows, everything: Rows) -> None:
        """Add rows up, and send the totals if the last time is long enough ago."""
        if not len(everything):
            return
        until = max(int(np.max(part.wall_ns())) for part in everything.parts)
        if not self._began_ns:
            intervals = max(int(np.max(part.raw("interval"))) for part in everything.parts)
            self._began_ns = self._sent_ns = until - intervals
        self._until_ns = max(self._until_ns, until)
        self._totals.add(everything)
        if self._totals.beyond and not self._has_warned:
            self._has_warned = True
            self._warn(
                f"export {self._delivery.name}: more than {MOST_SERIES:,} series; further ones are added to {OTHER!r}"
            )
        if self._until_ns - self._sent_ns >= _SECONDS * 1e9:
            self._send()

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """Do nothing: a sum has no gap."""

    def finish(self) -> None:
        """See Sending."""
        if self._until_ns > self._sent_ns:
            self._send()
        self._delivery.finish()

    def close(self) -> None:
        """See Sending."""
        self._delivery.close()

    @property
    def lost(self) -> int:
        """See Sending."""
        return self._delivery.counts().total_lost

    def counts(self) -> Iterator[tuple[str, Counts]]:
        """See Sending."""
        yield _NOUN, self._delivery.counts()

    def summary(self) -> Iterator[str]:
        """See Sending."""
        yield f"export {self._delivery.name}: {count(self._delivery.counts().delivered, _NOUN)} delivered"

    def losses(self) -> Iterator[str]:
        """See Sending."""
        if (counts := self._delivery.counts()).lost:
            yield lost_line(self._delivery.name, counts, _NOUN)

    def _send(self) -> None:
        self._sent_ns = self._until_ns
        points = [
            (labels[: len(PLACE)], metric, labels, series)
            for metric, found in self._totals.read()
            for labels, series in found
        ]
        points.sort(key=lambda point: point[0])
        for start in range(0, len(points), _POINTS_AT_ONCE):
            if self._delivery.is_full:
                self._delivery.drop(len(points) - start)
                return
            some = points[start : start + _POINTS_AT_ONCE]
            self._delivery.offer([self._request(some).SerializeToString()], len(some))

    def _request(self, points: Sequence[tuple[Labels, Metric, Labels, Series]]) -> ExportMetricsServiceRequest:
        made = ExportMetricsServiceRequest()
        groups: dict[Labels, tuple[ScopeMetrics, dict[Metric, MetricMessage]]] = {}
        for place, metric, labels, series in points:
            if place not in groups:
                scope = self._resource_of(made, place)
                groups[place] = scope, {}
            scope, known = groups[place]
            if metric not in known:
                known[metric] = _metric(scope, metric)
            attributes = [
                key_value(attribute_name("", name), value)
                for name, value in zip(metric.labels[len(PLACE) :], labels[len(PLACE) :], strict=True)
                if value
            ]
            if series.buckets is not None:
                point = ExponentialHistogramDataPoint(attributes=attributes)
                point.start_time_unix_nano, point.time_unix_nano = self._began_ns, self._until_ns
                _fill_in(point, series)
                known[metric].exponential_histogram.data_points.append(point)
                continue
            number = NumberDataPoint(attributes=attributes)
            number.start_time_unix_nano, number.time_unix_nano = self._began_ns, self._until_ns
            if float(series.value).is_integer():
                number.as_int = int(series.value)
            else:
                number.as_double = series.value
            kept = known[metric].gauge if metric.kind == "gauge" else known[metric].sum
            kept.data_points.append(number)
        return made

    def _resource_of(self, request: ExportMetricsServiceRequest, place: Labels) -> ScopeMetrics:
        node, *names = place
        container = dict(zip(("namespace", "pod", "container"), names, strict=True))
        made = ResourceMetrics(
            resource=resource_of(self._resource, node, container),
            scope_metrics=[
                ScopeMetrics(scope=InstrumentationScope(name=SCOPE, version=__version__), schema_url=SCHEMA_URL)
            ],
            schema_url=SCHEMA_URL,
        )
        request.resource_metrics.append(made)
        kept: ScopeMetrics = request.resource_metrics[-1].scope_metrics[0]
        return kept


def _metric(scope: ScopeMetrics, metric: Metric) -> MetricMessage:
    made: MetricMessage = scope.metrics.add(
        name=f"gadget.{metric.name.removeprefix(_OURS)}",
        description=metric.help,
        unit="ns" if metric.kind == "histogram" else _UNITS.get(metric.unit, "1"),
    )
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    if metric.kind == "histogram":
        made.exponential_histogram.CopyFrom(ExponentialHistogram(aggregation_temporality=cumulative))
    elif metric.kind == "gauge":
        made.gauge.CopyFrom(Gauge())
    else:
        made.sum.CopyFrom(Sum(aggregation_temporality=cumulative, is_monotonic=True))
    return made


def _fill_in(point: ExponentialHistogramDataPoint, series: Series) -> None:
    """Fill in a point. With scale 0, bucket n is from 2^n to 2^(n+1) ns, which is an octave of the row. What is below
    64 ns counts as zero, with that threshold."""
    assert series.buckets is not None
    counts = octaves(series.buckets)
    point.scale = 0
    point.count = int(series.buckets.sum())
    point.sum = series.value * 1e9
    point.zero_threshold = _ZERO
    point.zero_count = int(counts[0])
    filled = np.flatnonzero(counts[1:])
    if len(filled):
        first, last = int(filled[0]), int(filled[-1])
        point.positive.offset = _LOWEST_BIT + first
        point.positive.bucket_counts.extend(counts[1 + first : 2 + last].tolist())


def rejected_points(answer: bytes) -> tuple[int, str]:
    """Return how many data points a collector has not taken, and why. Raises Refused if it gives no such answer."""
    partial = answered(ExportMetricsServiceResponse, answer).partial_success
    return max(0, int(partial.rejected_data_points)), str(partial.error_message)
