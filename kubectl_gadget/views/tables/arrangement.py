"""How tables that are no streams are to be made.

The trap: the command line reads this for `--help`, so nothing heavy may be imported here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arrangement:
    """How the tables of a run are made."""

    sort: tuple[str, ...] = ()
    """columns, with - in front the highest first; none: as the gadget says"""
    max_rows: int | None = None
    by: tuple[str, ...] = ()
    """columns; rows that agree in all of them are added up to one"""
    tree: bool = False
    lines: bool = True
    """whether a tree has lines, which only tables have a use for"""
    interval: float = 1.0
    """seconds that each table adds up; with `at_end`, after which agents send what they have"""
    bars: int = 3
    """how many histograms are drawn as bars"""
    at_end: bool = False
    """one table, of the whole run"""
    flame_graph: str = ""
    """a file for one"""
    diff: str = ""
    """a file that it is compared with"""
