"""Kind `policy`: policies of a session, with all of their hooks as one source of events.

It does not know policies, only programs, their hooks, constants, and entries of maps (docs/protocol.md, "Policies").
The trap: the agent's own reactions to events (kill, requests) happen as soon as the events have settled, long before
they are sent, and also while the client reads nothing.
"""

import math
import time

from kubectl_gadget.agent.bpf.links import StoppedPrograms
from kubectl_gadget.agent.policies.hooks.hook_loader import load_hooks
from kubectl_gadget.agent.policies.hooks.hook_set import FileSearch, HookSet
from kubectl_gadget.agent.policies.log import FreshRecords
from kubectl_gadget.agent.policies.outside_requests import OutsideRequests
from kubectl_gadget.agent.policies.reaction import ProcessKiller
from kubectl_gadget.agent.policies.selector_profiles import Profiles
from kubectl_gadget.agent.sources.channel import Channel
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.symbols.gadget_stacks import Stacks
from kubectl_gadget.errors import FrameError
from kubectl_gadget.wire.agent_messages import GadgetStats, StartedGadget
from kubectl_gadget.wire.client_messages import Update
from kubectl_gadget.wire.policy_messages import PolicySpec


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
