-- Events of JSON lines (--export jsonl=rows.jsonl): common members typed, and all others of a row as JSON.
CREATE TABLE events AS
SELECT
    CAST(row ->> 'timestamp' AS TIMESTAMP_NS) AS timestamp,
    row ->> 'event' AS event,
    row ->> 'node' AS node,
    row ->> 'namespace' AS namespace,
    row ->> 'pod' AS pod,
    row ->> 'container' AS container,
    CAST(row ->> 'pid' AS UINTEGER) AS pid,
    row ->> 'comm' AS comm,
    nullif(row ->> 'error', '') AS error,
    CAST(row ->> 'gap_seconds' AS DOUBLE) AS gap_seconds,
    row
FROM (SELECT json AS row FROM read_ndjson_objects('rows.jsonl'));

-- What happens most, and how often it fails.
SELECT event, comm, count(*) AS rows, count(error) AS failed
FROM events
WHERE gap_seconds IS NULL
GROUP BY ALL
ORDER BY rows DESC, event, comm
LIMIT 10;
