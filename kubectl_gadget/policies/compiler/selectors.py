"""The selectors of one hook, from all policies: each is one bit in what the kernel compares.

Valid policies that this engine cannot carry out are rejected here; errors give the place in the policy.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.language import ARGUMENT_TYPES
from kubectl_gadget.policies.model import ENFORCING, Action, Argument, Hook, Policy, Scope, Selector, UserProbe
from kubectl_gadget.wire.policy_record import OVERRIDDEN, REPLACED

# TrackSock and UntrackSock: which socket an action refers to, and where events are attributed to a socket's owner.
#
# A policy that tracks sockets has programs of its own at all its hooks: events there belong to the socket's owner, to
# whom the policy has to apply, and not to the process that runs. The owner of a socket that a hook tracks
# unconditionally is not looked up, since it might be that of an earlier socket at the same address.

SOCKET_MASKS = {"TrackSock": "track", "UntrackSock": "untrack"}
TRACKING_ACTIONS = tuple(SOCKET_MASKS)
RETURNED_SOCKET = -1
"""Instead of an argument's position: the function's return value."""


def tracks_sockets(policy: Policy) -> bool:
    return any(kind == "TrackSock" for hook in policy.hooks for kind in _kinds(hook))


def socket_position(hook: Hook, action: Action) -> int:
    """The position, among the hook's arguments, of the socket that an action refers to. Raises UsageError."""
    for place, argument in enumerate(hook.arguments):
        if argument.index == action.socket and ARGUMENT_TYPES[argument.type].group == "socket":
            return place
    what = f"argSock {action.socket} is not an argument that is a sock, a socket or an skb"
    raise UsageError(f"{action.place}: {action.kind}: {what}")


def tracked_sockets(hook: Hook, at_return: bool) -> set[int]:
    """The positions of sockets that the hook tracks whichever selector matches; RETURNED_SOCKET may be among them."""
    found = {RETURNED_SOCKET} if at_return and hook.return_argument_action == "TrackSock" else set()
    each = [
        {socket_position(hook, action) for action in selector.all_actions if action.kind == "TrackSock"}
        for selector in hook.selectors
    ]
    return found | (set.intersection(*each) if each else set())


def check_sockets(hook: Hook) -> None:
    """Raises UsageError when an action names no socket."""
    for action in hook.all_actions:
        if action.kind in TRACKING_ACTIONS:
            socket_position(hook, action)
    returned = hook.return_argument
    if hook.return_argument_action in TRACKING_ACTIONS and (
        returned is None or ARGUMENT_TYPES[returned.type].group != "socket"
    ):
        what = "needs a returnArg that is a sock, a socket or an skb"
        raise UsageError(f"{hook.place}: returnArgAction {hook.return_argument_action} {what}")


def _kinds(hook: Hook) -> Iterable[str]:
    yield hook.return_argument_action
    yield from (action.kind for action in hook.all_actions)


# FollowFD, UnfollowFD, CopyFD: which argument is the file, and which hooks match followed files only.
#
# The engine follows the kernel's object of an open file. A duplicated descriptor therefore needs no action (CopyFD),
# and a file is forgotten when its last descriptor is closed, whatever UnfollowFD says before. The trap: in a policy
# that follows files, an `fd` argument matches followed files only, or each write to a pipe would be an event; such
# policies have always been read this way.


FOLLOWING_ACTIONS = ("FollowFD", "UnfollowFD", "CopyFD")
FILE_ID = 11
"""The number within a file's value that identifies it while it is followed (POLICY_FILE_ID)."""
_FILES = ("file", "fd", "kiocb")


def follows_files(policy: Policy) -> bool:
    return any(action.kind == "FollowFD" for hook in policy.hooks for action in hook.all_actions)


def file_position(hook: Hook, action: Action) -> int:
    """The position, among the hook's arguments, of the file that an action refers to. Raises UsageError."""
    named = (action.name, action.descriptor) if action.kind == "FollowFD" else (action.descriptor, action.name)
    places = {argument.index: place for place, argument in enumerate(hook.arguments)}
    found = [places[index] for index in named if index in places]
    for place in found:
        if hook.arguments[place].type in _FILES:
            return place
    for place in found:
        if ARGUMENT_TYPES[hook.arguments[place].type].group == "number":
            return place
    what = "argFd and argName do not name arguments that are a file or a descriptor"
    raise UsageError(f"{action.place}: {action.kind}: {what}")


