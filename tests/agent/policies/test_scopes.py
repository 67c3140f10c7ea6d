"""Profiles of containers in the maps of a policy's hooks."""

from typing import Any, cast

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.policies.hook import Applicable
from kubectl_gadget.agent.policies.scopes import Profiles
from kubectl_gadget.wire.policy_messages import PolicySpec


class Hook:
    """A hook whose map takes no profile while it is full."""

    name = "hook"

    def __init__(self) -> None:
        self.is_full = True
        self.stored: dict[int, int] = {}

    def bits(self, *_: Any) -> int:
        return 5

    def set_profile(self, number: int, selectors: int) -> None:
        if self.is_full:
            raise Failure("bpf_map_update_elem", 7, [])
        self.stored[number] = selectors


def test_a_profile_that_could_not_be_stored_is_stored_at_its_next_use() -> None:
    hook = Hook()
    warnings: list[str] = []
    spec = PolicySpec(name="policies", kind="policy", scopes=(), hooks=())
    profiles = Profiles(spec, cast(Any, [hook]), (), warnings.append)
    scopes = cast(Applicable, "scopes")
    assert profiles.number(scopes) == 0
    assert len(warnings) == 1
    hook.is_full = False
    assert profiles.number(scopes) == 0
    assert hook.stored == {0: 5}
    hook.stored.clear()
    assert profiles.number(scopes) == 0
    assert hook.stored == {}, "stored once"
