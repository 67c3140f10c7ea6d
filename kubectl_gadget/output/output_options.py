"""Options for what is printed, and how."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OutputOptions:
    """Options for what is printed."""

    format: str = "table"
    """table, wide, json, yaml, csv, name, pcap-ng, folded, speedscope, pprof, jsonpath=…, custom-columns=…"""
    no_headers: bool = False
    color: str = "auto"
    """auto, always, never"""
    columns: tuple[str, ...] = ()
    """--columns a,b: shown instead of the default columns"""
    order: tuple[str, ...] = ()
    """for a table that is redrawn: the columns of its initial sort order"""
    once: bool = False
    """one table at the end, if a gadget is not a stream"""
    bars: int = 0
    """number of histograms that are drawn below their table"""
    max_rows: int | None = None
    """maximum rows of a table; None: as many as fit the terminal"""
    flame_graph: str = ""
    """path of a flame graph to write in addition, for a gadget that has call stacks"""
    selection: str = ""
    """the selected containers, in words, for files that are viewed later, without the command"""
    diff: str = ""
    """path of a file written with -o folded, to compare the flame graph with"""
