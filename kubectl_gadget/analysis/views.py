"""The tables of a dataset, and the views over it that queries use: one for each gadget, and those derived from several.

A dataset has only the tables of recorded gadgets, so a derived view uses the tables that exist, or is left out.
"""

import glob
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.yaml_files import own_data

CONTAINERS, COVERAGE, PROCESS, FLOWS = "containers", "coverage", "process", "flows"


def table_name(gadget: Gadget) -> str:
    """The name of a gadget's table: of `trace open`, it is open; of other commands, it has the verb: top_tcp. The rows
    of `trace process` are in process_events, since `process` has a row for each process."""
    words = gadget.command[1:] if gadget.command[0] == "trace" and len(gadget.command) > 1 else gadget.command
    name = re.sub(r"\W+", "_", "_".join(words), flags=re.ASCII).lower()[:64] or "events"
    return f"{name}_events" if name in (CONTAINERS, COVERAGE, PROCESS, FLOWS) else name


def definitions(dataset: Path, tables: Collection[str]) -> Iterator[str]:
    """Yields the statements that create the views of a dataset with these tables."""
    for table in sorted(tables):
        files = f"{glob.escape(str(dataset / table))}/**/*.parquet".replace("'", "''")
        yield (
            f"CREATE VIEW {quoted(table)} AS "
            f"SELECT * FROM read_parquet('{files}', hive_partitioning = true, union_by_name = true)"
        )
    sql: dict[str, str] = own_data(Path(__file__).with_suffix(".yaml"))
    if "process_events" in tables:
        yield f"CREATE VIEW {PROCESS} AS {sql['processes']}"
    elif "exec" in tables:
        ended, joined = (sql["exit"], sql["join_exit"]) if "exit" in tables else (sql["no_exit"], "")
        yield f"CREATE VIEW {PROCESS} AS {sql['processes_from_exec'].format(ended=ended, join=joined)}"
    if {"process_events", "exec"} & set(tables):
        yield sql["tree"]
    if ends := [sql[table] for table in ("tcp", "udp") if table in tables]:
        yield f"CREATE VIEW {FLOWS} AS {sql['flows'].format(ends=' UNION ALL '.join(ends))}"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
