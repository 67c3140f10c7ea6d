"""The texts of all commands, as the build stored them: `--help` and TAB then import neither typer nor any flags.

    BUILT/commands/all.txt    in the first line, the FlagTexts that several commands have; then a line for each command:
                              its words, a tab, and a CommandText

It is one file, since a hundred small ones take three times as much in a wheel. In a source tree it may be older than
the code, and then it is not used. A command that it lacks, such as a gadget of the user's own, is made as for a run.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from kubectl_gadget.cli import settings_places
from kubectl_gadget.cli.help import CommandText, help_of, read_text

PACKAGE = Path(__file__).parents[1]
FOLDER = PACKAGE / "built" / "commands"
NAME = "all.txt"
PROGRAM = "kubectl gadget"
_OUTPUT = ("__pycache__", "objects", "payload", "commands")


class NotStored(Exception):
    """Only the real command knows the answer."""


class StoredCommand:
    """A command for completion; see command.Command."""

    takes_files = False

    def __init__(self, path: tuple[str, ...] = (), data: bytes | None = None) -> None:
        """`data`: what the file has, if it was read before. Raises NotStored."""
        if not all(word.replace("-", "").isalnum() for word in path):
            raise NotStored
        try:
            self._data = (FOLDER / NAME).read_bytes() if data is None else data
        except OSError:
            raise NotStored from None
        mark = f"\n{title(path)}\t".encode()
        if (start := self._data.find(mark)) < 0:
            raise NotStored
        text = self._data[start + len(mark) : self._data.index(b"\n", start + 1)]
        self.text = read_text(text, self._data[: self._data.index(b"\n")])
        self.flag_texts, self.is_group = self.text.flags, self.text.entries is not None
        self._path = path

    def choices(self, name: str) -> list[str]:
        return [choice for flag in self.text.flags if flag.name == name for choice in flag.choices]

    def find(self, name: str) -> "StoredCommand":
        """The sub-command. Raises NotStored."""
        return StoredCommand((*self._path, name), self._data)

    def after_files(self, words: Sequence[str]) -> list[str]:
        """The words from the name of the sub-command on."""
        return list(words)

    def joined(self, current: str) -> list[tuple[str, str]]:
        """Raises NotStored for names that are joined."""
        if "+" in current:
            raise NotStored
        return []


def title(path: Sequence[str]) -> str:
    """The words of a command, as the file has them."""
    return " ".join((PROGRAM, *path))


def is_current() -> bool:
    """True if the file is as new as the code. In an installed package it is; only a source tree changes."""
    try:
        written = os.stat(FOLDER / NAME).st_mtime_ns
    except OSError:
        return False
    folders = [str(PACKAGE)] if (PACKAGE.parent / "pyproject.toml").exists() else []
    while folders:
        with os.scandir(folders.pop()) as found:
            for item in found:
                if item.name.endswith((".py", ".json", ".yaml", ".txt")):
                    if item.stat().st_mtime_ns > written:
                        return False
                elif item.name not in _OUTPUT and item.is_dir():
                    folders.append(item.path)
    return True


def help_text(words: Sequence[str]) -> str | None:
    """The answer to a command line that only asks for help. None: the command itself has to give it."""
    is_asked = words[-1:] in (["--help"], ["-h"])
    path = tuple(words[:-1] if is_asked else words)
    try:
        text: CommandText | None = StoredCommand(path).text if is_current() else None
    except NotStored:
        return None
    if text is None or (text.entries is None and not (is_asked and settings_places.nothing_is_set())):
        return None
    return help_of(text, title(path))
