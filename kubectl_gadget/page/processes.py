"""The processes of a run, as a forest: what each ran, opened and connected to, and how it ended.

A process is known by its node and pid at a time, since only some gadgets have more; an exec makes a new entry, whose
parent is the previous program's. Where no gadget reports processes, these are the processes that did something.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kubectl_gadget.observe.processes import join_arguments
from kubectl_gadget.rows.vectors import Integers

_MOST = 20_000
_MOST_NAMES = 64
_NAMES_SHOWN = 4
_LONGEST, _LONGEST_NAME = 240, 100


@dataclass(slots=True, eq=False)
class Program:
    """One program that a process ran, or a process whose program is not known."""

    number: int
    node: str
    pid: int
    where: str
    command: str
    began_ns: int
    parent: "Program | None" = None
    ended_ns: int = 0
    end: str = ""
    """exit 1, SIGKILL; empty: it ended well, or has not ended"""
    rows: int = 0
    failed: int = 0
    names: dict[str, Counter[str]] = field(default_factory=dict)
    """what it did, by kind: opened, wrote, connected, asked for"""

    def note(self, kind: str, name: str, count: int) -> None:
        known, name = self.names.setdefault(kind, Counter()), _cut(name, _LONGEST_NAME)
        known[name if name in known or len(known) < _MOST_NAMES else "…"] += count


class Forest:
    """Takes rows in about the order of time."""

    def __init__(self) -> None:
        self._all: list[Program] = []
        self._by_pid: dict[tuple[str, int], list[Program]] = {}
        self._orphans: dict[tuple[str, int], list[Program]] = {}
        self.left_out = 0
        """programs beyond the limit"""

    def began(self, node: str, pid: int, ppid: int, where: str, command: str, began_ns: int, is_fork: bool) -> None:
        """Takes a process that forked, executed a program, or was there before."""
        before = self._last(node, pid)
        if before is not None and not before.ended_ns and before.end == "fork" and not is_fork:
            before.command, before.end = _cut(command, _LONGEST), ""
            return
        found = self._add(node, pid, where, command, began_ns)
        if found is None:
            return
        found.end = "fork" if is_fork else ""
        if before is not None and not before.ended_ns:
            found.parent, before.ended_ns, before.end = before.parent, began_ns, ""
        elif (parent := self._last(node, ppid)) is not None:
            found.parent = parent
            if is_fork:
                found.command = parent.command
        elif ppid:
            self._orphans.setdefault((node, ppid), []).append(found)
        for child in self._orphans.pop((node, pid), ()):
            child.parent = found

    def ended(self, node: str, pid: int, where: str, comm: str, ended_ns: int, how: str) -> None:
        """Takes the end of a process; `how` is empty when all was well."""
        found = self._last(node, pid)
        if found is None or found.ended_ns:
            found = self._add(node, pid, where, f"({comm})", ended_ns)
        if found is not None:
            found.ended_ns, found.end = ended_ns, how

    def programs(
        self, nodes: Sequence[str], codes: Integers, pids: Integers, times: Integers, wheres: Sequence[str], comms: Any
    ) -> Iterator[tuple[Program, Integers]]:
        """Yield programs with the places of their rows. `comms()` returns the names of the rows' threads."""
        keys = pids.astype(np.int64) * max(1, len(nodes)) + codes
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        bounds = [0, *(np.flatnonzero(ranked[1:] != ranked[:-1]) + 1).tolist(), len(order)]
        names: list[str] | None = None
        for start, end in itertools.pairwise(bounds):
            rows = order[start:end]
            if not len(rows):
                continue
            first = int(rows[0])
            node, pid = nodes[codes[first]], int(pids[first])
            known = self._by_pid.get((node, pid))
            if not known:
                names = comms() if names is None else names
                made = self._add(node, pid, wheres[first], f"({names[first] or '-'})", int(times[first]))
                if made is None:
                    continue
                known = [made]
            if len(known) == 1:
                yield known[0], rows
                continue
            starts = np.array([program.began_ns for program in known])
            at = np.maximum(np.searchsorted(starts, times[rows], side="right") - 1, 0)
            for place in np.unique(at).tolist():
                yield known[place], rows[at == place]

    def _last(self, node: str, pid: int) -> Program | None:
        known = self._by_pid.get((node, pid))
        return known[-1] if known else None

    def _add(self, node: str, pid: int, where: str, command: str, began_ns: int) -> Program | None:
        if len(self._all) >= _MOST:
            self.left_out += 1
            return None
        found = Program(len(self._all), node, pid, where, _cut(command, _LONGEST), began_ns)
        self._all.append(found)
        self._by_pid.setdefault((node, pid), []).append(found)
        return found

    def document(self, most: int, offset_ns: int) -> dict[str, object]:
        """Return the forest as JSON: those that failed or did most, and what is above them."""
        chosen: set[int] = set()
        for program in sorted(self._all, key=lambda one: (not _failed(one), -one.rows)):
            line = list(_line(program))
            if len(chosen) + sum(one.number not in chosen for one in line) > most:
                break
            chosen.update(one.number for one in line)
        children = Counter(one.parent.number for one in self._all if one.parent is not None)
        shown = [one for one in self._all if one.number in chosen]
        ids = {one.number: place for place, one in enumerate(shown)}
        return {
            "seen": len(self._all) + self.left_out,
            "failed": sum(map(_failed, self._all)),
            "list": [
                {
                    "id": ids[one.number],
                    "parent": None if one.parent is None else ids[one.parent.number],
                    "pid": one.pid,
                    "node": one.node,
                    "where": one.where,
                    "command": one.command,
                    "began": _ms(one.began_ns - offset_ns),
                    "ended": _ms(one.ended_ns - offset_ns) if one.ended_ns else None,
                    "end": "" if one.end == "fork" else one.end,
                    "rows": one.rows,
                    "failed": one.failed,
                    "children": children[one.number],
                    "did": {
                        kind: {"seen": len(names), "times": names.total(), "most": _most(names)}
                        for kind, names in one.names.items()
                    },
                }
                for one in shown
            ],
        }


def command_of(args: Sequence[str] | None, path: str | None, comm: str | None) -> str:
    """Return a command line for people."""
    if args:
        return join_arguments(tuple(args))
    return path or f"({comm or '-'})"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _most(names: Counter[str]) -> list[list[object]]:
    """Return the most frequent names; "…" stands for the rest."""
    found = names.most_common(_NAMES_SHOWN + 1)
    return [[name, number] for name, number in found if name != "…"][:_NAMES_SHOWN]


def _failed(program: Program) -> bool:
    return bool(program.end) and program.end != "fork"


def _line(program: Program) -> Iterator[Program]:
    seen: set[int] = set()
    one: Program | None = program
    while one is not None and one.number not in seen:
        seen.add(one.number)
        yield one
        one = one.parent


def _ms(ns: int) -> int:
    return round(ns / 1e6)
