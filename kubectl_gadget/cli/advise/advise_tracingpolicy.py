"""`kubectl gadget advise tracingpolicy`: policies from the facts of a run or of baselines."""

from typing import Annotated

from kubectl_gadget.cli.advise.advisor import AdviseFlags, print_advice, watch_facts
from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Switch, flag
from kubectl_gadget.errors import GadgetError

Deny = Annotated[Switch, flag(SHOW, "--deny", "Deny what was not seen (default: report it)")]


def tracingpolicy(pods: Pods, flags: AdviseFlags, deny: Deny = None) -> int:
    from kubectl_gadget.advise.tracingpolicy import tracing_policies

    found, multicall, code = watch_facts(pods, flags)
    documents = tracing_policies(found, multicall, bool(deny))
    if not documents and not any(unit.workload.namespace for unit in found.coverage):
        raise GadgetError(
            "none of the containers is in a pod, so no policy can select it", "kubectl gadget advise apparmor"
        )
    return print_advice(documents, flags) or code
