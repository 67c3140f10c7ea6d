"""An event loop that reads streams with events in turns, so that handshakes do not wait for thousands of them.

The usual loop handles everything that is ready before it looks again: the data of each of thousands of nodes, between
any two of the six or more steps in which another node is attached. The faster nodes send, or the slower this machine
is, the longer the others wait. Here, one turn of the loop reads a few of the streams that carry events, and everything
else that is ready. The kernel lists ready sockets in the order in which they were read last, so each gets its turn. The
trap: asyncio registers the same socket again when it pauses, and when a write has to wait; then it is a usual one.
"""

import asyncio
import select
import selectors
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

_BESIDE_OTHERS, _ALONE = 16, 256
"""How many streams with events are read in one turn, if anything else is ready, and otherwise."""
Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """As asyncio.run, with an event loop that takes turns, where there is epoll."""
    if sys.platform != "linux":
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TurnSelector())) as runner:
        return runner.run(work)


def wait_for_turn(transport: asyncio.BaseTransport) -> None:
    """From now on, this connection is read when it is its turn, if the running loop has such."""
    selector = getattr(asyncio.get_running_loop(), "_selector", None)
    found = transport.get_extra_info("socket")
    if sys.platform == "linux" and isinstance(selector, TurnSelector) and found is not None:
        selector.wait_for_turn(found.fileno())


if sys.platform == "linux":

    class TurnSelector(selectors.EpollSelector):
        """Sockets that wait for their turn are in an epoll of their own, which is one file of the usual one."""

        _selector: select.epoll
        _fd_to_key: dict[int, selectors.SelectorKey]

        def __init__(self) -> None:
            super().__init__()
            self._waiting = select.epoll()
            self._in_turns: set[int] = set()
            self._selector.register(self._waiting.fileno(), select.EPOLLIN)

        def wait_for_turn(self, fd: int) -> None:
            """Reads this one when it is its turn. Does nothing while there is something to write to it, too."""
            key = self._fd_to_key.get(fd)
            if key is not None and key.events == selectors.EVENT_READ and fd not in self._in_turns:
                self._selector.unregister(fd)
                self._waiting.register(fd, select.EPOLLIN)
                self._in_turns.add(fd)

        def unregister(self, fileobj: Any) -> selectors.SelectorKey:
            """See the base class."""
            self._leave(self.get_key(fileobj).fd)
            return super().unregister(fileobj)

        def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            """See the base class."""
            fd = self.get_key(fileobj).fd
            if self._leave(fd):
                self._selector.register(fd, select.EPOLLIN)
            return super().modify(fileobj, events, data)

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """See the base class."""
            ready = super().select(timeout)
            if self._in_turns:
                turns = self._waiting.poll(0, _BESIDE_OTHERS if ready else _ALONE)
                keys = map(self._fd_to_key.get, [fd for fd, _ in turns])
                ready += [(key, selectors.EVENT_READ) for key in keys if key is not None]
            return ready

        def close(self) -> None:
            """See the base class."""
            self._waiting.close()
            super().close()

        def _leave(self, fd: int) -> bool:
            if fd not in self._in_turns:
                return False
            self._in_turns.discard(fd)
            try:
                self._waiting.unregister(fd)
            except OSError:
                return False  # it was closed before
            return True
