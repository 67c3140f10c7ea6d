"""Forgets followed files at their last close, by any process (bpf/include/gadget/files/followed_file.h).

The trap: a policy may have its own hook where files are closed, which has to run first. The kernel runs trampolines in
reverse order of attaching, but tracepoints in that order, as the agent's system call dispatcher does.
"""

from collections.abc import Callable
from contextlib import ExitStack

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.syscall_programs import ALL, SyscallDispatcher, SyscallObject
from kubectl_gadget.errors import AgentError

MAPS = ("gadget_followed", "gadget_followed_count")
_FIRST = (("released",),)
_LAST = (
    ("close_begins", "close_range_begins", "dup3_begins", "thread_ends", "dup2_begins"),
    # arm64 has no dup2; close_range exists since Linux 5.9.
    ("close_begins", "close_range_begins", "dup3_begins", "thread_ends"),
)


class FollowedFiles:
    """`prepare` sets up an object that was opened. Raises AgentError when the kernel accepts none of the programs."""

    def __init__(self, elf: bytes, prepare: Callable[[BpfObject], None]) -> None:
        self._elf = elf
        self._prepare = prepare
        self._object: BpfObject | None = None
        self._why = ""

    def before(self) -> BpfObject | None:
        """Call it before the first hook is loaded. Returns an object whose maps the hooks must share, or None."""
        self._try(_FIRST, None)
        return self._object

    def after(self, calls: SyscallDispatcher | None) -> None:
        """Call it after the last hook was attached. `calls` is the hooks' dispatcher; None: makes one, which runs
        after it."""
        if self._object is None:
            self._try(_LAST, calls)
        if self._object is None:
            raise AgentError(f"the last close of files cannot be seen on this node: {self._why}")
        self._elf = b""

    def stopped(self) -> dict[str, str]:
        """As BpfObject.stopped()."""
        return self._object.stopped() if self._object else {}

    def detach(self) -> None:
        if self._object:
            self._object.detach()

    def close(self) -> None:
        if self._object:
            self._object.close()
            self._object = None

    def _try(self, sets: tuple[tuple[str, ...], ...], calls: SyscallDispatcher | None) -> None:
        for programs in sets:
            try:
                with ExitStack() as undo:
                    object = SyscallObject(self._elf, "policy", programs, calls, ALL)
                    undo.callback(object.close)
                    self._prepare(object)
                    object.load()
                    for program in programs:
                        object.attach(program)
                    undo.pop_all()
            except Failure as failure:
                self._why = str(failure)
            else:
                self._object = object
                return
