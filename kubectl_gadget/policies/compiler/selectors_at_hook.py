"""The selectors of one hook, from all policies: each is one bit in what the kernel compares.

The trap: a hook with `returns` is compiled twice: once for the call, which can still be denied, and once for the
return, where only events are sent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kubectl_gadget.policies.compiler import file_following, refusals, socket_tracking
from kubectl_gadget.policies.compiler.refusals import REQUESTS
from kubectl_gadget.policies.model import Action, Argument, Hook, Policy, Scope, Selector
from kubectl_gadget.wire.policy_events.policy_record import OVERRIDDEN, REPLACED

_EPERM = 1
_SIGKILL = 9
_ACTING = ("Sigkill", "Signal", "Override")
_LAST_HASHED = 2


@dataclass(frozen=True)
class CompilerOptions:
    """`enforce`: actions are carried out; otherwise selectors only post events. `allow_weaker`: a node that cannot deny
    a call may send a signal instead, or do nothing."""

    enforce: bool = False
    allow_weaker: bool = False
    reaction: Literal["", "kill", "notify"] = ""
    """what user space does instead of the kernel: "kill": agents kill; "notify": the client acts"""
    names_process: bool = False
    """each record names the program, for readers that do not track processes"""
    follows: bool = False
    """some policy follows files; set by the engine"""
    calls_out: bool = True
    """agents make the requests of GetUrl and DnsLookup"""

    def enforces(self, policy: Policy) -> bool:
        """Whether the kernel carries out the policy's actions."""
        return self.enforce and policy.options.mode != "monitor"

    def reacts(self, policy: Policy) -> bool:
        """Whether user space reacts to the policy's events."""
        return bool(self.reaction) and policy.options.mode != "monitor"


@dataclass(frozen=True)
class SelectorAtHook:
    """One bit: a selector of a policy's hook. `number` is None for a hook without selectors."""

    policy: Policy
    hook: Hook
    number: int | None
    selector: Selector
    scope: int
    enforced: bool
    """actions are carried out, not only reported"""
    workloads: tuple[int, ...] = ()
    """scopes that have to hold as well, by number"""
    followed_only: tuple[int, ...] = ()
    """positions of the arguments that have to be followed files"""
    reacts: bool = False
    """user space reacts to its events"""
    error: int = 0
    """at a return: what the call was made to return, where every way in force can deny; 0: nothing"""
    signal: int = 0
    """at a return: the signal that was sent at the call; 0: none"""

    @property
    def acts(self) -> bool:
        """Whether it denies a call or sends a signal, if its actions are enforced."""
        return any(action.kind in _ACTING for action in self.selector.all_actions)

    @property
    def posts(self) -> bool:
        """Whether there is an event, which may report what would have been done."""
        if not self.enforced and (self.acts or self.written):
            return True
        return all(action.kind != "NoPost" for action in self.selector.all_actions)

    @property
    def written(self) -> Action | None:
        """The action that writes to an argument of a static probe."""
        return next((action for action in self.selector.actions if action.kind == "Set"), None)

    @property
    def limit(self) -> Action | None:
        return next((action for action in self.selector.all_actions if action.rate_limit is not None), None)

    @property
    def denial(self) -> int:
        """What calls return: the value of Override, or -EPERM where the process is killed, since a call is denied
        before the kill. 0: calls are not denied."""
        overriding = [action for action in self.selector.actions if action.kind == "Override"]
        override = overriding[0].error if overriding else 0
        if self.hook.probe:
            # At a probe a signal does not deny the call, and registers may make the function return 0.
            if overriding and overriding[0].instead:
                return REPLACED
            return (override or OVERRIDDEN) if overriding else 0
        return override or (-_EPERM if self.signal_sent() == _SIGKILL else 0)

    def signal_sent(self, at_return: bool = False) -> int:
        """The signal that is sent; 0: none. At a return, only the return actions count: those of the call are done
        already."""
        for action in self.selector.return_actions if at_return else self.selector.all_actions:
            if action.kind in ("Sigkill", "Signal"):
                return _SIGKILL if action.kind == "Sigkill" else action.signal
        return 0

    @property
    def requests(self) -> tuple[tuple[str, str], ...]:
        """The network requests that agents make when it matches: ("url", …) or ("name", …)."""
        return tuple(
            ("url", action.url) if action.kind == "GetUrl" else ("name", action.domain_name)
            for action in self.selector.all_actions
            if action.kind in REQUESTS
        )


@dataclass
class PolicyAtHook:
    """One policy's entry at this hook."""

    policy: Policy
    hook: Hook
    scope: int
    at_call: bool
    """for a hook with `returns`: this is the part at the call, which posts no events"""
    scopes: Sequence[Scope]
    """of all policies, by number"""


def selectors_at(entry: PolicyAtHook, options: CompilerOptions) -> Iterator[SelectorAtHook]:
    """The selectors of a policy's hook, in their order. Raises UsageError for anything that the engine does not
    support."""
    hook, policy = entry.hook, entry.policy
    enforced = options.enforces(policy)
    numbered: list[tuple[int | None, Selector]] = [*enumerate(hook.selectors)] or [(None, Selector(place=hook.place))]
    socket_tracking.check(hook)
    for number, selector in numbered:
        workloads = tuple(entry.scopes.index(scope) for scope in workloads_of(selector))
        followed = tuple(file_following.followed_only(policy, hook))
        reacts = options.reacts(policy)
        found = SelectorAtHook(policy, hook, number, selector, entry.scope, enforced, workloads, followed, reacts)
        if hook.returns and not entry.at_call and enforced and not hook.probe:
            error = 0 if options.allow_weaker else found.denial
            found = replace(found, error=error, signal=found.signal_sent() if acts_at_call(selector) else 0)
        if options.names_process:
            refusals.check_can_be_installed(hook, selector)
        refusals.check_override(hook, selector)
        refusals.check_actions(selector, hashes=hashed_argument(hook) is not None)
        yield found


def acts_at_call(selector: Selector) -> bool:
    """Whether it denies the call or sends a signal before the call is done."""
    return any(action.kind in _ACTING for action in selector.actions)


def workloads_of(selector: Selector) -> list[Scope]:
    """The scopes of `matchWorkloads`, all of which have to hold."""
    filters = (filter for filter in selector.filters if filter.subject.kind == "workload")
    return [value for filter in filters for value in filter.values if isinstance(value, Scope)]


def hashed_argument(hook: Hook) -> Argument | None:
    """The argument whose file imaHash hashes; None: there is none."""
    if hook.kind != "lsm":
        return None
    found = (one for one in hook.arguments if one.type in ("file", "linux_binprm") and not one.resolve)
    return next((one for one in found if one.index <= _LAST_HASHED), None)
