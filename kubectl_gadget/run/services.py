"""Work beside a run, in its event loop: it starts before the first node is asked and ends after the last row.

Rows are shown in a thread of their own, so reactions to them have to be passed into the event loop.
"""

import asyncio
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
