"""Maps that the sources of a session share: some exist from the start, others are made when a source first needs them.

The trap: a set of descendants has to be filled before the programs that read it are attached, so it is made before the
source's object is loaded.
"""

import time
from collections.abc import Callable, Mapping

from kubectl_gadget.agent.answers.network_refusals import Refusals
from kubectl_gadget.agent.containers.descendants import Descendants
from kubectl_gadget.errors import AgentError

_CHECK_SECONDS = 1.0
"""Between two checks whether a set of descendants was too small."""


class SharedMaps:
    """`of_containers` are the initial maps, by name; `pid_level` is the depth of the agent's PID namespace."""

    def __init__(self, of_containers: Mapping[str, int], pid_level: int, warn: Callable[[str], None]) -> None:
        self.of_containers = of_containers
        self._pid_level = pid_level
        self._warn = warn
        self._refusals: Refusals | None = None
        self._descendants: dict[int, Descendants] = {}
        self._next_check = 0.0

    def descendants(self, pid: int) -> int:
        """Returns a map's descriptor for gadgets limited to this process and its descendants. Raises AgentError."""
        if pid not in self._descendants:
            self._descendants[pid] = Descendants(pid, self._pid_level)
        return self._descendants[pid].fd

    def refusals(self) -> int | None:
        """Returns the descriptor of a map of what other agents' network policies refuse; None, with a warning, when
        this kernel does not support it."""
        if self._refusals is None:
            try:
                self._refusals = Refusals(self._warn)
            except AgentError as error:
                self._warn(str(error))
                return None
            self._refusals.turn(time.monotonic())
        return self._refusals.fd

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic()."""
        if self._refusals:
            self._refusals.turn(now)
        if now >= self._next_check:
            self._next_check = now + _CHECK_SECONDS
            for one in self._descendants.values():
                if warning := one.warning():
                    self._warn(warning)

    def close(self) -> None:
        if self._refusals:
            self._refusals.close()
        for one in self._descendants.values():
            one.close()
