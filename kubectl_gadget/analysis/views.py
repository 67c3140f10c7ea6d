"""The views over a dataset that queries use: one for each gadget, and `process` and `flows`, derived from them.

The trap: a dataset has only the tables of what was recorded, so a derived view uses what is there, or does not exist.
"""

import glob
from collections.abc import Collection, Iterator
from pathlib import Path

from kubectl_gadget.analysis.tables import FLOWS, PROCESS

_OWNED = "node, namespace, pod, container"

_PROCESSES = """
SELECT exec_id, any_value(parent_exec_id) AS parent_exec_id,
  any_value(node) AS node, any_value(namespace) AS namespace, any_value(pod) AS pod, any_value(container) AS container,
  any_value(pid) AS pid, any_value(ppid) AS ppid, arg_max(comm, timestamp) AS comm, any_value(exe) AS exe,
  any_value(args) AS args, any_value(cwd) AS cwd, any_value(uid) AS uid, min(started) AS started,
  max(timestamp) FILTER (WHERE operation = 'exit') AS ended,
  max(code) FILTER (WHERE operation = 'exit') AS code, max(signal) FILTER (WHERE operation = 'exit') AS signal
FROM process_events WHERE exec_id IS NOT NULL GROUP BY exec_id"""

_FROM_EXEC = """
WITH started AS (
  SELECT *, concat_ws(':', node, epoch_ns(timestamp), pid) AS exec_id FROM exec WHERE errno = 0
)
SELECT s.exec_id, parent.exec_id AS parent_exec_id, s.node, s.namespace, s.pod, s.container, s.pid, s.ppid, s.comm,
  s.exe, s.args, s.cwd, s.uid, s.timestamp AS started, {ended}
FROM started s
ASOF LEFT JOIN started parent ON parent.node = s.node AND parent.pid = s.ppid AND s.timestamp >= parent.timestamp
{join}"""
_EXIT = "x.timestamp AS ended, x.code, x.signal"
_NO_EXIT = "NULL::TIMESTAMPTZ AS ended, NULL::INTEGER AS code, NULL::VARCHAR AS signal"
_JOIN_EXIT = 'ASOF LEFT JOIN "exit" x ON x.node = s.node AND x.pid = s.pid AND s.timestamp <= x.timestamp'

_TREE = """
CREATE MACRO tree(id) AS TABLE
WITH RECURSIVE known AS MATERIALIZED (SELECT * FROM process),
up(depth, exec_id) AS (
  SELECT 0, id
  UNION ALL
  SELECT depth + 1, known.parent_exec_id FROM up JOIN known USING (exec_id)
  WHERE depth < 64 AND known.parent_exec_id IS NOT NULL
)
SELECT depth, known.* FROM up JOIN known USING (exec_id) ORDER BY depth"""

_TCP = f"""
SELECT timestamp, 'tcp' AS protocol, {_OWNED}, pid, comm, local, local_port, remote, remote_port, initiator,
  sent, received, duration FROM tcp WHERE operation = 'close'"""
_UDP = f"""
SELECT timestamp, 'udp' AS protocol, {_OWNED}, pid, comm, local, local_port, remote, remote_port, NULL AS initiator,
  sent, received, duration FROM udp WHERE operation = 'end'"""
_FLOWS = """
WITH ends AS ({ends}),
pods AS (
  SELECT local AS address, any_value(namespace) AS namespace, any_value(pod) AS pod FROM ends
  WHERE pod <> '' AND local <> '::1' AND NOT starts_with(local, '127.')
  GROUP BY local HAVING count(DISTINCT namespace || '/' || pod) = 1
)
SELECT ends.*, pods.namespace AS remote_namespace, pods.pod AS remote_pod
FROM ends LEFT JOIN pods ON pods.address = ends.remote"""


def definitions(dataset: Path, tables: Collection[str]) -> Iterator[str]:
    """Yields the statements that create the views of a dataset with these tables."""
    for table in sorted(tables):
        files = f"{glob.escape(str(dataset / table))}/**/*.parquet".replace("'", "''")
        yield (
            f"CREATE VIEW {quoted(table)} AS "
            f"SELECT * FROM read_parquet('{files}', hive_partitioning = true, union_by_name = true)"
        )
    if "process_events" in tables:
        yield f"CREATE VIEW {PROCESS} AS {_PROCESSES}"
    elif "exec" in tables:
        ended, joined = (_EXIT, _JOIN_EXIT) if "exit" in tables else (_NO_EXIT, "")
        yield f"CREATE VIEW {PROCESS} AS {_FROM_EXEC.format(ended=ended, join=joined)}"
    if {"process_events", "exec"} & set(tables):
        yield _TREE
    if ends := [text for table, text in (("tcp", _TCP), ("udp", _UDP)) if table in tables]:
        yield f"CREATE VIEW {FLOWS} AS {_FLOWS.format(ends=' UNION ALL '.join(ends))}"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
