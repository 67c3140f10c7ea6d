"""Static metadata of a selector's events: what is the same in all of them."""

from collections.abc import Sequence
from typing import Any

from kubectl_gadget.linux.files import errno_name
from kubectl_gadget.linux.processes import signal_name
from kubectl_gadget.policies.compiler.compiled_hook import CompiledHook
from kubectl_gadget.policies.compiler.compiled_policies import target_name
from kubectl_gadget.policies.compiler.selectors_at_hook import SelectorAtHook
from kubectl_gadget.policies.model import Action, Hook, Policy, UserProbe
from kubectl_gadget.wire.policy_events.event import Hook as Kind
from kubectl_gadget.wire.policy_events.event_metadata import EventMetadata
from kubectl_gadget.wire.policy_events.policy_record import OVERRIDDEN, REPLACED, blocks, done_text, verdict_text

_HOOKS: dict[str, Kind] = {"fentry": "kprobe", "raw_tracepoint": "tracepoint"}


def metadata_of(place: SelectorAtHook) -> EventMetadata:
    hook = place.hook
    subsystem, _, name = hook.target.rpartition("/")
    probe = hook.probe
    carried_out = place.enforced or place.reacts
    action = next((action.kind for action in place.selector.actions), "Post") if carried_out else "Post"
    returned = hook.return_argument
    return EventMetadata(
        hook=_HOOKS.get(hook.kind, hook.kind),  # type: ignore[arg-type]
        function=_function(hook, probe) if probe else name if "tracepoint" in hook.kind else target_name(hook),
        subsystem=probe.provider if probe else subsystem,
        path=probe.path if probe else "",
        offset=(probe.offset if probe else None) or 0,
        reference_counter=(probe.reference_counter if probe else None) or 0,
        system_call=hook.syscall,
        error=place.error,
        signal=place.signal,
        policy=place.policy.name,
        action=action,
        return_action=next((action.kind for action in place.selector.return_actions), ""),
        message=hook.message,
        tags=hook.tags,
        arguments=tuple((argument.type, argument.label) for argument in hook.arguments),
        data=tuple((argument.type, argument.label) for argument in hook.data),
        returned=None if returned is None else (returned.type, returned.label),
        would_be="" if carried_out else _wanted(place),
    )


def _wanted(place: SelectorAtHook) -> str:
    """The effect that the policy asks for: `BLOCKED EPERM SIGKILL`, `SET registers`, `SENT SIGKILL`, or nothing."""
    actions = (*place.selector.actions, *place.selector.return_actions)
    verdicts = [_verdict(action, place) for action in actions if action.kind == "Override"]
    signals = [
        "SIGKILL" if action.kind == "Sigkill" else signal_name(action.signal)
        for action in actions
        if action.kind in ("Sigkill", "Signal")
    ]
    texts = [*(verdict_text(verdict, errno_name) for verdict in verdicts), *signals]
    return done_text(any(map(blocks, verdicts)), " ".join(texts)) if texts else ""


def _verdict(action: Action, place: SelectorAtHook) -> int:
    """The engine's verdict. A program's function may also be made to return 0, by its registers: OVERRIDDEN."""
    if action.instead:
        return REPLACED
    return action.error or (OVERRIDDEN if place.hook.probe else 0)


def _function(hook: Hook, probe: UserProbe) -> str:
    """The function's name, or its offset or address as written in the policy."""
    return probe.symbol or probe.name or hook.target.removeprefix(f"{probe.path}:")


def metadata_spec(hook: CompiledHook, policies: Sequence[Policy]) -> dict[str, Any]:
    """Everything that readers of the hook's records need, in the form that policy_events.hook_reader takes. `policies`
    are all policies, in their order."""
    numbers = {id(policy): number for number, policy in enumerate(policies)}
    return {
        "forms": [list(form) for form in hook.forms],
        "selectors": [None if place is None else _selector(hook, place, numbers) for place in hook.bits],
    }


def _selector(hook: CompiledHook, place: SelectorAtHook, numbers: dict[int, int]) -> dict[str, Any]:
    return {
        "metadata": metadata_of(place).spec(),
        "policy": numbers[id(place.policy)],
        "slots": hook.arguments[id(place.hook)],
        "data": hook.data[id(place.hook)],
        "returned": hook.results[id(place.hook)],
        "called": hook.called,
    }
