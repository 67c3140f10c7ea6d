"""`kubectl gadget recording query`: SQL over what --record wrote."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.flags.flag_declaration import ENGINE, Switch, Text, TypedOnly, flag, format_flag
from kubectl_gadget.cli.recordings.recording import Files
from kubectl_gadget.cli.values import amounts
from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.registry import QUERIES

if TYPE_CHECKING:
    from kubectl_gadget.recording.recording_places import PathOrUrl

Format = Annotated[Text, format_flag(QUERIES)]
Memory = Annotated[
    int | None, flag(ENGINE, "--memory SIZE", "Use at most this, and then disk: 4GiB (default: 1GiB)"), amounts.size
]
Outside = Annotated[
    Switch, flag(ENGINE, "--allow-files", "Let SQL reach other files and the network"), TypedOnly.RIGHTS
]
_EXAMPLE = 'kubectl gadget recording query FILE "SHOW TABLES"'
_LEAST_MEMORY, _MOST_MEMORY = 64 << 20, 1 << 40


def query(files: Files, output: Format = None, memory: Memory = None, outside: Outside = None) -> int:
    sources, sql = _divided(files)
    if memory is not None and not _LEAST_MEMORY <= memory <= _MOST_MEMORY:
        raise UsageError("--memory must be between 64Mi and 1024Gi")
    from kubectl_gadget.analysis.queries import opened, print_answer

    with opened(sources, sys.stderr, memory=memory or 1 << 30, outside=bool(outside)) as queries:
        for answer in queries.ask(sql):
            print_answer(answer, output or QUERIES.default, sys.stdout)
    return 0


def _divided(words: tuple[str, ...]) -> "tuple[list[PathOrUrl], str]":
    """Return the sources, and the SQL, which is the last word."""
    from kubectl_gadget.recording.recording_places import places_of

    if not words:
        raise UsageError("no recording was given", _EXAMPLE)
    last = words[-1]
    is_sql = len(words) > 1 and any(character.isspace() for character in last) and not _exists(last)
    sources = places_of(words[:-1] if is_sql else words)
    for source in sources:
        if isinstance(source, Path) and not _exists(str(source)):
            raise UsageError(f"{source}: No such file or directory")
    if not is_sql:
        raise UsageError("no SQL was given", _EXAMPLE)
    return sources, last


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # too long for a name
        return False
