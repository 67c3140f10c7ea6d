"""Reads profiles and policies, writes advice.

The trap: a recording may have taken an hour, so a file is written completely or not at all, and whether it can be
written is checked before.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from kubectl_gadget.errors import GadgetError, UsageError


def read_text(name: str) -> str:
    """The text of a file. Raises UsageError when it cannot be read."""
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: {_reason(error)}") from None


def check_writable(path: Path) -> None:
    """Raises UsageError when `path` cannot be written."""
    place = path if path.exists() else path.absolute().parent
    if not place.exists():
        raise UsageError(f"{path} cannot be written: the directory {place} does not exist")
    if not os.access(place, os.W_OK):
        raise UsageError(f"{path} cannot be written: permission denied")


def write_whole(path: Path, write: Callable[[TextIO], object]) -> None:
    """Writes a file, completely or not at all. Raises GadgetError."""
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            write(file)
        beside.replace(path)
    except OSError as error:
        raise GadgetError(f"{path} cannot be written: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Writes a text, completely or not at all. Raises GadgetError."""
    write_whole(path, lambda file: file.write(text))


def file_in(directory: Path, name: str) -> Path:
    """A file of this directory. The name may come from a recording or a baseline that anybody made."""
    return directory / (name.replace("/", "_").replace("\0", "_").lstrip(".") or "_")


def make_directory(directory: Path) -> None:
    """Creates a directory unless it exists. Raises GadgetError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GadgetError(f"the directory {directory} cannot be created: {error.strerror}") from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "is not UTF-8 text"
