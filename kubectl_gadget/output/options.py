"""What is printed, and how."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OutputOptions:
    """What is printed."""

    format: str = "table"
    """table, wide, json, yaml, csv, name, pcap-ng, folded, speedscope, pprof, jsonpath=…, custom-columns=…"""
    no_headers: bool = False
    color: str = "auto"
    """auto, always, never"""
    columns: tuple[str, ...] = ()
    """--columns a,b: shown instead of the default ones"""
    order: tuple[str, ...] = ()
    """of a table that is drawn again and again: by which columns it is sorted at first"""
    once: bool = False
    """one table at the end, where a gadget is no stream"""
    bars: int = 0
    """how many histograms are drawn below their table"""
    max_rows: int | None = None
    """its rows; None: as many as the terminal has room for"""
    flame_graph: str = ""
    """a file, for a gadget that has call stacks, besides all else"""
    selection: str = ""
    """in words: which containers are looked at; for what is looked at later, away from the command"""
    diff: str = ""
    """a file of -o folded that the flame graph is compared with"""
