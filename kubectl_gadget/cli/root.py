"""`kubectl gadget` itself: its sub-commands by name, and how they are made on demand.

The trap: whatever is imported here slows down every TAB key, so the table holds names and no functions.
"""

from collections.abc import Callable
from functools import partial

from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ScopeFlags
from kubectl_gadget.cli.framework.command import Command, Entry, GadgetGroup, GroupParts, entry_of, make_group
from kubectl_gadget.cli.help.gadget_index import index, unknown_gadget
from kubectl_gadget.cli.help.help_pages import Page, page_of
from kubectl_gadget.cli.help.stored import PROGRAM
from kubectl_gadget.errors import UsageError

_VERBS = {
    "trace": "Show events as they happen",
    "top": "Show the top users of something, refreshed at intervals",
    "snapshot": "Show what exists now",
    "profile": "Show where time goes",
    "audit": "Show what security rules of the kernel caught",
}
_OTHER_VERB = "Run a gadget"
_COMMANDS = {
    "Gadgets": {
        "run": "commands.own_gadget:run_group",
        "advise": "advise.advisor:advise_group",
        "behavior": "",
        "policy": "",
        "observe": "commands.observe:observe",
        "enforce": "policy.enforce:enforce",
        "flows": "commands.flows:flows:CONDITIONS",
        "record": "recordings.record:record",
        "bcc": "other_tools.bcc:bcc",
        "bpftrace": "other_tools.bpftrace:bpftrace",
        "list": "commands.listing:list_gadgets",
        "ci": "",
        "demo": "commands.demo:demo_group",
    },
    "Cluster": {
        "deploy": "commands.deploy:deploy",
        "undeploy": "commands.deploy:undeploy",
        "status": "commands.status:status",
    },
    "Other": {
        "version": "commands.version:version",
        "options": "commands.shared_flags:options",
        "config": "",
        "replay": "recordings.replay:replay_group",
        "recording": "",
    },
}
"""What makes each command (command.entry_of), by section of help; "": a group that only has those below it."""
_ADVISORS = ("networkpolicy", "seccomp", "capabilities", "filesystem", "apparmor", "tracingpolicy")
_BELOW = {
    "advise": {name: f"advise.advise_{name}:{name}" for name in _ADVISORS},
    "behavior": {
        **{name: f"behavior.behavior_save:{name}" for name in ("save", "update", "merge")},
        **{name: f"behavior.behavior_{name}:{name}" for name in ("show", "diff", "check")},
        "rules": "behavior.behavior_show:rules",
    },
    "policy": {
        **{name: f"policy.policy_{name}:{name}" for name in ("check", "explain", "generate")},
        **{name: f"policy.policy_install:{name}" for name in ("install", "installed")},
        "list": "policy.policy_list:list_policies",
        "uninstall": "policy.policy_install:uninstall",
    },
    "ci": {
        "run": "ci.ci_run:run",
        **{name: f"ci.ci_start:{name}" for name in ("start", "step", "stop")},
        "judge": "ci.ci_judge:judge",
    },
    "config": {name: f"commands.config:{name}" for name in ("view", "check", "path")},
    "recording": {
        "info": "recordings.recording:info",
        **{name: f"recordings.recording_{name}:{name}" for name in ("redact", "query", "convert")},
    },
}
_SECTIONS = {"advise": "Advisors", "recording": "Recordings"}
_WITHOUT_FLAGS = ("ci", "recording")
"""groups that take no flags before the sub-command"""


class Root(GadgetGroup):
    """Has a sub-command for each verb of the catalogue, and recognizes gadgets that are named without their verb."""

    @property
    def entries(self) -> dict[str, Entry]:
        """The verbs, then the fixed commands."""
        order = list(_VERBS)
        verbs: dict[str, list[str]] = {}
        alone: dict[str, Entry] = {}
        for entry in index():
            if len(entry.command) == 1:
                alone[entry.command[0]] = _listed(partial(_gadget, entry.name), entry.summary)
            else:
                verbs.setdefault(entry.command[0], []).append(entry.command[-1])
        named = sorted(verbs.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))
        found = {
            verb: _listed(partial(_verb, verb), f"{_VERBS.get(verb, _OTHER_VERB)}: {', '.join(names)}")
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
    fixed = {
        name: _entry(name, section, target) for section, found in _COMMANDS.items() for name, target in found.items()
    }
    parts = GroupParts(partial(page_of, PROGRAM), fixed, kind=Root)
    group = make_group({"scope": ScopeFlags, "cluster": ClusterFlags}, PROGRAM, parts)
    assert isinstance(group, Root)
    return group


def _listed(load: Callable[[], Command], summary: str) -> Entry:
    return Entry("Gadgets", load, partial(Page, listed=summary))


def _entry(words: str, section: str, target: str) -> Entry:
    if not target:
        return Entry(section, partial(_group, words), partial(page_of, words))
    needs: dict[str, Callable[[], dict[str, Entry]]]
    needs = {"advise": partial(_below, "advise"), "replay": _entries, "demo": _entries}
    return entry_of(words, section, f"kubectl_gadget.cli.{target}", needs.get(words))


def _group(name: str) -> GadgetGroup:
    flags = {} if name in _WITHOUT_FLAGS else {"scope": ScopeFlags, "cluster": ClusterFlags}
    return make_group(flags, name, GroupParts(partial(page_of, name), _below(name)))


def _below(group: str) -> dict[str, Entry]:
    section = _SECTIONS.get(group, "Commands")
    return {name: _entry(f"{group} {name}", section, target) for name, target in _BELOW[group].items()}


def _entries() -> dict[str, Entry]:
    return root().entries


def _gadget(name: str) -> Command:
    from kubectl_gadget.cli.commands.gadgets import built_in_command

    return built_in_command(name)


def _verb(verb: str) -> Command:
    from kubectl_gadget.cli.commands.gadgets import verb_group

    return verb_group(verb, _VERBS.get(verb, _OTHER_VERB) + ".")
