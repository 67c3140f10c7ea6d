"""The command that starts a session: which gadgets it may run, whether it may enforce, and what it may see.

Its words are in the API server's audit log, and the admission policy of contained agents decides by them
(manifests/observer-policy.yaml). The trap: only one spelling is valid, in one order; a second spelling would bypass a
rule about the first.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from kubectl_gadget.wire.acting_objects import could_act
from kubectl_gadget.wire.client_messages import AnyGadget, GadgetSpec
from kubectl_gadget.wire.policy_messages import PolicyHookSpec, PolicySpec

SESSION = "session"
_CONTAINED, _GADGETS, _ENFORCES, _NAMESPACE = "--contained", "--gadgets=", "--enforces", "--only-namespace="
MOST_GADGETS = 32
OWN = "own:"
"""Prefix of the name of a gadget that a user wrote."""
_NAME = r"(own:)?[A-Za-z0-9_.-]{1,63}"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""A namespace's name (RFC 1123). Both patterns are compiled at first use, since a local agent needs neither."""


class SessionCommand(NamedTuple):
    """The meaning of the words after `session`."""

    gadgets: tuple[str, ...] | None = None
    """names as in RUN, with the prefix OWN for those of users; None: not declared"""
    enforces: bool = False
    """whether it may refuse calls, change them, or signal processes"""
    contained: bool = False
    """whether it may run only gadgets of the agent's own catalogue, with checked values. It declares at least one,
    since the user's right is checked by their names, and a session names containers"""
    namespace: str | None = None
    """the only namespace whose containers it may see"""

    def words(self) -> tuple[str, ...]:
        """Returns the words, including `session`."""
        found = [SESSION]
        found += [_CONTAINED] if self.contained else []
        found += [_GADGETS + ",".join(self.gadgets)] if self.gadgets is not None else []
        found += [_ENFORCES] if self.enforces else []
        found += [_NAMESPACE + self.namespace] if self.namespace is not None else []
        return tuple(found)

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self | None:
        """Parses the words, including `session`. Returns None when they do not follow the grammar."""
        gadgets = next((word.removeprefix(_GADGETS) for word in words if word.startswith(_GADGETS)), None)
        namespace = next((word.removeprefix(_NAMESPACE) for word in words if word.startswith(_NAMESPACE)), None)
        names = None if gadgets is None else tuple(gadgets.split(",")) if gadgets else ()
        found = cls(names, _ENFORCES in words, _CONTAINED in words, namespace)
        if found.words() != tuple(words) or not found._is_valid():
            return None
        return found

    def _is_valid(self) -> bool:
        names = self.gadgets or ()
        return (
            len(names) <= MOST_GADGETS
            and all(re.fullmatch(_NAME, name) for name in names)
            and (self.namespace is None or re.fullmatch(_LABEL, self.namespace) is not None)
            and not (self.contained and (self.enforces or not names or any(name.startswith(OWN) for name in names)))
        )


DRY_RUN = "dry_run"
"""The variable that keeps gadgets that enforce from doing so."""
_ACTIONS = ("policy_signals", "policy_sets", "policy_overrides")
"""Variables that let the policies' programs do more than observe."""
UNDECLARED = SessionCommand()
NO_GADGETS = SessionCommand(())
"""For sessions that only read a node's HELLO and HOOKS."""
STATUS = SessionCommand(("status",))
"""For sessions that only read a contained agent's HELLO. No gadget is called so, so its RUN is always refused."""


def declared_name(spec: AnyGadget) -> str:
    """Returns the name by which a command declares an entry of RUN's `gadgets`."""
    return f"{OWN if isinstance(spec, GadgetSpec) and spec.own else ''}{spec.name}"


def enforces(spec: AnyGadget) -> bool:
    """Whether an entry of RUN's `gadgets`, with a known object, can do more than observe. The values that the BPF
    programs use decide, not what the client calls them."""
    if isinstance(spec, PolicySpec):
        return bool(spec.kill) or any(map(_hook_enforces, spec.hooks))
    if not isinstance(spec, GadgetSpec) or DRY_RUN not in spec.globals:
        return False
    dry_run = spec.parameters.get(DRY_RUN)
    return not isinstance(dry_run, int) or not dry_run


def acts(spec: GadgetSpec, elf: bytes) -> bool:
    """Whether a user's own gadget could do more than observe. Any program can be attached as a uprobe, and since Linux
    6.18 uprobes can set registers."""
    return bool(spec.libraries) or could_act(elf)


def _hook_enforces(hook: PolicyHookSpec) -> bool:
    """Whether the hook's variables, or those of a way, let programs do more than observe."""
    variables = [hook.variables, *(way.variables for way in hook.ways)]
    return any(each.get(name) for each in variables for name in _ACTIONS)
