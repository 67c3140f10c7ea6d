"""Kind `policy`: policies of a session, with all of their hooks as one source of events.

It does not know policies, only programs, their hooks, constants, and entries of maps (docs/protocol.md, "Policies").
The agent's own reactions to events (kill, requests) happen as soon as the events have settled, long before
they are sent, and also while the client reads nothing.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Mapping

from kubectl_gadget.agent.bpf.links import StoppedPrograms
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.policies.hook_set import FileSearch, HookSet, load_hooks
from kubectl_gadget.agent.policies.log import FreshRecords
from kubectl_gadget.agent.policies.outside_requests import OutsideRequests
from kubectl_gadget.agent.policies.scopes import Profiles
from kubectl_gadget.agent.sources.output import Channel
from kubectl_gadget.agent.sources.source import NodeContext
from kubectl_gadget.agent.symbols.gadget_stacks import Stacks
from kubectl_gadget.errors import FrameError
from kubectl_gadget.wire.agent_messages import GadgetStats, StartedGadget
from kubectl_gadget.wire.client_messages import Update
from kubectl_gadget.wire.policy_messages import PolicySpec
from kubectl_gadget.wire.policy_record import read

# Kills from user space: the process of each event that a policy would have denied or killed, through its pidfd.
#
# For kernels in which no program can do this, and for comparison. The kill comes some time after the event. The trap:
# the PID may belong to another process by then, so a pidfd is opened before the check that the process was forked at
# the time in the event.

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ProcessKiller:
    """`masks` has the selectors that kill, by the hook's number."""

    def __init__(self, masks: Mapping[int, int], warn: Callable[[str], None]) -> None:
        self._masks = masks
        self.killed = 0
        self.gone = 0
        """events whose process had ended already"""
        self._warn = warn

    def react(self, record: bytes) -> None:
        """Kills the event's process, if a matched selector says so."""
        found = read(record)
        mask = self._masks.get(found.hook, 0)
        if any(mask >> bit & 1 for bit in found.selectors):
            self._kill(found.exec.pid, found.exec.started)

    def add_to(self, stats: GadgetStats) -> GadgetStats:
        """Returns the statistics with the counts of these reactions added."""
        return stats.replace(killed=self.killed, gone=self.gone)

    def _kill(self, pid: int, started: int) -> None:
        try:
            held = os.pidfd_open(pid)
        except OSError:
            self.gone += 1
            return
        try:
            # A process that is exiting still accepts signals, but ends anyway.
            ticks = procfs.start_ticks(pid)
            if not ticks or abs(ticks - started // _TICK) > 1:
                self.gone += 1
                return
            signal.pidfd_send_signal(held, signal.SIGKILL)
            self.killed += 1
        except ProcessLookupError:
            self.gone += 1
        except PermissionError:
            self._warn("it may not kill processes of other users: its container needs the capability KILL")
        finally:
            os.close(held)


class PolicySource:
    """`spec` is RUN's gadget of the kind `policy`, `elf` its object."""

    due = math.inf

    def __init__(self, spec: PolicySpec, elf: bytes, context: NodeContext) -> None:
        self.name = spec.name
        self._hooks = HookSet()
        self._fresh = FreshRecords()
        warn = context.warnings.add
        self._stopped = StoppedPrograms(spec.name, warn)
        load_hooks(spec, elf, context, self._hooks)
        self._output = self._hooks.open_output(context.containers.numbers)
        try:
            self._reactions = _reactions(spec, context)
            self._stacks = None
            if spec.stacks:
                self._stacks = Stacks(self._hooks.hooks[0].map("gadget_stacks"), context.symbols, with_offsets=True)
            self._profiles = Profiles(spec, self._hooks.hooks, self._hooks.without, warn)
            self._profiles.begin(context.containers.is_open)
            context.callbacks.each_turn.append(FileSearch(self._hooks.hooks, context.wants_cgroup).turn)
            context.containers.follow(self._profiles)
        except BaseException:
            self.close()
            raise

    @property
    def fd(self) -> int:
        return self._output.fd

    def started(self) -> StartedGadget:
        return StartedGadget(name=self.name, programs=self._hooks.programs())

    def stats(self) -> GadgetStats:
        found = self._output.stats().replace(hooks=self._hooks.counts())
        for reaction in self._reactions:
            found = reaction.add_to(found)
        return self._stopped.add_to(found, self._hooks.stopped())

    def update(self, update: Update) -> None:
        """Applies labels of pods and of the node."""
        if update.labels is None:
            raise FrameError(f"UPDATE for {self.name} has no `labels`")
        self._profiles.update(update.labels)

    def settle(self, is_blocked: bool) -> bool:
        settled = self._output.ring.settle()
        for record in self._fresh.of(self._output.ring) if self._reactions else ():
            for reaction in self._reactions:
                reaction.react(record)
        if self._stacks:
            self._stacks.take(time.monotonic())
        return settled

    def send(self, channel: Channel) -> int:
        if self._stacks:
            channel.send_stacks(self._stacks)
        return channel.send_ring(self._output.ring)

    @property
    def is_quiet(self) -> bool:
        return self._output.ring.is_quiet and not self._stacks

    @property
    def empty(self) -> bool:
        return not len(self._output.ring.batch())

    def detach(self) -> None:
        self._hooks.detach()

    def close(self) -> None:
        self._output.close()
        self._hooks.close()


def _reactions(spec: PolicySpec, context: NodeContext) -> list[ProcessKiller | OutsideRequests]:
    """Returns the reactions to events that the agent itself carries out."""
    found: list[ProcessKiller | OutsideRequests] = []
    if spec.kill:
        found.append(ProcessKiller(spec.kill, context.warnings.add))
    if spec.requests:
        requests = OutsideRequests(spec.requests, context.warnings.add)
        context.callbacks.after_last.append(requests.finish)
        found.append(requests)
    return found
