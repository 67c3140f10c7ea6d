"""View `deadlock`: finds cycles in the orders in which the threads of a process lock their mutexes.

A step means that a thread held one mutex and requested another. A cycle of steps is a potential deadlock if every step
is of a different thread, and if no two steps hold a common mutex, which would keep them from happening at the same
time. There may be very many cycles, so the search is limited in length and effort, and each set of mutexes is reported
once.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.views import RowWriter, Stage

_MOST_PROCESSES = 1024
MOST_STEPS = 50_000
"""Maximum steps of a process; beyond it, its steps are dropped and collected again."""
_LONGEST = 6
_MOST_VISITS = 20_000


class LockRequest(NamedTuple):
    """A thread that holds `source` requests `target`."""

    source: int
    target: int
    thread: int
    held: frozenset[int]
    """mutexes that the thread holds, including `source`"""
    head: bytes
    values: dict[str, int]


class _Process:
    def __init__(self) -> None:
        self._steps: dict[int, dict[int, list[LockRequest]]] = {}
        self._count = 0
        self._reported: set[frozenset[int]] = set()
        self.circles = 0

    def add(self, step: LockRequest) -> list[LockRequest]:
        """Adds a step. Returns the steps of a cycle that it closes, starting with it; none if there is no unreported
        cycle."""
        if self._count >= MOST_STEPS:
            self._steps.clear()
            self._count = 0
        known = self._steps.setdefault(step.source, {}).setdefault(step.target, [])
        known.append(step)
        self._count += 1
        self._visits = 0
        for circle in self._paths_back(step, [step]):
            mutexes = frozenset(each.source for each in circle)
            if mutexes not in self._reported:
                self._reported.add(mutexes)
                self.circles += 1
                return circle
        return []

    def _paths_back(self, first: LockRequest, path: list[LockRequest]) -> Iterator[list[LockRequest]]:
        """Paths from the end of `path` back to its start, using only threads that are not in it yet."""
        here = path[-1].target
        for target, steps in self._steps.get(here, {}).items():
            if target != first.source and (len(path) + 1 >= _LONGEST or any(target == each.source for each in path)):
                continue
            for step in steps:
                self._visits += 1
                if self._visits > _MOST_VISITS:
                    return
                if any(step.thread == each.thread or not step.held.isdisjoint(each.held) for each in path):
                    continue
                if target == first.source:
                    yield [*path, step]
                else:
                    yield from self._paths_back(first, [*path, step])


class Deadlock(Stage):
    """The view's stage (stage.py)."""

    def __init__(self, gadget: Gadget, parameters: Mapping[str, object]) -> None:
        self._writer = RowWriter(gadget.record)
        self._head_bytes = gadget.record.field("circle").offset
        self._processes: OrderedDict[tuple[int, int], _Process] = OrderedDict()

    def rows(self, sent: Batch, complete_until: int) -> bytes:
        for process, time, step in self._read(sent):
            if circle := process.add(step):
                for number, each in enumerate(circle, 1):
                    numbers = {"circle": process.circles, "step": number, "steps": len(circle)}
                    self._writer.add(each.head, time, {**each.values, **numbers})
        return self._writer.take()

    def _read(self, sent: Batch) -> Iterator[tuple[_Process, int, LockRequest]]:
        names = ("timestamp", "pid", "process", "tid", "from", "to", "from_address", "to_address")
        columns = [sent.raw(name).tolist() for name in (*names, "from_stack", "to_stack")]
        others = zip(*(sent.raw(f"other{number}").tolist() for number in (1, 2, 3, 4)), strict=True)
        memory = sent.buffer.bytes.data
        for start, row, more in zip(sent.starts.tolist(), zip(*columns, strict=True), others, strict=True):
            time, pid, process, thread, source, target, holds, wants, held_stack, wanted_stack = row
            values = {"holds": holds, "wants": wants, "held_stack": held_stack, "wanted_stack": wanted_stack}
            held = frozenset(filter(None, (source, *more)))
            head = bytes(memory[start : start + self._head_bytes])
            yield self._process(pid, process), time, LockRequest(source, target, thread, held, head, values)

    def _process(self, pid: int, first_seen: int) -> _Process:
        key = pid, first_seen
        if key not in self._processes:
            self._processes[key] = _Process()
            if len(self._processes) > _MOST_PROCESSES:
                self._processes.popitem(last=False)
        self._processes.move_to_end(key)
        return self._processes[key]
