"""As answers.Answers, for gadgets whose records have call stacks: a record has lists of functions in their place."""

import time
from typing import Any

from kubectl_gadget.agent.sources.gadget_programs import prepare_unwinding
from kubectl_gadget.agent.symbols.gadget_stacks import Stacks, Symbols
from kubectl_gadget.agent.symbols.unwinding import Unwinding
from tests.bpf.answers import Answers
from tests.bpf.tracer import Tracer

LOST = ["[lost]"]


class StackAnswers(Answers):
    """`programs` are those to load instead of the first that the kernel takes."""

    def __init__(self, name: str, programs: tuple[str, ...] = (), **options: Any) -> None:
        options.setdefault("variables", {})["gadget_node_random"] = 4711
        super().__init__(name, **options)
        self._only = programs
        self._symbols = Symbols()
        self._unwinding: Unwinding | None = None
        self.warnings: list[str] = []
        self._functions: list[str] = []
        self._stacks: dict[int, list[str]] = {0: [], 1: LOST}

    def _open(self, programs: Any) -> Any:
        object = super()._open(self._only or programs)
        self._unwinds = prepare_unwinding(object)
        return object

    def __enter__(self) -> "StackAnswers":
        if self.gadget.kind == "stream":
            self._ring_bytes = 4 << 20
            Tracer.__enter__(self)
        else:
            super().__enter__()
        map = self.object.map("gadget_stacks")
        assert map is not None
        self.stacks = Stacks(map, self._symbols, with_offsets=False)
        if self._unwinds:
            self._unwinding = Unwinding(self.object, self.warnings.append)
        return self

    def __exit__(self, *error: Any) -> None:
        self._symbols.close()
        if self._unwinding:
            self._unwinding.close()
        if self.gadget.kind == "stream":
            Tracer.__exit__(self, *error)
        else:
            super().__exit__(*error)

    def watch(self, seconds: float) -> None:
        """Takes stacks as often as the session does."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)
            self._take_stacks()

    def take(self) -> list[dict[str, Any]]:
        records = self.answer_records()
        self._take_stacks()
        for record in records:
            for name in ("user_stack", "kernel_stack"):
                if name in record:
                    record[name] = self._stacks[record[name]]
        return records

    def answer_records(self) -> list[dict[str, Any]]:
        return super().take()

    def expect(self, pid: int) -> None:
        """Has the process unwound from its first sample on."""
        assert self._unwinding is not None
        self._unwinding.expect([pid])
        self._unwinding.turn(time.monotonic())

    def _take_stacks(self) -> None:
        if self._unwinding:
            self._unwinding.turn(time.monotonic())
        self.stacks.take(time.monotonic())
        if new := self.stacks.take_new(0):
            self._functions[new.first :] = [text.split("\t")[0] for text in new.frames]
            for id, numbers in new.stacks.items():
                self._stacks[id] = [self._functions[number] for number in numbers]
