"""Converts the paths in facts to other notations: globs of AppArmor, and whole paths or prefixes.

The trap: a container chose the names of its files, so a name may look like a pattern, or like the end of a rule. In a
fact, `\\` stands before such characters; a path that the other notation cannot express is left out.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from kubectl_gadget.behavior.fact_patterns import ANYTHING
from kubectl_gadget.behavior.facts import Fact, FactKind

_PIECE = re.compile(r"\\x[0-9a-f]{2}|\\[\\*<]|<[a-z]+>|[^\\<]+|.", re.DOTALL)
_LIBRARY = "/lib/<library>"
_LIBRARIES = "/{usr/,}{lib,lib32,lib64,libx32}/**"
_SEVERAL = ("<shard>",)
"""placeholders that may stand for several directories"""
_SPECIAL = re.compile(r"[\\*?\[\]{}^\"]")


@dataclass(frozen=True)
class Target:
    """The files that a path of a fact stands for."""

    text: str
    """the path, or the prefix of its paths"""
    is_whole: bool
    """whether it is one path"""


def _pieces(path: str) -> Iterator[tuple[str, bool]]:
    """Its parts, and whether each is literal. Of the other parts, only the position is known."""
    for found in _PIECE.finditer(path):
        piece = found.group()
        if piece.startswith("\\"):
            yield (piece[1:], True) if len(piece) == 2 else (piece, False)
        else:
            yield piece, not (piece.startswith("<") and piece.endswith(">"))


def is_path(text: str) -> bool:
    """Whether it is a path, and nothing in it can end a rule or a line."""
    return text.startswith("/") and text.isprintable() and ".." not in text.split("/")


def without_applet(program: str, multicall: Collection[str]) -> str:
    """The file of a program: of `/bin/busybox sh`, /bin/busybox."""
    file, _, applet = program.rpartition(" ")
    return file if applet and file.rpartition("/")[2] in multicall else program


def interpreter(fact: Fact) -> str:
    """The interpreter of an executed script, if the fact's row has it; else empty."""
    file = str(fact.evidence.get("exe") or "")
    return file if fact.kind is FactKind.PROGRAM and is_path(file) else ""


def target(path: str) -> Target:
    """The path, or the prefix of all its paths."""
    directory = path.removesuffix(ANYTHING)
    if path == _LIBRARY:
        return Target("/", False)
    text = ""
    for piece, is_literal in _pieces(directory):
        if not is_literal:
            return Target(text, False)
        text += piece
    # The rules cut a version after it.
    if directory == path and path.endswith(".so"):
        return Target(text, False)
    return Target(text, True) if directory == path else Target(f"{text}/", False)


def glob(path: str) -> str:
    """The same as a pattern of AppArmor, which also covers a directory of this name."""
    if path == _LIBRARY:
        return _LIBRARIES
    directory = path.removesuffix(ANYTHING)
    text = "".join(
        _SPECIAL.sub(r"\\\g<0>", piece) if is_literal else "**" if piece in _SEVERAL else "*"
        for piece, is_literal in _pieces(directory)
    )
    if directory != path:
        return f"{text}/{{,**}}"
    if path.endswith(".so"):
        return f"{text}{{,.*}}"
    return f"{text}{{,/}}"
