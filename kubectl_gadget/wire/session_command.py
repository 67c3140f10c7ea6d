"""The command that starts a session: which gadgets it may run, whether it may enforce, and what it may see.

Client and agent share this grammar, and so does the admission policy of contained agents
(manifests/observer-policy.yaml), since the API server's audit log has these words, and the admission policy decides by
them. The trap: only one spelling is valid, in one order; a second spelling would bypass a rule about the first.
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
"""Before the name of a gadget that a user wrote."""
_NAME = r"(own:)?[A-Za-z0-9_.-]{1,63}"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""As namespaces are named (RFC 1123). Both are compiled at first use: a local agent needs neither."""


class SessionCommand(NamedTuple):
    """The meaning of the words after `session`."""

    gadgets: tuple[str, ...] | None = None
    """names as in RUN, OWN before those of users; None: not declared"""
    enforces: bool = False
    """it may refuse calls, change them, or signal processes"""
    contained: bool = False
    """only gadgets of the agent's own catalogue, with nothing in them but checked values"""
    namespace: str | None = None
    """the only namespace whose containers it may see"""

    def words(self) -> tuple[str, ...]:
        """The words, `session` too."""
        found = [SESSION]
        found += [_CONTAINED] if self.contained else []
        found += [_GADGETS + ",".join(self.gadgets)] if self.gadgets is not None else []
        found += [_ENFORCES] if self.enforces else []
        found += [_NAMESPACE + self.namespace] if self.namespace is not None else []
        return tuple(found)

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self | None:
        """From the words, `session` too; None when they do not follow the grammar."""
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
            and not (self.contained and (self.enforces or self.gadgets is None))
        )


DRY_RUN = "dry_run"
"""The variable of gadgets that enforce, unless it is set."""
_DEEDS = ("policy_signals", "policy_sets", "policy_overrides")
"""Variables of the policies' programs that let them do something."""
UNDECLARED = SessionCommand()
NO_GADGETS = SessionCommand(())
"""For sessions that only ask what a node is and has."""


def declared_name(spec: AnyGadget) -> str:
    """How a command declares an entry of RUN's `gadgets`."""
    return f"{OWN if isinstance(spec, GadgetSpec) and spec.own else ''}{spec.name}"


def enforces(spec: AnyGadget) -> bool:
    """Whether an entry of RUN's `gadgets` can do more than observe, with its known object. What decides are the values
    that the BPF programs use, not what the client calls them."""
    if isinstance(spec, PolicySpec):
        return bool(spec.kill) or any(map(_hook_enforces, spec.hooks))
    if not isinstance(spec, GadgetSpec) or DRY_RUN not in spec.globals:
        return False
    dry_run = spec.parameters.get(DRY_RUN)
    return not isinstance(dry_run, int) or not dry_run


def acts(spec: GadgetSpec, elf: bytes) -> bool:
    """Whether a user's own gadget could do more than observe. Any program can be attached as a probe in files, and set
    registers there since Linux 6.18."""
    return bool(spec.libraries) or could_act(elf)


def _hook_enforces(hook: PolicyHookSpec) -> bool:
    """A way's variables are set after the hook's, and may be any of them."""
    variables = [hook.variables, *(way.variables for way in hook.ways)]
    return any(each.get(name) for each in variables for name in _DEEDS)
