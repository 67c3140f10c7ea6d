"""Reads actions into `model.Action`: each kind with its own parameters, and only where it makes sense.

The trap: existing policies give parameters to actions that do not take them (`Sigkill` with `argError`). They are
accepted with a note, since they have no effect in other engines either.
"""

from collections.abc import Mapping

from kubectl_gadget.policies.language.linux_names import SIGNALS
from kubectl_gadget.policies.model import Action, ActionKind, Assignment, NewFunction, Note, RateLimit, RateScope
from kubectl_gadget.policies.read.filter_values import error_number, need_number
from kubectl_gadget.policies.read.registers import MOST, assignment
from kubectl_gadget.similar_names import did_you_mean
from kubectl_gadget.yaml_reader import Part, Problems, one_of

_PARAMETERS: Mapping[ActionKind, tuple[str, ...]] = {
    "Post": ("rateLimit", "rateLimitScope", "kernelStackTrace", "userStackTrace", "imaHash"),
    "NoPost": (),
    "Sigkill": (),
    "Signal": ("argSig",),
    "Override": ("argError", "argRegs", "argNewSymbol", "argNewAddr", "argNewOffset"),
    "NotifyEnforcer": ("argError", "argSig"),
    "CleanupEnforcerNotification": (),
    "GetUrl": ("argUrl",),
    "DnsLookup": ("argFqdn",),
    "TrackSock": ("argSock",),
    "UntrackSock": ("argSock",),
    "Set": ("argIndex", "argValue"),
    "FollowFD": ("argFd", "argName"),
    "UnfollowFD": ("argFd", "argName"),
    "CopyFD": ("argFd", "argName"),
}
_HOOKS: Mapping[ActionKind, tuple[str, ...]] = {
    "Override": ("kprobe", "fentry", "lsm", "uprobe"),
    "Set": ("usdt",),
    "TrackSock": ("kprobe", "fentry", "lsm", "raw_tracepoint"),
    "UntrackSock": ("kprobe", "fentry", "lsm", "raw_tracepoint"),
}
_NEW_FUNCTION = ("argNewSymbol", "argNewAddr", "argNewOffset")
_ONLY_UPROBE = ("argRegs", *_NEW_FUNCTION)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_SCOPES: tuple[RateScope, ...] = ("thread", "process", "global")
_LONGEST = (1 << 32) - 1
_GREATEST_INDEX = 63
_MOST_DIGITS = 100


def read_actions(selector: Part, key: str, hook_kind: str, problems: Problems, notes: list[Note]) -> tuple[Action, ...]:
    """The actions under `key` of a selector. Errors are added to `problems`, parameters without effect to `notes`."""
    found = []
    for part in selector.parts(key):
        with problems.collecting():
            found.append(_action(part, hook_kind, notes))
    kinds = {action.kind for action in found}
    if {"Post", "NoPost"} <= kinds:
        problems.add(selector.at(key), "has both Post and NoPost")
    return tuple(found)


def _action(part: Part, hook_kind: str, notes: list[Note]) -> Action:
    kind = _kind(part)
    hooks = _HOOKS.get(kind)
    if hooks and hook_kind not in hooks:
        part.fail("action", f"{kind} is for {', '.join(hooks)}, not for a {hook_kind.replace('_', ' ')}")
    for name in part.names():
        if name != "action" and name not in _PARAMETERS[kind]:
            notes.append(Note(part.at(name), f"does nothing: {kind} does not take it"))
    return Action(
        kind=kind,
        error=_error(part, kind, hook_kind, notes),
        signal=_signal(part, kind),
        url=_need_text(part, "argUrl", kind == "GetUrl"),
        domain_name=_need_text(part, "argFqdn", kind == "DnsLookup"),
        descriptor=_index(part, "argFd"),
        name=_index(part, "argName"),
        socket=_index(part, "argSock"),
        argument=_index(part, "argIndex"),
        value=need_number(part.scalar("argValue"), 0, (1 << 32) - 1) if "argValue" in part else 0,
        registers=_registers(part),
        instead=_instead(part),
        rate_limit=_rate_limit(part) if kind == "Post" else None,
        kernel_stack=part.flag("kernelStackTrace"),
        user_stack=part.flag("userStackTrace"),
        file_hash=part.flag("imaHash"),
        place=part.place,
    )


