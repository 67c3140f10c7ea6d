"""A run and its user: progress on standard error, and signals that end the run. Standard output is for events only.

Note: messages may contain text that came from a node, so control characters are escaped here too.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from kubectl_gadget.output.escape import escape

_MOST_NOTES = 100
"""of one node"""


class Progress:
    """Writes messages for the user, unless `quiet`; details only when `verbose`."""

    def __init__(self, stream: TextIO, quiet: bool = False, verbose: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._verbose = verbose
        self._noted: set[str] = set()
        self._notes: Counter[str] = Counter()
        """by node"""

    def say(self, message: str) -> None:
        """Writes one line, except when quiet."""
        if not self._quiet:
            self.warn(message)

    def node(self, node: str, message: str) -> None:
        """Writes one line about a node. Further lines of the message, which the node may have chosen, are indented, so
        that they do not look like messages of this program."""
        first, *others = message.splitlines() or [""]
        self.say("\n    ".join([f"{escape(node)}: {first}", *map(str.strip, others)]))

    def note(self, node: str, message: str) -> None:
        """Writes one line that similar nodes all report; only the first report is written."""
        if message in self._noted:
            return
        self._notes[node] += 1
        if self._notes[node] > _MOST_NOTES:
            message = f"it reports more than {_MOST_NOTES} messages; the rest are left out"
        if message not in self._noted or self._notes[node] == _MOST_NOTES + 1:
            self._noted.add(message)
            self.node(node, message)

    def detail(self, node: str, message: str) -> None:
        """Writes one line about a node, only when verbose."""
        if self._verbose:
            self.node(node, message)

    def debug(self, message: str) -> None:
        """Writes one line, only when verbose."""
        if self._verbose:
            self.say(message)

    def warn(self, message: str) -> None:
        """Writes one line, even when quiet."""
        for line in message.splitlines() or [""]:
            self._stream.write(escape(line) + "\n")
        self._stream.flush()


# The reaction of a run to signals: the first one ends it in order, a later one exits immediately.
#
# The trap: one request may arrive as several signals. `timeout` signals the process and then its process group, and a
# shell or terminal may add SIGHUP, so all signals within a second of the first count as the first. Also, `nohup`
# ignores SIGHUP for the program that it starts, and a shell script ignores SIGINT for what it starts with `&`, since a
# Ctrl-C is not meant for that. Python leaves such signals ignored, and so do we; SIGTERM always ends a run.


ONE_REQUEST_SECONDS = 1.0


def heeded(*names: str) -> list[signal.Signals]:
    """Returns the signals with these names that end a run: those that the system has and the program's parent did not
    tell it to ignore."""
    numbers = [signal.Signals[name] for name in names if hasattr(signal, name)]
    return [number for number in numbers if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN]


def how_to_end(verb: str = "stop") -> str:
    """Returns a clause that tells the user how to end the run."""
    return f"{'press Ctrl-C' if heeded('SIGINT') else f'run kill {os.getpid()}'} to {verb}"


def catch(interrupted: Callable[[int], object], *names: str) -> None:
    """Calls `interrupted` in the running event loop for each signal with one of these names that is heeded."""
    loop = asyncio.get_running_loop()
    for number in heeded(*names):
        try:
            loop.add_signal_handler(number, interrupted, number)
        except NotImplementedError:  # Windows' event loop; there a handler runs between two steps of the loop
            signal.signal(number, lambda caught, _: loop.call_soon_threadsafe(interrupted, caught))


def release(*names: str) -> None:
    """Ends what catch() began."""
    loop = asyncio.get_running_loop()
    for number in heeded(*names):
        try:
            loop.remove_signal_handler(number)
        except NotImplementedError:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


class Interrupts:
    """The signals of one run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.signal: int | None = None
        """the number of the first one; None: no signal so far"""
        self._clock = clock
        self._first_at = 0.0

    def take(self, number: int) -> bool:
        """Records a signal. Returns whether the user does not want to wait for an orderly end."""
        if self.signal is None:
            self.signal, self._first_at = number, self._clock()
            return False
        return self._clock() - self._first_at >= ONE_REQUEST_SECONDS
