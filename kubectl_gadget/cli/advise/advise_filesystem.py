"""`kubectl gadget advise filesystem`: patches of workloads from written files."""

from kubectl_gadget.cli.advise.advisor import AdviseFlags, print_documents, watch
from kubectl_gadget.cli.commands.gadgets import Pods


def filesystem(pods: Pods, flags: AdviseFlags) -> int:
    from kubectl_gadget.advise import filesystem as advisor

    recording, code = watch(advisor.RECIPE, pods, flags)
    print_documents(advisor.advise(recording), recording, flags)
    return code
