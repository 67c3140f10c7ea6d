"""Functions that a user specified as FILE:SYMBOL: their offsets in a file, and their numbers in programs.

The numbers are cookies of uprobes; the names are in the object's map `gadget_functions`. The trap: a return probe
crashes a Go program, because Go moves its stacks, so such files are refused.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.symbols.elf_functions import is_go, is_ifunc, matching_functions, nearest_functions

Libraries = Sequence[tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]]

_OFFSET = re.compile("0x[0-9a-fA-F]{1,15}")


class RequestedFunctions:
    """The functions for the uprobe programs of one object, which need not be loaded yet."""

    def __init__(self, object: BpfObject, warn: Callable[[str], None]) -> None:
        self._object = object
        self._warn = warn
        self._numbers: dict[str, int] = {}
        self._at: dict[int, int] = {}
        """the functions' numbers, by offset in the file of the last places()"""
        self._seen: set[str] = set()

    @staticmethod
    def may_be(file: str, name: str) -> bool:
        """Whether a file of this name may be the requested one, given as a path or as a library's name."""
        wanted = file.rpartition("/")[2]
        return name == wanted or ("/" not in file and name.startswith((f"{wanted}.", f"{wanted}-")))

    def places(self, path: str, seen: str, libraries: Libraries) -> dict[str, list[int]]:
        """Returns offsets in the file at `path` by program, return probes first. `seen` is its path as processes see
        it. Raises OSError."""
        self._at.clear()
        found: dict[str, list[int]] = {}
        for files, functions in libraries:
            for file in files:
                if not (seen == file if "/" in file else self.may_be(file, seen.rpartition("/")[2])):
                    continue
                self._seen.add(file)
                if is_go(path):
                    self._warn(f"{seen} is a Go program, which return probes would crash, so it is skipped")
                    return {}
                for symbol, programs in functions.items():
                    self._add(path, seen, file, symbol, programs, found)
        return found

    def cookies(self, offsets: list[int]) -> list[int]:
        """Returns the numbers of the functions that the last places() found at these offsets."""
        return [self._at[offset] for offset in offsets]

    def unseen(self, files: Collection[str]) -> list[str]:
        """Returns those of the files that no process has mapped yet."""
        return [file for file in files if file not in self._seen]

    def _add(
        self, path: str, seen: str, file: str, symbol: str, programs: tuple[str, ...], found: dict[str, list[int]]
    ) -> None:
        if _OFFSET.fullmatch(symbol):
            offset = int(symbol, 16)
            at = {symbol: offset} if offset < os.stat(path).st_size else {}
        else:
            at = matching_functions(path, symbol)
        if not at:
            near = "" if _OFFSET.fullmatch(symbol) else nearest_functions(path, symbol)
            self._warn(f"{seen} has no function {symbol}{near and f'; {near}?'}")
        if is_ifunc(path, symbol):
            self._warn(f"{seen} chooses one of several {symbol} for the processor (IFUNC); its calls cannot be traced")
        taken = {offset for offsets in found.values() for offset in offsets}
        # Two names for one address are one function, which gets the shorter name.
        for name, offset in sorted(at.items(), key=lambda item: (len(item[0]), item[0])):
            number = self._number(f"{file.rpartition('/')[2]}:{name}") if offset not in taken else None
            if number is None:
                continue
            taken.add(offset)
            self._at[offset] = number
            for program in programs:
                found.setdefault(program, []).append(offset)

    def _number(self, name: str) -> int | None:
        if name in self._numbers:
            return self._numbers[name]
        names = self._object.required_map("gadget_functions")
        if len(self._numbers) >= names.entries:
            self._warn(f"more than {names.entries} functions match; the rest are skipped")
            return None
        # Of a long name, the end is kept, since it differs.
        names.set_text(len(self._numbers), name if len(name) < names.value_size else name[1 - names.value_size :])
        return self._numbers.setdefault(name, len(self._numbers))
