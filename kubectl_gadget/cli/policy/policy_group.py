"""`kubectl gadget policy`: its sub-commands by name."""

from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ScopeFlags
from kubectl_gadget.cli.framework.command import GadgetGroup, GroupParts, entries_in, make_group
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.events.example import Example

_COMMANDS = (
    ("check", "Find errors in policies, list their hooks, and check nodes for them", "policy_check:check:PAGE"),
    ("explain", "Explain the fields of policies", "policy_explain:explain:PAGE"),
    ("generate", "Write a policy to start from", "policy_generate:generate:PAGE"),
    ("install", "Install policies on all nodes, where they stay in force", "policy_install:install:INSTALL_PAGE"),
    ("installed", "Show installed policies, and their state on each node", "policy_install:installed:INSTALLED_PAGE"),
    ("list", "List the built-in policies", "policy_list:list_policies:PAGE"),
    ("uninstall", "Remove installed policies", "policy_install:uninstall:UNINSTALL_PAGE"),
)
_PAGE = Page(
    "Work with policies: TracingPolicy and TracingPolicyNamespaced, as YAML.",
    (
        Example("kubectl gadget policy check -f policy.yaml", "errors, hooks and cost of a policy"),
        Example("kubectl gadget policy check -f policies/ --all-nodes", "and whether every node supports it"),
        Example("kubectl gadget policy explain kprobes.selectors", "the fields of a selector"),
    ),
    usage="COMMAND [flags]",
)


def policy_group() -> GadgetGroup:
    """`kubectl gadget policy`."""
    entries = entries_in("kubectl_gadget.cli.policy", _COMMANDS)
    return make_group({"scope": ScopeFlags, "cluster": ClusterFlags}, "policy", GroupParts(_PAGE, entries))
