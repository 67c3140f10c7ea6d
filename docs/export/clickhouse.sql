-- Events as JSON lines (--export jsonl=): common members, and all others of a row as JSON.
CREATE TABLE events
(
    timestamp DateTime64(9, 'UTC'),
    event LowCardinality(String),
    node LowCardinality(String),
    namespace LowCardinality(String),
    pod String,
    container LowCardinality(String),
    pid UInt32,
    comm LowCardinality(String),
    error LowCardinality(String),
    row String
)
ENGINE = MergeTree
PARTITION BY toDate(timestamp)
ORDER BY (event, namespace, pod, timestamp)
TTL toDateTime(timestamp) + INTERVAL 30 DAY;

-- Log records as the collector's Kafka exporter writes them (encoding: otlp_json), one message a row.
CREATE TABLE otlp_messages (message String) ENGINE = MergeTree ORDER BY tuple();

CREATE TABLE otlp_logs
(
    timestamp DateTime64(9, 'UTC'),
    event LowCardinality(String),
    severity LowCardinality(String),
    body String,
    namespace LowCardinality(String),
    pod String,
    resource Map(LowCardinality(String), String),
    attributes Map(LowCardinality(String), String)
)
ENGINE = MergeTree
PARTITION BY toDate(timestamp)
ORDER BY (event, namespace, pod, timestamp)
TTL toDateTime(timestamp) + INTERVAL 30 DAY;

CREATE MATERIALIZED VIEW otlp_logs_of_messages TO otlp_logs AS
WITH pairs -> mapFromArrays(
    arrayMap(pair -> JSONExtractString(pair, 'key'), pairs),
    arrayMap(pair -> trim(BOTH '"' FROM JSONExtractKeysAndValuesRaw(pair, 'value')[1].2), pairs)) AS as_map
SELECT
    fromUnixTimestamp64Nano(toInt64OrZero(JSONExtractString(record, 'timeUnixNano')), 'UTC') AS timestamp,
    JSONExtractString(record, 'eventName') AS event,
    JSONExtractString(record, 'severityText') AS severity,
    JSONExtractString(record, 'body', 'stringValue') AS body,
    resource['k8s.namespace.name'] AS namespace,
    resource['k8s.pod.name'] AS pod,
    resource,
    as_map(JSONExtractArrayRaw(record, 'attributes')) AS attributes
FROM
(
    SELECT
        arrayJoin(JSONExtractArrayRaw(scope, 'logRecords')) AS record,
        as_map(JSONExtractArrayRaw(part, 'resource', 'attributes')) AS resource
    FROM
    (
        SELECT part, arrayJoin(JSONExtractArrayRaw(part, 'scopeLogs')) AS scope
        FROM (SELECT arrayJoin(JSONExtractArrayRaw(message, 'resourceLogs')) AS part FROM otlp_messages)
    )
);
