"""NotifyEnforcer without notifications: the calls that enforcers deny become hooks on the calls themselves.

The other engine that implements this field decides at `raw_syscalls/sys_enter` and leaves a note for a second program,
which denies. Ours has one program per hook that decides and denies. Each call therefore gets the selectors that concern
it, with Override and the signal; nothing has to be cleaned up. The trap: the result is the same only where the
selectors look at the process and at the call's number and first argument, as such policies do, or where the hook is at
the call itself; other policies are rejected.
"""

from dataclasses import replace

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.model import Action, Hook, HookFilter, Policy, Selector, SystemCall

ENTRY, EXIT = "raw_syscalls/sys_enter", "raw_syscalls/sys_exit"
_KINDS = ("tracepoint", "raw_tracepoint")
_FUNCTIONS = ("kprobe", "fentry")
_FIRST_PARAMETER = 5
"""The field of ENTRY that holds a call's arguments."""
_NOTICES = ("NotifyEnforcer", "CleanupEnforcerNotification")
_SIGKILL = 9


def without_notices(policy: Policy) -> Policy:
    """The policy in the form that the engine can enforce. Raises UsageError where the result would not be the same."""
    hooks: list[Hook] = []
    for hook in policy.hooks:
        kinds = {action.kind for action in hook.all_actions}
        if not kinds & set(_NOTICES):
            hooks.append(hook)
        elif "NotifyEnforcer" in kinds and hook.kind in _FUNCTIONS:
            hooks.append(_at_function(hook, policy))
        elif "NotifyEnforcer" in kinds:
            hooks += _on_calls(hook, policy)
        elif hook.target != EXIT:
            raise UsageError(f"{hook.place}: CleanupEnforcerNotification is only for {EXIT}")
    return policy if hooks == list(policy.hooks) else replace(policy, hooks=tuple(hooks))


def _at_function(hook: Hook, policy: Policy) -> Hook:
    """The same hook, which denies by itself; an enforcer has to cover the hook's own call."""
    if hook.generated:
        is_enforced = hook.generated in policy.enforcer_generated
    elif hook.syscall:
        is_enforced = SystemCall(hook.target.removeprefix("sys_"), hook.abi) in policy.enforcer_calls
    else:
        is_enforced = hook.target in policy.enforcer_calls
    if not is_enforced:
        what = f"no enforcer covers {hook.target or 'this list'}, so a notification would deny a later call"
        raise UsageError(f"{hook.place}: {what}", f"{hook.target or 'the list'} among the calls of spec.enforcers")
    return replace(hook, selectors=tuple(_selector(selector, True) for selector in hook.selectors))


def _on_calls(hook: Hook, policy: Policy) -> list[Hook]:
    """One hook for each call that a selector concerns, in the order of the calls."""
    if hook.kind not in _KINDS or hook.target != ENTRY:
        what = f"NotifyEnforcer is for functions and for {ENTRY}, where a call begins, not for {hook.target}"
        raise UsageError(f"{hook.place}: {what}", "Override on a hook of the call itself: a kprobe, or lsmhooks")
    if policy.enforcer_generated:
        raise UsageError(f"{hook.place}: enforcers with lists that nodes generate are not supported", "name the calls")
    for call in policy.enforcer_calls:
        if not isinstance(call, SystemCall):
            what = f"the enforcer of {call} cannot be notified: {ENTRY} is about system calls"
            raise UsageError(f"{hook.place}: {what}", "Override on a hook of its own (lsmhooks)")
    enforced = [call for call in policy.enforcer_calls if isinstance(call, SystemCall)]
    split = [_split(selector, hook) for selector in hook.selectors]
    named = [call for _, calls in split for call in calls or ()]
    found = []
    for call in dict.fromkeys([*enforced, *named]):
        selectors = [
            _selector(selector, call in enforced) for selector, calls in split if calls is None or call in calls
        ]
        if selectors:
            on_call = replace(hook, kind="kprobe", target=f"sys_{call.name}", syscall=True, abi=call.abi)
            first = (replace(hook.arguments[position], index=0) for position in _first_parameters(hook))
            on_call = replace(on_call, arguments=tuple(first))
            found.append(replace(on_call, selectors=tuple(selectors)))
    return found


def _first_parameters(hook: Hook) -> list[int]:
    """The positions of the arguments that are the call's first parameter."""
    if hook.kind != "tracepoint":
        return []
    numbers = (position for position, one in enumerate(hook.arguments) if one.index == _FIRST_PARAMETER)
    return [one for one in numbers if ARGUMENT_TYPES[hook.arguments[one].type].group == "number"]


def _split(selector: Selector, hook: Hook) -> tuple[Selector, list[SystemCall] | None]:
    """The selector without its filters on the call's number, and the calls that they allow; None: all."""
    calls: list[SystemCall] | None = None
    others: list[HookFilter] = []
    for filter in selector.filters:
        if filter.subject.kind != "argument":
            others.append(filter)
            continue
        if filter.subject.position in (first := _first_parameters(hook)):
            others.append(
                replace(filter, subject=replace(filter.subject, position=first.index(filter.subject.position)))
            )
            continue
        if hook.arguments[filter.subject.position].type != "syscall64" or filter.test != "equal" or filter.negated:
            what = "with NotifyEnforcer, filters can test a call's number (by Equal, In, InMap) and first argument only"
            raise UsageError(f"{filter.place}: {what}", "a hook on the call itself, which has its arguments")
        values = [value for value in filter.values if isinstance(value, SystemCall)]
        if len(values) < len(filter.values):
            raise UsageError(f"{filter.place}: numbers of system calls differ between machines", "their names: a list")
        calls = values if calls is None else [call for call in calls if call in values]
    return replace(selector, filters=tuple(others)), calls


def _selector(selector: Selector, enforced: bool) -> Selector:
    """The selector with the actions that the notification would have caused; only an event for calls without
    enforcer."""
    actions: list[Action] = []
    for action in selector.actions:
        if action.kind != "NotifyEnforcer":
            actions += [] if action.kind == "CleanupEnforcerNotification" else [action]
            continue
        if enforced and action.error:
            actions.append(replace(action, kind="Override", signal=0))
        if enforced and action.signal:
            actions.append(replace(action, kind="Sigkill" if action.signal == _SIGKILL else "Signal", error=0))
        if not enforced:
            actions.append(Action("Post", place=action.place))
    return replace(selector, actions=tuple(actions))
