"""`kubectl gadget` itself: its sub-commands by name, and how they are made on demand.

The trap: whatever is imported here slows down every TAB key, so the table holds names and no functions.
"""

from collections.abc import Callable

from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ScopeFlags
from kubectl_gadget.cli.framework.command import Command, Entry, GadgetGroup, GroupParts, lazily, make_group
from kubectl_gadget.cli.help.gadget_index import index, unknown_gadget
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.cli.help.stored import PROGRAM
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.example import Example

_VERBS = {
    "trace": "Show events as they happen",
    "top": "Show the top users of something, refreshed at intervals",
    "snapshot": "Show what exists now",
    "profile": "Show where time goes",
    "audit": "Show what security rules of the kernel caught",
}
_OTHER_VERB = "Run a gadget"
_COMMANDS = (
    (
        "run",
        "Gadgets",
        "Run a gadget of your own: a C file, a directory or a YAML file",
        "commands.own_gadget:run_group",
    ),
    (
        "advise",
        "Gadgets",
        "Write policies and profiles from observed behavior: networkpolicy, seccomp, apparmor, …",
        "advise.advise_group:advise_group",
    ),
    (
        "behavior",
        "Gadgets",
        "Learn what workloads do, and see what a release does that the last one did not",
        "behavior.behavior_group:behavior_group",
    ),
    ("policy", "Gadgets", "Check, explain, generate, install and list policies", "policy.policy_group:policy_group"),
    (
        "observe",
        "Gadgets",
        "Show the processes of workloads: what they run, what they do, how they end",
        "commands.observe:observe:PAGE",
    ),
    (
        "enforce",
        "Gadgets",
        "Enforce policies while it runs: deny, kill, signal",
        "policy.enforce:enforce:PAGE",
    ),
    ("flows", "Gadgets", "Show network flows, with the processes at both ends", "commands.flows:flows:PAGE:CONDITIONS"),
    ("record", "Gadgets", "Record a set of gadgets: now, or what came before a match", "recordings.record:record:PAGE"),
    ("bcc", "Gadgets", "Run a bcc tool, or your own bcc script, on all nodes", "other_tools.bcc:bcc:PAGE"),
    (
        "bpftrace",
        "Gadgets",
        "Run a bpftrace program on all nodes, limited to selected pods",
        "other_tools.bpftrace:bpftrace:PAGE",
    ),
    ("list", "Gadgets", "List the gadgets", "commands.listing:list_gadgets:PAGE"),
    ("deploy", "Cluster", "Keep agents on all nodes, so that gadgets start at once", "commands.deploy:deploy:PAGE"),
    (
        "undeploy",
        "Cluster",
        "Remove all that deploy or a run created in the cluster",
        "commands.deploy:undeploy:UNDEPLOY_PAGE",
    ),
    ("status", "Cluster", "Show the agents, and what each node supports", "commands.status:status:PAGE"),
    ("version", "Other", "Show the version of this program and of the agents", "commands.version:version:PAGE"),
    ("options", "Other", "Explain the flags that all commands share", "commands.shared_flags:options:PAGE"),
    ("ci", "Gadgets", "Trace while a command of a CI job runs, and judge what was seen", "ci.ci_group:ci_group"),
    ("config", "Other", "Show the defaults of flags, and where each was set", "commands.config:config_group"),
    ("replay", "Other", "Show again what --record kept of a run", "recordings.replay:replay_group"),
    ("recording", "Other", "Inspect files that --record wrote", "recordings.recording:recording_group"),
    (
        "demo",
        "Gadgets",
        "Run any of these on four small pods on this machine, without a cluster",
        "commands.demo:demo_group",
    ),
)
_OF_COMMANDS = ("replay", "demo")
"""groups with the other commands as sub-commands"""
_PAGE = Page(
    summary="See what containers really do: the files they open, the programs they run, on every node "
    "of a cluster, in one table, with nothing installed beforehand.",
    examples=(
        Example("kubectl gadget trace open", "files that the pods of this namespace open"),
        Example(
            "kubectl gadget trace exec -A -o json", "programs that start in any namespace, one JSON object per line"
        ),
        Example("sudo kubectl gadget demo", "without a cluster: four small pods on this machine, for 10 s"),
    ),
    usage="COMMAND [flags]",
    more="kubectl gadget COMMAND --help explains a command; kubectl gadget options explains the shared flags.",
)


class Root(GadgetGroup):
    """Has a sub-command for each verb of the catalogue, and recognises gadgets that are named without their verb."""

    @property
    def entries(self) -> dict[str, Entry]:
        """The verbs, then the fixed commands."""
        order = list(_VERBS)
        verbs: dict[str, list[str]] = {}
        alone: dict[str, Entry] = {}
        for entry in index():
            if len(entry.command) == 1:
                alone[entry.command[0]] = Entry(entry.summary, "Gadgets", _gadget_loader(entry.name))
            else:
                verbs.setdefault(entry.command[0], []).append(entry.command[-1])
        named = sorted(verbs.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))
        found = {
            verb: Entry(f"{_VERBS.get(verb, _OTHER_VERB)}: {', '.join(names)}", "Gadgets", _verb_loader(verb))
            for verb, names in named
        }
        return {**found, **alone, **self.fixed}

    def unknown(self, name: str, path: str) -> UsageError:
        """Suggests `kubectl gadget trace open` for `kubectl gadget open`."""
        if found := unknown_gadget(name, path):
            return found
        from kubectl_gadget.cli.help.equivalents import COMMANDS

        if name in COMMANDS:
            return UsageError(f"unknown command {name!r}", f"{path} {COMMANDS[name]}")
        return super().unknown(name, path)


def root() -> Root:
    """The whole command line."""
    fixed = {
        name: Entry(
            summary,
            section,
            lazily(f"kubectl_gadget.cli.{target}", name, _entries if name in _OF_COMMANDS else None),
        )
        for name, section, summary, target in _COMMANDS
    }
    group = make_group({"scope": ScopeFlags, "cluster": ClusterFlags}, PROGRAM, GroupParts(_PAGE, fixed, kind=Root))
    assert isinstance(group, Root)
    return group


def _entries() -> dict[str, Entry]:
    return root().entries


def _gadget_loader(name: str) -> Callable[[], Command]:
    def load() -> Command:
        from kubectl_gadget.cli.commands.gadgets import gadget_loader

        return gadget_loader(name)()

    return load


def _verb_loader(verb: str) -> Callable[[], Command]:
    def load() -> Command:
        from kubectl_gadget.cli.commands.gadgets import verb_group

        return verb_group(verb, _VERBS.get(verb, _OTHER_VERB) + ".")

    return load
