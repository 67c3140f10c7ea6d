"""Which stacks are named at once, and which are named and sent later, many at a time."""

import struct
from collections.abc import Collection, Iterator
from typing import Any, ClassVar, cast

import pytest

from kubectl_gadget.agent.symbols import gadget_stacks
from kubectl_gadget.agent.symbols.gadget_stacks import Stacks, Symbols
from kubectl_gadget.agent.symbols.user_symbols import ResolvedFrame

Waiting = dict[int, tuple[int, int, tuple[int, ...]]]
"""By id: process, program, addresses."""


class _Batches:
    """In place of the kernel's map."""

    waiting: ClassVar[Waiting] = {}

    def __init__(self, *_: object) -> None: ...

    def take(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        stacks, _Batches.waiting = _Batches.waiting, {}
        yield (
            [struct.pack("<Q", id) for id in stacks],
            [
                struct.pack(f"<IIQ{len(addresses)}Q", pid, len(addresses), program, *addresses)
                for pid, program, addresses in stacks.values()
            ],
        )


class _Symbols:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def of_process(self, pid: int, program: int, addresses: tuple[int, ...]) -> list[ResolvedFrame]:
        self.asked.append(f"process {pid}")
        return [ResolvedFrame(f"u{address}", "/bin/a", 0) for address in addresses]

    def of_kernel(self, stacks: Collection[tuple[int, tuple[int, ...]]]) -> list[list[ResolvedFrame]]:
        self.asked.append(f"kernel, {len(stacks)} stacks")
        return [[ResolvedFrame(f"k{address}", "", 0) for address in addresses] for _, addresses in stacks]


@pytest.fixture
def symbols(monkeypatch: pytest.MonkeyPatch) -> _Symbols:
    monkeypatch.setattr(gadget_stacks, "Batches", _Batches)
    return _Symbols()


def test_processes_are_named_at_once_and_the_kernel_when_stacks_are_sent(
    symbols: _Symbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(gadget_stacks.time, "monotonic", lambda: now)
    stacks = Stacks(cast(Any, None), cast(Symbols, symbols), with_offsets=False)
    assert stacks.is_quiet
    for turn in range(2):
        _Batches.waiting = {10 + turn: (7, 1, (turn + 1, 3)), 20 + turn: (0, 0, (4,))}
        stacks.take(now + turn / 20)
    assert symbols.asked == ["process 7", "process 7"]
    assert stacks.is_quiet
    now += 1.0
    assert not stacks.is_quiet
    sent = stacks.take_new(0)
    assert sent
    assert symbols.asked[2:] == ["kernel, 2 stacks"]
    functions = [text.split("\t")[0] for text in sent.frames]
    assert {id: [functions[number] for number in numbers] for id, numbers in sent.stacks.items()} == {
        10: ["u1", "u3"],
        11: ["u2", "u3"],
        20: ["k4"],
        21: ["k4"],
    }
    assert stacks.is_quiet
    assert stacks.take_new(0) is None


def test_a_few_stacks_wait_for_more(symbols: _Symbols) -> None:
    stacks = Stacks(cast(Any, None), cast(Symbols, symbols), with_offsets=False)
    _Batches.waiting = {id: (0, 0, (id,)) for id in range(5000)}
    stacks.take(gadget_stacks.time.monotonic())
    assert not stacks.is_quiet
