"""The events of a chunk of rows: those of plain connections in columns, all others one by one.

The trap: columns of a connection are its present state. So they are read before the next chunk is joined, and iterating
over the events makes objects of the connections, which costs more than all else.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from kubectl_gadget.flows.ends import CLOSE, OPERATIONS, REPORT
from kubectl_gadget.flows.flow import (
    BEGINNINGS,
    ENDINGS,
    FORWARDED,
    RESET,
    FlowEvent,
    Traffic,
)
from kubectl_gadget.flows.plain_flows import Integers, PlainConnections, PlainEvents
from kubectl_gadget.output.columns import JoinedColumns
from kubectl_gadget.rows.amounts import bytes_text, duration_texts
from kubectl_gadget.rows.vectors import Mask, different

T = TypeVar("T")
_WORDS = {number: BEGINNINGS.get(name) for name, number in OPERATIONS.items()}


class FlowEvents(Sequence[FlowEvent]):
    """Events in the order of their rows."""

    def __init__(self, known: PlainConnections, plain: PlainEvents, others: Sequence[tuple[int, FlowEvent]]) -> None:
        self.known = known
        self.plain = plain
        self.positions = [position for position, _ in others]
        self.others = [event for _, event in others]

    def __len__(self) -> int:
        return len(self.plain.slot) + len(self.others)

    @overload
    def __getitem__(self, place: int) -> FlowEvent: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[FlowEvent]: ...

    def __getitem__(self, place: int | slice) -> FlowEvent | Sequence[FlowEvent]:
        return self._made[place]

    def __iter__(self) -> Iterator[FlowEvent]:
        return iter(self._made)

    def merged(self, plain: Sequence[T], others: Sequence[T]) -> list[T]:
        """What was made of plain events and of the others, in the order of the events."""
        if not others:
            return list(plain)
        order = np.argsort(np.append(self.plain.position, self.positions), kind="stable")
        return list(map([*plain, *others].__getitem__, order.tolist()))

    @cached_property
    def flows(self) -> tuple[Integers, Integers]:
        """The slots of the connections that have plain events, and the place of each event's among them."""
        slots, places = different(self.plain.slot)
        return slots, places.astype(np.int64)

    def external(self) -> "FlowEvents":
        """The events of flows that do not stay within one pod or host."""
        known, slots = self.known, self.plain.slot
        within = known.one_address[slots] | known.one_pod[slots]  # none has a loopback address: plain_flows.py
        return self.select(~within, lambda event: not event.flow.is_internal)

    def select(self, plain: Mask, test: Callable[[FlowEvent], bool]) -> "FlowEvents":
        """These plain events, and those of the others for which the test is true."""
        others = [each for each in zip(self.positions, self.others, strict=True) if test(each[1])]
        if len(others) == len(self.others) and plain.all():
            return self
        return FlowEvents(self.known, self.plain.select(plain), others)

    def summaries(self) -> list[str]:
        plain = self.plain
        words = [begins[0] if (begins := _WORDS.get(number)) else "" for number in range(REPORT + 1)]
        counted = np.flatnonzero((plain.operation == CLOSE) | (plain.operation == REPORT))
        found = np.fromiter(words, object, len(words))[plain.operation]
        if len(counted):
            found[counted] = self._amounts(counted)
        summaries: list[str] = found.tolist()
        return summaries

    def _amounts(self, rows: Integers) -> npt.NDArray[np.object_]:
        """The summaries of these rows, which close a connection or report about it."""
        sent, received, ends, durations, operation = (
            column[rows]
            for column in (
                self.plain.sent,
                self.plain.received,
                self.plain.end,
                self.plain.duration,
                self.plain.operation,
            )
        )
        closes = operation == CLOSE
        joined = JoinedColumns(len(rows))
        hows = ["", *(f"{ENDINGS.get(end, RESET)[0]}, " for end in self.plain.ends)]
        joined.few(np.where(closes, ends + 1, 0), hows)
        for numbers, after in ((sent, " out, "), (received, " in")):
            amounts, codes = different(numbers)
            joined.few(codes, list(map(bytes_text, amounts.tolist())))
            joined.text(after)
        lasted, codes = different(np.where(closes & (durations >= 0), durations, -1))
        texts = [f", {text}" for text in duration_texts(np.maximum(lasted, 0))]
        if lasted[0] < 0:
            texts[0] = ""
        joined.few(codes, texts)
        return np.fromiter(joined.each_row(), object, len(rows))

    def kinds(self) -> tuple[Integers, tuple[Literal["new", "report", "close"], ...]]:
        """FlowEvent.kind of the plain events: a place in the words, and these."""
        return np.where(self.plain.operation == CLOSE, 2, self.plain.operation == REPORT), ("new", "report", "close")

    def one(self, place: int) -> FlowEvent:
        """A plain event."""
        plain = self.plain
        operation, flow = int(plain.operation[place]), self.known.as_flow(int(plain.slot[place]))
        time_ns, node = int(plain.time_ns[place]), plain.nodes[plain.node[place]]
        side = "client" if plain.is_client[place] else "server"
        make = partial(FlowEvent, time_ns, node, flow=flow, verdict=FORWARDED, observer=side)
        begins = _WORDS[operation]
        if begins is not None:
            return make("new", said=begins[0], tcp_flags=begins[1])
        said = Traffic(int(plain.sent[place]), int(plain.received[place]))
        if operation == REPORT:
            return make("report", said=said)
        how, flags = ENDINGS.get(plain.ends[plain.end[place]], RESET)
        duration = int(plain.duration[place]) if plain.duration[place] >= 0 else None
        said, error = said._replace(how=how, duration_ns=duration), plain.errors[plain.error[place]]
        return make("close", said=said, errno=error, duration_ns=duration, tcp_flags=flags)

    @cached_property
    def _made(self) -> list[FlowEvent]:
        return self.merged(list(map(self.one, range(len(self.plain.slot)))), self.others)