def with_files(hook: Hook) -> tuple[Argument, ...]:
    """The hook's arguments; numbers that an action uses as descriptors are read as descriptors."""
    arguments = list(hook.arguments)
    for action in hook.all_actions:
        if action.kind in FOLLOWING_ACTIONS:
            place = file_position(hook, action)
            if arguments[place].type not in _FILES:
                arguments[place] = replace(arguments[place], type="fd")
    return tuple(arguments)


def followed_only(policy: Policy, hook: Hook) -> list[int]:
    """The positions of the arguments that have to be followed files before any selector of the hook can match."""
    if not follows_files(policy) or any(action.kind == "FollowFD" for action in hook.all_actions):
        return []
    return [place for place, argument in enumerate(with_files(hook)) if argument.type == "fd"]


# Rejects valid policies that this engine cannot carry out; errors give the place in the policy.
#
# Each function raises UsageError. Some things are rejected only in installed policies; they work while a client runs.


IN_PROGRAMS = ("uprobe", "usdt")
"""Kinds of hooks that are in a program and not in the kernel."""
REQUESTS = ("GetUrl", "DnsLookup")
_WHILE_IT_RUNS = "kubectl gadget observe -f or enforce -f, which support it while they run"
_PROGRAMS_TYPES = ("string", "char_buf", "sockaddr", "sockaddr_un", "nop", "auto")
"""Types that are not numbers and can be read from a program's own memory."""
_KINDS = (
    "Post",
    "NoPost",
    *ENFORCING,
    "Set",
    *REQUESTS,
    *TRACKING_ACTIONS,
    *FOLLOWING_ACTIONS,
)


def check_can_be_installed(hook: Hook, selector: Selector) -> None:
    """Rejects whatever does not outlive the agent that started it."""
    for action in selector.all_actions:
        named = action.kind in (*TRACKING_ACTIONS, *FOLLOWING_ACTIONS, *REQUESTS)
        if named or action.kernel_stack or action.user_stack or action.file_hash:
            what = str(action.kind) if named else "a stack or hash"
            raise UsageError(
                f"{action.place}: {what} cannot be installed, since it needs a running agent", _WHILE_IT_RUNS
            )
    if any(argument.max_data for argument in hook.arguments):
        what = "maxData cannot be installed: log lines cannot be that long"
    elif hook.kind == "loader":
        what = "loader cannot be installed, since it needs a running agent"
    elif hook.kind in IN_PROGRAMS:
        what = f"a {hook.kind} cannot be installed, since an agent has to look for its file"
    else:
        return
    raise UsageError(f"{hook.place}: {what}", _WHILE_IT_RUNS)


def check_actions(selector: Selector, hashes: bool) -> None:
    """Rejects unsupported actions and combinations. `hashes`: the hook has a file that imaHash can use."""
    for action in selector.all_actions:
        if action.kind in REQUESTS and any(other.kind == "NoPost" for other in selector.all_actions):
            what = f"{action.kind} cannot be used with NoPost: the agent acts on the event"
            raise UsageError(f"{action.place}: {what}", "remove NoPost")
        if action.kind not in _KINDS:
            raise UsageError(f"{action.place}: the action {action.kind} is not supported yet")
        if action.file_hash and not hashes:
            what = "imaHash is for lsmhooks with a file or a linux_binprm among the first three arguments"
            raise UsageError(f"{action.place}: {what}")


def check_override(hook: Hook, selector: Selector) -> None:
    """Rejects Override with 0 at a kernel function (0 lets the call go on), and Override at a program's function
    whose return is traced."""
    for action in selector.actions:
        if action.kind != "Override":
            continue
        if not hook.probe and not action.error:
            what = "Override with an argError of 0 is not supported, since hooks let a call through with 0"
            raise UsageError(f"{action.place}: {what}", "an error, argError: -1")
        if hook.probe and hook.returns:
            what = "Override at a function whose return is traced would corrupt the program's stack"
            raise UsageError(f"{action.place}: {what}", "a hook of its own, without `return`")


