"""Policies in this kernel, through the agent's own binding, without a session: what each call of a test matched.

with Enforcer(policy, enforce=True) as enforcer:
    …
    matches = enforcer.matches()
"""

import errno
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.maps import HashMap
from kubectl_gadget.agent.bpf.object import BpfObject, own_elf
from kubectl_gadget.agent.bpf.ring import Ring
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.policies.hook import PolicyHook
from kubectl_gadget.agent.policies.policy_source import PolicySource
from kubectl_gadget.errors import AgentError
from kubectl_gadget.gadgets.load import object_bytes
from kubectl_gadget.policies.compiler.policies import CompiledPolicies, Match, matches
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.model import Policy
from kubectl_gadget.wire.policy_messages import ScopeSpec
from tests.agent.node import node_context
from tests.bpf.tracer import CALLS, MACHINE, pid_level, split

_OWN_FAULT = re.compile(
    rf"^  \S+: ({'|'.join(os.strerror(n) for n in (errno.EINVAL, errno.EACCES, errno.E2BIG))})$", re.MULTILINE
)
"""A way whose program the verifier refused, for no reason that the kernel is known for."""
EVERYWHERE = ScopeSpec(pods=True, host=True)


class Enforcer:
    """In force between enter and exit, for every cgroup. `kinds`: only these of each hook's ways. `containers`: whose
    cgroups are whose, None for the host; then policies hold where they say."""

    def __init__(
        self,
        *policies: Policy,
        enforce: bool = False,
        allow_weaker: bool = False,
        kinds: tuple[str, ...] = (),
        pid: int | None = None,
        containers: Mapping[int, ContainerIdentity | None] | None = None,
    ) -> None:
        self._containers = containers or {}
        self.engine = CompiledPolicies(policies, CompilerOptions(enforce, allow_weaker))
        spec = self.engine.spec()
        hooks = spec.hooks
        if kinds:
            hooks = tuple(hook.replace(ways=tuple(way for way in hook.ways if way.kind in kinds)) for hook in hooks)
        scopes = spec.scopes if containers else (EVERYWHERE,) * len(self.engine.scopes)
        self._spec = spec.replace(hooks=hooks, scopes=scopes, ring_bytes=8 << 20)
        self._pid = os.getpid() if pid is None else pid

    def __enter__(self) -> "Enforcer":
        self._verdicts = HashMap("verdicts", 64)
        self._moved = BpfObject(own_elf("containers"), "containers", ())
        shared = {"gadget_containers": self._verdicts.fd}
        self._moved.reuse(shared)
        self._moved.load()
        shared["gadget_moved"] = self._moved.required_map("gadget_moved").fd
        node = {"gadget_node_pid_level": pid_level(), "gadget_filter_pid": self._pid}
        self.context = node_context(shared, node)
        self.context.calls = CALLS
        self.source = PolicySource(self._spec, object_bytes("policy", MACHINE), self.context)
        for cgroup, container in self._containers.items():
            self.source._profiles.set_owner(cgroup, container, True)
        self._data()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.source.close()
        self._moved.close()
        self._verdicts.close()

    @property
    def hooks(self) -> list[str]:
        """The way to each hook of the policies that was taken."""
        return self._hooks(False)

    @property
    def mirrors(self) -> list[str]:
        """The way to each hook that is there beside them, for calls of 32-bit programs."""
        return self._hooks(True)

    @property
    def attached(self) -> list[PolicyHook]:
        """All hooks that were loaded."""
        return self.source._hooks.hooks

    @property
    def ring(self) -> Ring:
        return self.source._output.ring

    def warnings(self) -> list[str]:
        """After a turn of the session."""
        self.context.callbacks.turn(time.monotonic())
        return self.context.warnings.take_all()

    def _hooks(self, mirrors: bool) -> list[str]:
        names = {hook.name for hook in self.engine.hooks if hook.mirrors == mirrors}
        return [hook.hook for hook in self.attached if hook.name in names]

    @property
    def lost(self) -> dict[str, Any]:
        return dict(self.source.stats().lost)

    def counts(self) -> dict[str, int]:
        """Of the only hook that the policies name."""
        names = {hook.name for hook in self.engine.hooks if not hook.mirrors}
        (counts,) = [hook.counts() for hook in self.attached if hook.name in names]
        return counts

    def matches(self) -> list[Match]:
        """All since the last call."""
        return [match for record in split(self._data()) for match in matches(record, self.engine.hooks)]

    def records(self) -> list[bytes]:
        """The same as they are."""
        return list(split(self._data()))

    def _data(self) -> bytes:
        ring = self.ring
        while not ring.settle():
            pass
        batch = ring.batch()
        data = bytes(batch)
        batch.release()
        ring.advance(len(data))
        return data


def pid_of(record: bytes) -> int:
    """In the head of a record."""
    return int(struct.unpack_from("<I", record, 16)[0])


@contextmanager
def in_force(*policies: Policy, **options: Any) -> Iterator[Enforcer]:
    """Skips the test when this kernel takes none of the ways, but not when it found fault with the program itself."""
    enforcer = Enforcer(*policies, **options)
    try:
        enforcer.__enter__()
    except AgentError as error:
        if _OWN_FAULT.search(str(error)):
            raise
        pytest.skip(str(error).replace("\n", " "))
    try:
        yield enforcer
    finally:
        enforcer.__exit__(None, None, None)
