"""Beside a run in its event loop: services, from before the first node is asked until after the last row, and signals.

Rows are shown in a thread of their own, so reactions to them have to be passed into the event loop.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubectl_gadget.background_tasks import Tasks

if TYPE_CHECKING:
    from kubectl_gadget.kube.requests import Api
    from kubectl_gadget.run.backlog import StepMark
    from kubectl_gadget.run.coverage import Coverage


@dataclass(frozen=True)
class Surroundings:
    """The things that a run provides to its services."""

    tasks: Tasks
    api: "Api | None"
    """None without a cluster"""
    attached: asyncio.Event = field(default_factory=asyncio.Event)
    """set when all nodes are attached that did not fail"""
    stop: Callable[[str], object] = lambda why: None
    """ends the run, for this reason"""
    mark: "Callable[[StepMark], object]" = lambda mark: None
    """puts a mark into the stream, and so into the recording"""
    complete_ns: Callable[[], int] = lambda: 0
    """returns when `attached` was set (wall time), as the run's coverage says it; 0: not yet"""
    covered: "Callable[[], Coverage | None]" = lambda: None
    """returns who has been traced so far; None: unknown, as in a replay"""
    phases: Callable[[], Mapping[str, str]] = dict
    """returns what nodes do that are neither attached nor failed"""


Service = Callable[[Surroundings], AbstractAsyncContextManager[object]]
"""The block is the run. An error that it raises at its start ends the run."""


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
