"""`kubectl gadget behavior`: its sub-commands by name."""

from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ScopeFlags
from kubectl_gadget.cli.framework.command import GadgetGroup, GroupParts, entries_in, make_group
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.events.example import Example

_COMMANDS = (
    ("save", "Save what workloads do as a baseline, from now on or from recordings", "behavior_save:save:SAVE_PAGE"),
    ("update", "Add what workloads do now, or did in recordings, to a baseline", "behavior_save:update:UPDATE_PAGE"),
    ("merge", "Make one baseline of several", "behavior_save:merge:MERGE_PAGE"),
    ("show", "Show the facts of a baseline or a recording", "behavior_show:show:PAGE"),
    ("diff", "Show what one baseline, recording or release does that another does not", "behavior_diff:diff:PAGE"),
    ("check", "Watch workloads, and show what is not in their baseline", "behavior_check:check:PAGE"),
    ("rules", "Show the rules by which events become facts", "behavior_show:rules:RULES_PAGE"),
)
_PAGE = Page(
    "Learn what workloads do, and see what is new: programs, files, connections, ports, names, capabilities, users.",
    (
        Example("kubectl gadget behavior save cart.yaml -l app=cart --timeout 10m", "what the cart does in 10 minutes"),
        Example("kubectl gadget behavior diff cart.yaml new.kgr", "what is new in a recording of its next release"),
        Example("kubectl gadget behavior check cart.yaml -l app=cart", "what is new while it happens"),
    ),
    usage="COMMAND [flags]",
    more="A baseline is a YAML file for reviews: one fact on a line. See docs/behavior.md.",
)


def behavior_group() -> GadgetGroup:
    """`kubectl gadget behavior`."""
    entries = entries_in("kubectl_gadget.cli.behavior", _COMMANDS)
    return make_group({"scope": ScopeFlags, "cluster": ClusterFlags}, "behavior", GroupParts(_PAGE, entries))
