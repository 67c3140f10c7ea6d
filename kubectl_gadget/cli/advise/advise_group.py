"""`kubectl gadget advise`: its advisors by name, each in a module of its own."""

from kubectl_gadget.cli.advise.advisor import SUMMARIES, AdviseFlags
from kubectl_gadget.cli.framework.command import GadgetGroup, GroupParts, OneAtATime, entries_in, make_group
from kubectl_gadget.cli.help.help_pages import Page

_COMMANDS = tuple((name, summary, f"advise_{name}:{name}:PAGE") for name, summary in SUMMARIES.items())
_PAGE = Page(
    "Observe pods, then write policies that allow what they did.",
    usage="ADVISOR [POD|KIND/NAME...] [flags]",
    more="kubectl gadget advise ADVISOR --help explains an advisor.",
)


def advise_group() -> GadgetGroup:
    """`kubectl gadget advise`."""
    entries = entries_in("kubectl_gadget.cli.advise", _COMMANDS, "Advisors")
    return make_group({"flags": AdviseFlags}, "advise", GroupParts(_PAGE, entries, noun="advisor", kind=OneAtATime))
