"""Options for what is printed, and how."""

from dataclasses import dataclass, field

from kubectl_gadget.rows.arrangement import Arrangement


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
    once: bool = False
    """one table at the end, if a gadget is not a stream"""
    arrangement: Arrangement = field(default_factory=Arrangement)
    """of tables that are not streams; `sort` is the initial order of a table that is redrawn"""
    selection: str = ""
    """the selected containers, in words, for files that are viewed later, without the command"""
