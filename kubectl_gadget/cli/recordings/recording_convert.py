"""`kubectl gadget recording convert`: makes files of other formats of what --record wrote."""

import sys
from pathlib import Path
from typing import Annotated

from kubectl_gadget.cli.flags.flag_declaration import Text, format_flag
from kubectl_gadget.cli.recordings.recording import Files
from kubectl_gadget.cli.recordings.replay import Since, Until
from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.registry import CONVERSIONS

Format = Annotated[Text, format_flag(CONVERSIONS)]


def convert(files: Files, output: Format = None, since: Since = None, until: Until = None) -> int:
    if len(files) < 2:
        raise UsageError("a recording and a destination are needed", "kubectl gadget recording convert FILE DIRECTORY")
    from kubectl_gadget.analysis import conversion
    from kubectl_gadget.recording.recording_places import places_of

    sources, destination, format = places_of(files[:-1]), Path(files[-1]), output or CONVERSIONS.default
    span = (since, until)
    if format in conversion.ONE_FILE:
        return conversion.to_one_file(sources, format, destination, sys.stderr, span)
    if destination.exists() and not destination.is_dir():
        raise UsageError(f"{destination} is a file, and -o {format} writes a directory", "another name")
    if format in conversion.FILE_PER_GADGET:
        return conversion.to_files(sources, format, destination, sys.stderr, span)
    code, rows = conversion.to_parquet(sources, destination, sys.stderr, span)
    for table, count in rows.items():
        sys.stderr.write(f"  {table}: {count:,} rows\n")
    return code
