"""An event loop that reads streams with events in turns, so that handshakes do not wait for thousands of them.

The usual loop handles everything that is ready before it looks again: the data of each of thousands of nodes, between
any two of the six or more steps in which another node is attached. The faster nodes send, or the slower this machine
is, the longer the others wait. Here, one turn of the loop reads a few of the streams that carry events, and everything
else that is ready. The kernel lists ready sockets in the order in which they were read last, so each gets its turn.
Note: asyncio registers a socket again when it pauses, and when a write has to wait; then it is polled like any other.
"""

import asyncio
import select
import selectors
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

_BESIDE_OTHERS, _ALONE = 16, 256
"""Streams with events that one turn reads: if anything else is ready, and otherwise."""
Result = TypeVar("Result")


def run(work: Coroutine[object, object, Result]) -> Result:
    """Do as asyncio.run, with an event loop that takes turns, where there is epoll."""
    if sys.platform != "linux":
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=TurnLoop) as runner:
        return runner.run(work)


def wait_for_turn(transport: asyncio.BaseTransport) -> None:
    """Read this connection only when it is its turn, if the running loop has turns."""
    loop, found = asyncio.get_running_loop(), transport.get_extra_info("socket")
    if sys.platform == "linux" and isinstance(loop, TurnLoop) and found is not None:
        loop.turns.wait_for_turn(found.fileno())


class _OpenFile(Protocol):
    def fileno(self) -> int:
        """Return its file descriptor."""
        ...


_File = int | _OpenFile
_KeyMap = Mapping[_File, selectors.SelectorKey]

if sys.platform == "linux":

    class _Keys(_KeyMap):
        """The keys of a TurnSelector, by file descriptor; those without turns also by file object."""

        def __init__(
            self,
            in_turns: dict[int, selectors.SelectorKey],
            usual: _KeyMap,
        ) -> None:
            self._in_turns, self._usual = in_turns, usual

        def __getitem__(self, fileobj: _File) -> selectors.SelectorKey:
            key = self._in_turns.get(fileobj) if isinstance(fileobj, int) else None
            return self._usual[fileobj] if key is None else key

        def __iter__(self) -> Iterator[_File]:
            yield from self._in_turns
            yield from self._usual

        def __len__(self) -> int:
            return len(self._in_turns) + len(self._usual)

    class TurnSelector(selectors.BaseSelector):
        """Sockets that wait for their turn are in an epoll of their own, which is one file of the usual selector."""

        def __init__(self) -> None:
            self._usual = selectors.EpollSelector()
            self._waiting = select.epoll()
            self._in_turns: dict[int, selectors.SelectorKey] = {}
            self._keys = _Keys(self._in_turns, self._usual.get_map())
            self._usual.register(self._waiting, selectors.EVENT_READ)

        def wait_for_turn(self, fd: int) -> None:
            """Read this one when it is its turn. Do nothing while there is something to write to it, too."""
            key = self._usual.get_map().get(fd)
            if key is not None and key.events == selectors.EVENT_READ:
                self._usual.unregister(fd)
                self._waiting.register(fd, select.EPOLLIN)
                self._in_turns[fd] = key

        def register(self, fileobj: _File, events: int, data: object = None) -> selectors.SelectorKey:
            """See the base class."""
            return self._usual.register(fileobj, events, data)

        def unregister(self, fileobj: _File) -> selectors.SelectorKey:
            """See the base class."""
            return self._leave(fileobj) or self._usual.unregister(fileobj)

        def modify(self, fileobj: _File, events: int, data: object = None) -> selectors.SelectorKey:
            """See the base class."""
            if (key := self._leave(fileobj)) is not None:
                return self._usual.register(key.fileobj, events, data)
            return self._usual.modify(fileobj, events, data)

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """See the base class."""
            ready = [found for found in self._usual.select(timeout) if found[0].fileobj is not self._waiting]
            if self._in_turns:
                turns = self._waiting.poll(0, _BESIDE_OTHERS if ready else _ALONE)
                keys = map(self._in_turns.get, [fd for fd, _ in turns])
                ready += [(key, selectors.EVENT_READ) for key in keys if key is not None]
            return ready

        def get_map(self) -> _KeyMap:
            """See the base class."""
            return self._keys

        def close(self) -> None:
            """See the base class."""
            self._waiting.close()
            self._usual.close()

        def _leave(self, fileobj: _File) -> selectors.SelectorKey | None:
            fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
            if fd < 0:  # it was closed before
                fd = next((key.fd for key in self._in_turns.values() if key.fileobj is fileobj), -1)
            key = self._in_turns.pop(fd, None)
            if key is not None:
                with suppress(OSError):  # it was closed before
                    self._waiting.unregister(fd)
            return key

    class TurnLoop(asyncio.SelectorEventLoop):
        """An event loop whose selector takes turns."""

        def __init__(self) -> None:
            self.turns = TurnSelector()
            super().__init__(self.turns)
