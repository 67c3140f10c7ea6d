"""`kubectl gadget recording redact`: copies what --record wrote, without what others must not see."""

import json
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.flags.flag_declaration import ENGINE, Text, flag
from kubectl_gadget.cli.recordings.recording import Files, Format
from kubectl_gadget.errors import GadgetError, UsageError

if TYPE_CHECKING:
    from kubectl_gadget.analysis.redact import Redaction
    from kubectl_gadget.analysis.redaction_rules import Redactor

Rules = Annotated[Text, flag(ENGINE, "--rules FILE", "Rules in YAML (default: the built-in ones)"), str]
Secret = Annotated[Text, flag(ENGINE, "--secret-file FILE", "The secret of all hashes, at least 16 bytes"), str]
_LEAST_SECRET, _MOST_SECRET = 16, 1 << 20


def redact(files: Files, output: Format = None, rules: Rules = None, secret: Secret = None) -> int:
    if len(files) != 2:
        raise UsageError("a recording and a name for its copy are needed", "kubectl gadget recording redact FILE COPY")
    from kubectl_gadget.analysis.redact import redact
    from kubectl_gadget.analysis.redaction_rules import Redactor, read_rules
    from kubectl_gadget.recording.recording_places import place_of

    source, destination = place_of(files[0]), Path(files[1])
    redactor = Redactor(read_rules(rules or "default"), _secret(secret))
    try:
        handle = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except FileExistsError:
        raise UsageError(f"{destination} exists", "another name, or remove it") from None
    except OSError as error:
        raise UsageError(f"{destination}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            found = redact(source, stream, redactor)
    except BaseException as error:
        with suppress(OSError):
            destination.unlink()
        if isinstance(error, OSError):
            raise GadgetError(f"{destination} cannot be written: {error.strerror or error}") from None
        raise
    return _report(found, redactor, output)


def _secret(path: str | None) -> bytes:
    if path is None:
        return secrets.token_bytes(32)
    try:
        with open(path, "rb") as stream:
            read = stream.read(_MOST_SECRET + 1)
    except OSError as error:
        raise UsageError(f"--secret-file {path}: {error.strerror}") from None
    if len(read) > _MOST_SECRET:  # /dev/urandom has no end, and another secret each time
        raise UsageError(f"--secret-file {path} has more than {_MOST_SECRET:,} bytes", "head -c 32 /dev/urandom > FILE")
    if len(found := read.strip()) < _LEAST_SECRET:
        raise UsageError(f"--secret-file {path} has fewer than {_LEAST_SECRET} bytes", "head -c 32 /dev/urandom > FILE")
    return found


def _report(found: "Redaction", redactor: "Redactor", output: str | None) -> int:
    from kubectl_gadget.cli.help.printed_tables import print_table

    counts = sorted(redactor.counts.items())
    if output == "json":
        rows = [{"rule": rule, "where": where, "count": count} for (rule, where), count in counts]
        record = {"taken": rows, "left_out": found.left_out, "damaged_segments": found.damage.segments}
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        print_table(("RULE", "WHERE", "COUNT"), [(rule, where, f"{count:,}") for (rule, where), count in counts])
    if found.left_out:
        sys.stderr.write(f"{found.left_out:,} records that cannot be read were left out\n")
    if found.damage.segments or found.damage.is_cut:
        sys.stderr.write("damaged segments were left out\n")
    return 0
