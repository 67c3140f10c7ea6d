"""`kubectl gadget` itself: its sub-commands by name, and how they are made on demand.

Whatever is imported here slows down every TAB key, so the table holds names and no functions.
"""

from collections.abc import Callable, Sequence
from functools import partial

import typer

from kubectl_gadget.cli.command import (
    Command,
    Entry,
    GadgetGroup,
    GroupParts,
    entry_of,
    equivalents,
    make_group,
    named_like_command,
    path_above,
)
from kubectl_gadget.cli.flags import ClusterFlags, ScopeFlags
from kubectl_gadget.cli.pages import Page, index, page_of, unknown_gadget
from kubectl_gadget.cli.stored import PROGRAM
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
        "run": "gadgets:run_group",
        "advise": "advise:advise_group",
        "behavior": "",
        "policy": "",
        "observe": "observe:observe",
        "enforce": "enforce:enforce",
        "flows": "flows:flows:CONDITIONS",
        "diagnose": "diagnose:diagnose",
        "record": "recording:record",
        "ui": "recording:ui",
        "bcc": "other_tools:bcc",
        "bpftrace": "other_tools:bpftrace",
        "list": "gadgets:list_gadgets",
        "ci": "",
        "demo": "demo:demo_group",
    },
    "Cluster": {
        "deploy": "agents:deploy",
        "undeploy": "agents:undeploy",
        "status": "agents:status",
        "export": "",
    },
    "Other": {
        "version": "version:version",
        "options": "gadgets:options",
        "config": "",
        "replay": "recording:replay_group",
        "report": "recording:report",
        "recording": "",
    },
}
"""The maker of each command (command.entry_of), by section of help; "": a group that has only commands below it."""
_ADVISORS = ("networkpolicy", "seccomp", "capabilities", "filesystem", "apparmor", "tracingpolicy")
_BELOW = {
    "advise": {name: f"advise:{name}" for name in _ADVISORS},
    "behavior": {name: f"behavior:{name}" for name in ("save", "update", "merge", "show", "diff", "check", "rules")},
    "policy": {
        **{name: f"policy:{name}" for name in ("check", "explain", "generate", "install", "installed")},
        "list": "policy:list_policies",
        "uninstall": "policy:uninstall",
    },
    "export": {name: f"export:{name}" for name in ("install", "status", "uninstall")},
    "ci": {name: f"ci:{name}" for name in ("run", "start", "step", "stop", "judge")},
    "config": {name: f"config:{name}" for name in ("view", "check", "path")},
    "recording": {name: f"recording:{name}" for name in ("info", "redact", "query", "convert")},
}
_SECTIONS = {"advise": "Advisors", "recording": "Recordings"}
_WITHOUT_GADGETS = ("record", "ui", "observe", "flows", "enforce")
"""commands that take pods and choose their gadgets themselves"""
_WITHOUT_FLAGS = ("ci", "export", "recording")
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

    def misplaced(self, below: typer.Context, words: Sequence[str]) -> UsageError | None:
        """Suggests `kubectl gadget trace exec --record FILE` for `kubectl gadget record exec`."""
        command = str(below.info_name)
        if command not in _WITHOUT_GADGETS:
            return None
        path = path_above(below)
        known = {entry.command[-1]: entry for entry in index()}
        for word in words:
            names = word.replace(",", "+")
            entries = [known.get(name) for name in names.split("+")]
            if None in entries:
                continue
            meant = f"{path} {' '.join(entries[0].command[:-1])} {names}" if entries[0] else ""
            meant += " --record FILE" if command == "record" else ""
            if "," in word:
                return UsageError(f"{command} takes no gadgets", meant)
            return named_like_command("gadget", word, meant)
        return None

    def unknown(self, name: str, path: str) -> UsageError:
        """Suggests `kubectl gadget trace open` for `kubectl gadget open`."""
        if found := unknown_gadget(name, path):
            return found
        if instead := equivalents("commands").get(name):
            return UsageError(f"unknown command {name!r}", f"{path} {instead}")
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
    from kubectl_gadget.cli.gadgets import built_in_command

    return built_in_command(name)


def _verb(verb: str) -> Command:
    from kubectl_gadget.cli.gadgets import verb_group

    return verb_group(verb, _VERBS.get(verb, _OTHER_VERB) + ".")
