"""Items that wait for an answer, until it comes, until a time limit, or until too many wait."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class PendingItems(Generic[T]):
    """Items in the order in which they began to wait. Each is kept once, compared by identity or by its own
    equality."""

    def __init__(self, most: int = 65536) -> None:
        self._most = most
        self._since: OrderedDict[T, int] = OrderedDict()

    def add(self, thing: T, time: int) -> None:
        self._since[thing] = time

    def done(self, thing: T) -> None:
        """Remove the item, if present."""
        self._since.pop(thing, None)

    def expired(self, before: int) -> Iterator[T]:
        """Removes and yields items that have waited since `before` or longer, and the oldest if there are too many."""
        while self._since:
            thing, since = next(iter(self._since.items()))
            if since > before and len(self._since) <= self._most:
                return
            del self._since[thing]
            yield thing

    def rest(self) -> Iterator[T]:
        while self._since:
            yield self._since.popitem(last=False)[0]
