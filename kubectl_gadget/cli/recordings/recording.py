"""`kubectl gadget recording info`: describes a file written by --record."""

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_gadget.cli.flags.flag_declaration import Text, format_flag
from kubectl_gadget.output.registry import REPORTS

if TYPE_CHECKING:
    from kubectl_gadget.recording.info import RecordingInfo

Format = Annotated[Text, format_flag(REPORTS)]
Files = Annotated[tuple[str, ...], typer.Argument(metavar="FILE")]


def info(files: Files, output: Format = None) -> int:
    from kubectl_gadget.errors import UsageError
    from kubectl_gadget.recording.info import read_info
    from kubectl_gadget.recording.recording_places import places_of

    if not files:
        raise UsageError("no recording was given", "kubectl gadget recording info FILE")
    whole = True
    for place in places_of(files):
        file, found = str(place), read_info(place)
        whole = whole and found.is_whole
        if output == "json":
            sys.stdout.write(json.dumps({"file": file, **found.to_json()}) + "\n")
        else:
            _print(file, found)
    return 0 if whole else 1


def _print(file: str, found: "RecordingInfo") -> None:
    from kubectl_gadget.output.escape import escape

    run, pods = found.run, [f"{namespace}/{name}" for namespace, name in sorted(found.pods)]
    lines = [
        f"{file}: {' '.join(run.command)}, recorded by version {run.version}",
        f"  when     {_time_of(found.end.began_ns)}, for {found.end.seconds:.1f} s",
        f"  what     {run.selection}" + (f", --filter {run.filter!r}" if run.filter else ""),
        *(f"  gadget   {item.gadget.name}: {found.events[item.gadget.name]:,} events" for item in run.gadgets),
        *(f"  node     {name}: {count:,} events" for name, count in found.nodes.items()),
        f"  pods     {len(pods)}: {', '.join(pods[:5])}{', …' if len(pods) > 5 else ''}",
        *(f"  step     {mark.name}, from {_time_of(mark.wall_ns)}" for mark in found.steps),
        f"  size     {found.bytes:,} bytes in {found.segments} segments",
        f"  missing  {', '.join(_missing(found)) or 'nothing'}",
    ]
    sys.stdout.writelines(escape(line) + "\n" for line in lines)


def _time_of(ns: int) -> str:
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return "an impossible time"


def _missing(found: "RecordingInfo") -> Iterator[str]:
    yield from found.doubts
    if found.gap_seconds and found.end.coverage is None:
        yield f"{found.gap_seconds:.1f} s while nodes could not be reached"
    if found.damaged_segments:
        yield f"damaged segments: {found.damaged_segments}"
    if found.unreadable:
        yield f"{found.unreadable} frames that cannot be read"
    if found.dropped_bytes:
        yield f"{found.dropped_bytes:,} bytes of events, since the disk or object store was too slow"
    if not found.has_end:
        yield "its end: the client was killed, or the disk was full"
