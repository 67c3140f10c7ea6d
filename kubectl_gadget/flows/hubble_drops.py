"""Maps the kernel's drop reasons to Hubble's, which its client prints before DROPPED and filters by.

Source of the numbers: `enum DropReason` of Hubble's flow.proto, which are Cilium's own. The trap: a subtype of 0 is
printed as `Success`, and a reader whose version lacks a name rejects the line. So only names of Cilium 1.14 are used,
and a reason that fits none gets a number that Cilium does not use. The summary contains the kernel's reason.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from kubectl_gadget.flows.flow import POLICY_DENIED
from kubectl_gadget.yaml_files import own_data


class HubbleDrop(NamedTuple):
    """A member of `enum DropReason`, and the subtype of the event."""

    name: str
    sub_type: int


_UNKNOWN = HubbleDrop("DROP_REASON_UNKNOWN", 255)
_DENIED = HubbleDrop(POLICY_DENIED, 133)


@cache
def by_reason() -> dict[str, HubbleDrop]:
    """The kernel's reasons that have a number there."""
    found = own_data(Path(__file__).with_suffix(".yaml")).items()
    return {reason: HubbleDrop(name, item["sub_type"]) for name, item in found for reason in item["reasons"].split()}


def hubble_drop(reason: str, denied: bool) -> HubbleDrop:
    """`reason` is the kernel's word without its prefix; `denied`: a known network policy rejected it."""
    return _DENIED if denied or reason == POLICY_DENIED else by_reason().get(reason, _UNKNOWN)
