"""Arranges processes below their parents, with connecting lines.

The trap: a parent may be missing because its container was not selected, or because it ended in the meantime; its
children are then at the top level. PIDs are meaningful on one node only.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.members import owner_texts
from kubectl_gadget.rows.rows import Rows

_DEEPEST = 2 * 64
"""Maximum characters in front of a name. Containers may nest processes to any depth; deeper ones are shown at this
depth."""


def as_tree(rows: Rows, lines: bool) -> Rows:
    """The rows in tree order; children keep the order of the rows. `lines`: `comm` has lines in front."""
    names = rows.collect(lambda batch: owner_texts(batch, "node").values())
    pids = list(zip(names, rows.collect(_numbers("pid")), strict=True))
    parents = list(zip(names, rows.collect(_numbers("ppid")), strict=True))
    there = set(pids)
    children: dict[Any, list[int]] = {}
    for row, parent in enumerate(parents):
        key = parent if parent in there and parent != pids[row] else None
        children.setdefault(key, []).append(row)
    order, prefixes = list[int](), list[str]()
    for row, prefix in _walk(children, pids):
        order.append(row)
        prefixes.append(prefix)
    arranged = rows.take(np.array(order, np.intp))
    if not lines:
        return arranged
    # Part by part, in the order in which the rows of each part come.
    places = np.arange(len(order)) if arranged.order is None else np.argsort(arranged.order, kind="stable")
    start = 0
    for part in arranged.parts:
        mine = [prefixes[place] for place in places[start : start + len(part)].tolist()]
        comms = [prefix.encode() + comm for prefix, comm in zip(mine, part.raw("comm").tolist(), strict=True)]
        part.give("comm", np.array(comms, np.bytes_))
        start += len(part)
    return arranged


def _walk(children: dict[Any, list[int]], keys: list[Any]) -> Iterator[tuple[int, str]]:
    """Each row with the lines in front of it. Parents in a cycle, which should not exist, are left out."""
    waiting = [(row, "", "") for row in reversed(children.get(None, []))]
    while waiting:
        row, own, below = waiting.pop()
        yield row, own
        found = children.pop(keys[row], [])
        deeper = len(below) < _DEEPEST
        waiting += [
            (child, below + ("└─" if last else "├─"), below + ("  " if last else "│ ") if deeper else below)
            for child, last in reversed([(child, child == found[-1]) for child in found])
        ]


def _numbers(field: str) -> Any:
    def read(batch: Batch) -> list[int]:
        numbers: list[int] = batch.raw(field).tolist()
        return numbers

    return read