def check_returns(hooks: Iterable[Hook]) -> None:
    """Rejects an override of a program's function when another policy has a hook at its return."""
    found = list(hooks)
    watched: set[UserProbe | None] = {hook.probe for hook in found if hook.returns} - {None}
    for hook in found:
        for selector in hook.selectors if hook.probe in watched else ():
            if any(action.kind == "Override" for action in selector.actions):
                what = f"Override at {hook.target}, whose return a policy traces, would corrupt its stack"
                raise UsageError(f"{selector.place}: {what}")


def check_program(hook: Hook) -> None:
    """Rejects argument types and settings that exist only in the kernel."""
    for argument in (*hook.arguments, *([hook.return_argument] if hook.return_argument else [])):
        if argument.type not in _PROGRAMS_TYPES and ARGUMENT_TYPES[argument.type].group != "number":
            raise UsageError(f"{hook.place}: a {argument.type} is a kernel type, which programs do not have")
        if argument.resolve and not (argument.btf_type and hook.probe and hook.probe.btf_path):
            what = "`resolve` uses the kernel's BTF, which does not describe programs"
            remedy = "set btfPath to a file with the program's BTF, and btfType to the first type"
            raise UsageError(f"{hook.place}: {what}", remedy)
        if argument.btf_module:
            raise UsageError(f"{hook.place}: btfTypeModule names a kernel module, but this hook is in a program")


# The selectors of one hook, from all policies: each is one bit in what the kernel compares.
#
# A hook with `returns` is compiled twice: once for the call, which can still be denied, and once for the return, where
# only events are sent.


_EPERM = 1
_SIGKILL = 9
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
        """Return True if the kernel carries out the policy's actions."""
        return self.enforce and policy.options.mode != "monitor"

    def reacts(self, policy: Policy) -> bool:
        """Return True if user space reacts to the policy's events."""
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
        """Return True if it denies a call or sends a signal, if its actions are enforced."""
        return any(action.kind in ENFORCING for action in self.selector.all_actions)

    @property
    def posts(self) -> bool:
        """Return True if there is an event, which may report what would have been done."""
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
        """Return the result of calls: the value of Override, or -EPERM where the process is killed, since a call is
        denied before the kill. 0: calls are not denied."""
        overriding = [action for action in self.selector.actions if action.kind == "Override"]
        override = overriding[0].error if overriding else 0
        if self.hook.probe:
            # At a probe a signal does not deny the call, and registers may make the function return 0.
            if overriding and overriding[0].instead:
                return REPLACED
            return (override or OVERRIDDEN) if overriding else 0
        return override or (-_EPERM if self.signal_sent() == _SIGKILL else 0)

    def signal_sent(self, at_return: bool = False) -> int:
        """The signal that is sent; 0: none. At a return, only the return actions count: the call's actions are done
        already."""
        for action in self.selector.return_actions if at_return else self.selector.all_actions:
            if action.signal_sent:
                return action.signal_sent
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
    check_sockets(hook)
    for number, selector in numbered:
        workloads = tuple(entry.scopes.index(scope) for scope in workloads_of(selector))
        followed = tuple(followed_only(policy, hook))
        reacts = options.reacts(policy)
        found = SelectorAtHook(policy, hook, number, selector, entry.scope, enforced, workloads, followed, reacts)
        if hook.returns and not entry.at_call and enforced and not hook.probe:
            error = 0 if options.allow_weaker else found.denial
            found = replace(found, error=error, signal=found.signal_sent() if acts_at_call(selector) else 0)
        if options.names_process:
            check_can_be_installed(hook, selector)
        check_override(hook, selector)
        check_actions(selector, hashes=hashed_argument(hook) is not None)
        yield found


def acts_at_call(selector: Selector) -> bool:
    """Return True if it denies the call or sends a signal before the call is done."""
    return any(action.kind in ENFORCING for action in selector.actions)


def workloads_of(selector: Selector) -> list[Scope]:
    """Return the scopes of `matchWorkloads`; all have to hold."""
    filters = (filter for filter in selector.filters if filter.subject.kind == "workload")
    return [value for filter in filters for value in filter.values if isinstance(value, Scope)]


def hashed_argument(hook: Hook) -> Argument | None:
    """The argument whose file imaHash hashes; None: there is none."""
    if hook.kind != "lsm":
        return None
    found = (one for one in hook.arguments if one.type in ("file", "linux_binprm") and not one.resolve)
    return next((one for one in found if one.index <= _LAST_HASHED), None)
