"""The baselines that advice is made from: their workloads, and the paths of their facts as rules need them."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kubectl_gadget.behavior.baseline import is_baseline, read_baseline
from kubectl_gadget.behavior.comparison import ANYTHING
from kubectl_gadget.behavior.facts import Behavior, Fact, FactKind, Unit, merge
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.inventory import Workload

# Reads the baselines that advice is made from, and says how completely their containers were watched.


def read_baselines(names: Sequence[str]) -> Behavior | None:
    """The baselines in these files; None: all files are recordings. Raises UsageError if there are both."""
    found = [name for name in names if "://" not in name and is_baseline(Path(name))]
    if found and len(found) != len(names):
        raise UsageError("--from takes recordings or baselines, and not both")
    return merge(read_baseline(Path(name)).behavior for name in found) if found else None


def units_by_workload(behavior: Behavior) -> list[tuple[Workload, list[Unit]]]:
    found: dict[Workload, list[Unit]] = {}
    for unit in sorted(behavior.coverage, key=str):
        found.setdefault(unit.workload, []).append(unit)
    return list(found.items())


def file_name(workload: Workload) -> str:
    """The name of the container's file, without extension."""
    return "_".join(filter(None, (workload.namespace, workload.kind.lower(), workload.name)))


def gaps(behavior: Behavior, unit: Unit) -> Iterator[str]:
    """Says what the facts of a container may lack."""
    coverage = behavior.coverage[unit]
    if not coverage.complete_runs:
        yield f"  It was not watched completely: {'; '.join(coverage.incomplete)}"


def not_looked_at(behavior: Behavior, kind: FactKind) -> list[Unit]:
    """The containers that were not watched for facts of this kind."""
    return [unit for unit in sorted(behavior.coverage, key=str) if kind not in behavior.coverage[unit].kinds]


# Converts the paths in facts to other notations: globs of AppArmor, and whole paths or prefixes.


_PIECE = re.compile(r"\\x[0-9a-f]{2}|\\[\\*<]|<[a-z]+>|[^\\<]+|.", re.DOTALL)
_LIBRARY = re.compile(r"/lib/[^/]+\.so(\.[0-9]+)?")
"""a library in any folder for the system's libraries (generalization_rules.yaml)"""
_INTERPRETER = re.compile(r"/(python|pypy|node|nodejs|perl|ruby|php|java|sh|bash|dash|ash|ksh|zsh)([0-9.]|<version>)*$")
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
    """True if it is one path"""


def _pieces(path: str) -> Iterator[tuple[str, bool]]:
    """Its parts, and whether each is literal. Of the other parts, only the position is known."""
    for found in _PIECE.finditer(path):
        piece = found.group()
        if piece.startswith("\\"):
            yield (piece[1:], True) if len(piece) == 2 else (piece, False)
        else:
            yield piece, not (piece.startswith("<") and piece.endswith(">"))


def is_path(text: str) -> bool:
    """True if it is a path, and nothing in it can end a rule or a line."""
    return text.startswith("/") and text.isprintable() and ".." not in text.split("/")


def without_applet(program: str, multicall: Collection[str]) -> str:
    """The file of a program: of `/bin/busybox sh`, /bin/busybox; of `/bin/sh /run.sh`, /bin/sh."""
    file, _, applet = program.rpartition(" ")
    if applet and file.rpartition("/")[2] in multicall:
        return file
    first, _, script = program.partition(" ")
    return first if script.startswith(("/", "-")) and _INTERPRETER.search(first) else program


def interpreter(fact: Fact) -> str:
    """The interpreter of an executed script, if the fact's row has it; else empty."""
    file = str(fact.evidence.get("exe") or "")
    return file if fact.kind is FactKind.PROGRAM and is_path(file) else ""


def target(path: str) -> Target:
    """The path, or the prefix of all its paths."""
    directory = path.removesuffix(ANYTHING)
    if _LIBRARY.fullmatch(path):
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


def glob(path: str, is_written: bool = False) -> str:
    """The same as a pattern of AppArmor, which also covers a directory of this name."""
    if not is_written and _LIBRARY.fullmatch(path):
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
