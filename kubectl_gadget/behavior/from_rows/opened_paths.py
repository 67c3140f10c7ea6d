"""The paths that a program opens in one way, with directories of many names as DIR/*.

A directory becomes DIR/* when more different names of it are opened than the rules allow, and DIR/* then stands for
everything below. The trap: the result must not depend on the order of opens, and a hostile program may open millions of
names; so a directory that has become DIR/* forgets its names at once, and the topmost such directory wins.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from kubectl_gadget.behavior.fact_patterns import ANYTHING, stands_alone
from kubectl_gadget.behavior.facts import READ
from kubectl_gadget.behavior.from_rows.generalization import Generalizer
from kubectl_gadget.behavior.from_rows.sightings import Sighting

_WILD = "*"


@dataclass
class _Directory:
    names: dict[str, "_Directory"] = field(default_factory=dict)
    seen: Sighting | None = None
    """of the path that ends here"""
    everything: Sighting | None = None
    """set once the directory has become DIR/*"""


class OpenedPaths:
    """Paths with what is known about each. Relative paths are kept as they are."""

    def __init__(self, generalizer: Generalizer, access: str = READ) -> None:
        self._generalizer = generalizer
        self._access = access
        self._root = _Directory()
        self._others: dict[str, Sighting] = {}

    def add(self, path: str, seen: Sighting) -> bool:
        """Adds a generalized path, or a pattern of another OpenedPaths. Returns whether the path stands for itself."""
        if (
            not path.startswith("/")
            or self._generalizer.is_sensitive(path)
            or (not path.endswith(ANYTHING) and stands_alone(f"{self._access} {path}"))
        ):
            self._others[path] = self._others[path].plus(seen) if path in self._others else seen
            return True
        here, parts = self._root, path.split("/")[1:]
        for depth, name in enumerate(parts):
            if here.everything is not None:
                here.everything = here.everything.plus(seen)
                return False
            if name == _WILD and depth == len(parts) - 1:
                self._close(here, seen)
                return False
            following = here.names.get(name)
            if following is None:
                following = here.names[name] = _Directory()
                if self._is_many(here, parts[:depth]):
                    self._close(here, seen)
                    return False
            here = following
        # A directory that is DIR/* may be opened itself.
        here.seen = seen if here.seen is None else here.seen.plus(seen)
        return True

    def __iter__(self) -> Iterator[tuple[str, Sighting]]:
        yield from self._others.items()
        yield from _walk(self._root, "")

    def _is_many(self, here: _Directory, parts: list[str]) -> bool:
        rules = self._generalizer.rules
        return len(here.names) > rules.most_names > 0 and f"/{'/'.join(parts)}" not in rules.never

    def _close(self, here: _Directory, seen: Sighting) -> None:
        for _, found in _walk(here, ""):
            if found is not here.seen:
                seen = seen.plus(found)
        here.names, here.everything = {}, seen


def _walk(here: _Directory, path: str) -> Iterator[tuple[str, Sighting]]:
    if here.seen is not None:
        yield path or "/", here.seen
    if here.everything is not None:
        yield path + ANYTHING, here.everything
    for name, following in here.names.items():
        yield from _walk(following, f"{path}/{name}")
