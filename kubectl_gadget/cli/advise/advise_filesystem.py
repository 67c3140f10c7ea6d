"""`kubectl gadget advise filesystem`: patches of workloads from written files."""

from kubectl_gadget.cli.advise.advisor import AdviseFlags, advisor_page, print_documents, watch
from kubectl_gadget.cli.commands.gadgets import Pods

PAGE = advisor_page(
    "filesystem",
    (
        ("-l app=web --timeout 1h", "what the pods of app=web write in an hour, and what that needs"),
        ("web-0 --record writes.kgr", "of one pod, kept for later"),
        ("--from writes.kgr -o json", "from what was kept"),
    ),
    "Ctrl-C stops observing and prints. See docs/advise.md.",
)


def filesystem(pods: Pods, flags: AdviseFlags) -> int:
    """Makes patches from written files."""
    from kubectl_gadget.advise import filesystem as advisor

    recording, code = watch(advisor.RECIPE, pods, flags)
    print_documents(advisor.advise(recording), recording, flags)
    return code
