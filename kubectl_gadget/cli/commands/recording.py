"""`kubectl gadget recording info`: what is in a file that --record wrote."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kubectl_gadget.cli import values
from kubectl_gadget.cli.flags.declaration import SHOW, flag
from kubectl_gadget.cli.framework.command import Entry, GadgetGroup, GroupParts, lazily, make_group
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.events.schema import Example
from kubectl_gadget.output.registry import REPORTS

INFO_PAGE = Page(
    "Show what a recording holds: when, which gadgets, nodes and pods, and what is missing. Exit 1 if it is not whole.",
    (
        Example("kubectl gadget recording info night.kgr", "a summary"),
        Example("kubectl gadget recording info night.kgr -o json", "for machines, an object a line for each file"),
    ),
    usage="FILE... [flags]",
)
Format = Annotated[
    str | None,
    flag(SHOW, "--output", "-o", metavar="FORMAT", help=REPORTS.words, choices=REPORTS.choices),
    values.format_of(REPORTS),
]
Files = Annotated[tuple[str, ...], typer.Argument(metavar="FILE"), tuple]


def recording_group() -> GadgetGroup:
    """`kubectl gadget recording`."""
    entries = {
        "info": Entry(
            "Show what a recording holds, and what is missing in it",
            "Recordings",
            lazily("kubectl_gadget.cli.commands.recording:info:INFO_PAGE", "info"),
        )
    }
    page = Page("Look into files that --record wrote.", usage="COMMAND FILE... [flags]")
    return make_group(_flags, "recording", GroupParts(page, entries))


def info(files: Files, output: Format = None) -> int:
    """Prints it."""
    from kubectl_gadget.errors import UsageError
    from kubectl_gadget.session.recordings.info import read_info

    if not files:
        raise UsageError("no recording was named", "kubectl gadget recording info FILE")
    whole = True
    for file in files:
        found = read_info(Path(file))
        whole = whole and found.is_whole
        if output == "json":
            sys.stdout.write(json.dumps({"file": file, **found.to_json()}) + "\n")
        else:
            _print(file, found.to_json())
    return 0 if whole else 1


def _print(file: str, found: dict[str, Any]) -> None:
    from datetime import UTC, datetime

    from kubectl_gadget.output.escape import escape

    def time_of(ns: int) -> str:
        try:
            return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        except (OverflowError, OSError, ValueError):
            return "an impossible time"

    seconds = max(0, found["last_ns"] - found["first_ns"]) / 1e9
    pods = found["pods"]
    lines = [
        f"{file}: {' '.join(found['command'])}, recorded by version {found['version']}",
        f"  when     {time_of(found['first_ns'])}, for {seconds:.1f} s",
        f"  what     {found['selection']}" + (f", --filter {found['filter']!r}" if found["filter"] else ""),
        *(f"  gadget   {item['name']}: {item['events']:,} events" for item in found["gadgets"]),
        *(f"  node     {name}: {count:,} events" for name, count in found["nodes"].items()),
        f"  pods     {len(pods)}: {', '.join(pods[:5])}{', …' if len(pods) > 5 else ''}",
        f"  size     {found['bytes']:,} bytes in {found['segments']} segments",
        f"  missing  {_missing(found)}",
    ]
    sys.stdout.writelines(escape(line) + "\n" for line in lines)


def _missing(found: dict[str, Any]) -> str:
    parts = [
        f"{found['gap_seconds']:.1f} s while nodes could not be reached" if found["gap_seconds"] else "",
        f"{found['damaged_segments']} damaged segments" if found["damaged_segments"] else "",
        f"{found['unreadable_frames']} frames that cannot be read" if found["unreadable_frames"] else "",
        f"{found['dropped_bytes']:,} bytes of events that the disk was too slow for" if found["dropped_bytes"] else "",
        "its end: the client was killed, or the disk was full" if not found["whole"] else "",
    ]
    damaged = found["damaged_segments"] or found["dropped_bytes"] or found["unreadable_frames"]
    kept = [part for part in parts[:-1] if part] + ([parts[-1]] if parts[-1] and (found["cut"] or not damaged) else [])
    return ", ".join(kept) or "nothing"


def _flags() -> int:
    raise NotImplementedError("a group only lends its flags")
