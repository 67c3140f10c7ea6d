"""`kubectl gadget advise capabilities`: patches of workloads from checks of capabilities."""

from kubectl_gadget.cli.advise.advisor import AdviseFlags, baselines_of, print_advice, print_documents, watch
from kubectl_gadget.cli.commands.gadgets import Pods


def capabilities(pods: Pods, flags: AdviseFlags) -> int:
    from kubectl_gadget.advise import capabilities as advisor

    if (baselines := baselines_of(flags, pods)) is not None:
        return print_advice(advisor.from_facts(baselines), flags)
    recording, code = watch(advisor.RECIPE, pods, flags)
    print_documents(advisor.advise(recording), recording, flags)
    return code
