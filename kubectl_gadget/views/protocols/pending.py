"""What waits for an answer, until it comes, until it is too late, or until too much waits."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class PendingItem(Generic[T]):
    """Things in the order in which they began to wait; each once, told apart by identity or their own equality."""

    def __init__(self, most: int = 65536) -> None:
        self._most = most
        self._since: OrderedDict[T, int] = OrderedDict()

    def add(self, thing: T, time: int) -> None:
        """It waits from now on."""
        self._since[thing] = time

    def done(self, thing: T) -> None:
        """It waits no longer; nor need it have waited."""
        self._since.pop(thing, None)

    def expired(self, before: int) -> Iterator[T]:
        """Takes out those that have waited since `before` or longer, and the oldest when there are too many."""
        while self._since:
            thing, since = next(iter(self._since.items()))
            if since > before and len(self._since) <= self._most:
                return
            del self._since[thing]
            yield thing

    def rest(self) -> Iterator[T]:
        """Takes all out."""
        while self._since:
            yield self._since.popitem(last=False)[0]
