"""What is printed, and how."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OutputOptions:
    """What is printed."""

    format: str = "table"
    """table, wide, json, yaml, csv, name, jsonpath=…, custom-columns=…"""
    no_headers: bool = False
    color: str = "auto"
    """auto, always, never"""
    columns: tuple[str, ...] = ()
    """--columns a,b: shown instead of the default ones"""
