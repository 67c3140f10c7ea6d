"""What policies record about processes at exec, kept by BPF programs and inherited by forked children.

The trap: iterators find the processes that already run, after the programs for new ones are attached, so that none is
missed.
"""

import os
from collections.abc import Callable, Iterable

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.kernel import refusal
from kubectl_gadget.agent.policies.hooks.hook import put_all, share
from kubectl_gadget.errors import AgentError

_REMEMBERING = ("on_exec", "on_fork")
_AT_START = ("on_running", "on_descendant")
"""Iterators, in this order."""


class RememberedProcesses:
    """Belongs to one session, or was taken over from another process. Without load() or adopt() it does nothing."""

    def __init__(self) -> None:
        self._object: BpfObject | None = None
        self._adopted: list[int] = []

    @property
    def links(self) -> list[int]:
        """File descriptors of the links that keep its programs attached."""
        if self._object is None:
            return self._adopted
        return [fd for program in _REMEMBERING for fd in self._object.link_fds(program)]

    def load(self, followed: bytes, elf: bytes, prepare: Callable[[BpfObject], None], first: BpfObject) -> None:
        """Attaches the programs, and finds existing processes. `followed` is from RUN's `processes`, `first` the object
        that owns the maps. Raises AgentError."""
        self._object = object = BpfObject(elf, "policy", [*_REMEMBERING, *_AT_START])
        try:
            prepare(object)
            share(object, first)
            table = object.required_map("policy_prefixes")
            table.resize(max(1, len(followed) // (table.key_size + table.value_size)))
            object.set_constant("policy_follows", bool(followed))
            object.load()
            put_all(table, followed)
            table.freeze()
            for program in (*_REMEMBERING, *_AT_START):
                object.attach(program)
            for program in _AT_START:
                object.iterate(program)
        except Failure as failure:
            raise AgentError(
                f"the state of processes at their exec cannot be kept: {refusal.reason(failure)[0]}"
            ) from None

    def adopt(self, links: Iterable[int]) -> None:
        """Continues with programs that another process attached."""
        self._adopted = list(links)

    def detach(self) -> None:
        """Stops its programs, unless their links are pinned."""
        if self._object is not None:
            self._object.detach()
        while self._adopted:
            os.close(self._adopted.pop())

    def close(self) -> None:
        if self._object is not None:
            self._object.close()
            self._object = None
