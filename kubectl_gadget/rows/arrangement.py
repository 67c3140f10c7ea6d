"""Options for tables that are not streams.

The command line reads this for `--help`, so nothing heavy may be imported here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arrangement:
    """The arrangement of the tables of a run."""

    sort: tuple[str, ...] = ()
    """columns; a leading - sorts in descending order; empty: the gadget's default"""
    max_rows: int | None = None
    """None: all; of a table that is redrawn, as many as fit the terminal"""
    by: tuple[str, ...] = ()
    """columns to aggregate by: rows that are equal in all of them become one"""
    tree: bool = False
    lines: bool = True
    """True if a tree has lines, which only tables can use"""
    interval: float = 1.0
    """seconds per table; with `at_end`, the seconds after which agents send what they have"""
    bars: int = 3
    """number of histograms that are drawn as bars"""
    at_end: bool = False
    """one table for the whole run"""
    flame_graph: str = ""
    """path of the flame graph to write"""
    debuginfo: str = ""
    """folder or URL with files that have the names which agents did not find"""
    diff: str = ""
    """path of a recording to compare it with"""