def _kind(part: Part) -> ActionKind:
    written = part.text("action")
    for kind in _PARAMETERS:
        if kind == written:
            return kind
    part.fail("action", f"{written!r} is not known{did_you_mean(written, _PARAMETERS)}")


def _error(part: Part, kind: ActionKind, hook_kind: str, notes: list[Note]) -> int:
    if kind not in ("Override", "NotifyEnforcer"):
        return 0
    special = [key for key in _ONLY_UPROBE if key in part]
    if special and hook_kind != "uprobe":
        part.fail(special[0], f"is only for uprobes, not for a {hook_kind.replace('_', ' ')}")
    if len([key for key in special if key != "argRegs"]) > 1:
        part.fail(special[-1], "only one of argNewSymbol, argNewAddr and argNewOffset can be given")
    if any(key in part for key in _NEW_FUNCTION) and "argError" in part:
        notes.append(Note(part.at("argError"), "does nothing: what the other function returns is returned"))
    if "argError" not in part:
        if kind == "Override" and hook_kind == "uprobe" and not special:
            notes.append(Note(part.place, "argError is not given, so the call seems to succeed, with 0"))
        return 0
    error = error_number(part.scalar("argError"))
    if error > 0:
        text = f"the call returns {error}, which is not an error: errors are negative, -{error}"
        notes.append(Note(part.at("argError"), text))
    return error


def _registers(part: Part) -> tuple[Assignment, ...]:
    found = tuple(assignment(scalar) for scalar in part.scalars("argRegs"))
    if len({one.to.machine for one in found}) > 1:
        part.fail("argRegs", "has registers of several architectures")
    if len(found) > MOST:
        part.fail("argRegs", f"has {len(found)} registers; at most {MOST} are supported")
    return found


def _instead(part: Part) -> NewFunction | None:
    """The function given by argNewSymbol, argNewAddr or argNewOffset."""
    if not any(name in part for name in _NEW_FUNCTION):
        return None
    address = need_number(part.scalar("argNewAddr"), 1, (1 << 64) - 1) if "argNewAddr" in part else 0
    offset = need_number(part.scalar("argNewOffset"), 1, (1 << 63) - 1) if "argNewOffset" in part else 0
    return NewFunction(_need_text(part, "argNewSymbol", "argNewSymbol" in part), address, offset)


def _signal(part: Part, kind: ActionKind) -> int:
    if kind == "Signal" and "argSig" not in part:
        part.fail("argSig", "Signal needs argSig")
    if kind == "NotifyEnforcer" and "argSig" not in part and "argError" not in part:
        part.fail("action", "NotifyEnforcer needs argError or argSig")
    if kind not in ("Signal", "NotifyEnforcer") or "argSig" not in part:
        return 0
    return need_number(part.scalar("argSig"), 1 if kind == "Signal" else 0, 64, SIGNALS)


def _index(part: Part, key: str) -> int:
    return need_number(part.scalar(key), 0, _GREATEST_INDEX) if key in part else 0


def _need_text(part: Part, key: str, needed: bool) -> str:
    if needed and not part.text(key):
        part.fail(key, f"{part.text('action')} needs {key}")
    if needed and key == "argUrl" and not part.text(key).startswith(("http://", "https://")):
        part.fail(key, f"{part.text(key)!r} is not an http or https URL")
    return part.text(key)


def _rate_limit(part: Part) -> RateLimit | None:
    written = part.text("rateLimit")
    if not written:
        if "rateLimitScope" in part:
            part.fail("rateLimitScope", "needs a rateLimit")
        return None
    unit = _SECONDS.get(written[-1].lower())
    digits = written[:-1] if unit else written
    if not (digits.isascii() and digits.isdigit()):
        part.fail("rateLimit", f"{written!r} is not a time: 5 (seconds), 30s, 5m, 1h")
    # Python does not parse numbers with thousands of digits, and such a number is out of range in any case.
    seconds = int(digits) * (unit or 1) if len(digits) < _MOST_DIGITS else _LONGEST
    milliseconds = 1000 * seconds
    if not 0 < milliseconds <= _LONGEST:
        part.fail("rateLimit", f"{written!r} is out of range: 1s to {_LONGEST // 3_600_000}h")
    return RateLimit(milliseconds, one_of(part.text("rateLimitScope"), _SCOPES, "thread"))
