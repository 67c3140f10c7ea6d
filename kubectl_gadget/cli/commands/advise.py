"""`kubectl gadget advise seccomp` and the other advisors: watch, then print what can be applied.

The trap: seccomp profiles are JSON files that a node reads, and all other advice consists of Kubernetes objects.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.commands.advisor import (
    SUMMARIES,
    AdviseFlags,
    advisor_page,
    baselines_of,
    print_advice,
    print_documents,
    watch,
    write_documents,
)
from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.flags import connect
from kubectl_gadget.cli.flags.declaration import SHOW, TypedOnly, flag
from kubectl_gadget.cli.flags.own_namespace import own_namespace
from kubectl_gadget.cli.flags.policy_flags import objects_flag
from kubectl_gadget.cli.flags.run_flags import replaying
from kubectl_gadget.cli.framework.command import Entry, GadgetGroup, GroupParts, OneAtATime, lazily, make_group
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.cli.values import word_lists
from kubectl_gadget.errors import GadgetError, UsageError

if TYPE_CHECKING:
    from kubectl_gadget.advise.uses import Recording
    from kubectl_gadget.behavior.facts import Behavior

BLOCKED = 4
"""The exit code of --fail-on, also used when --check found something."""
_FROM_FACTS = ("apparmor", "tracingpolicy")
"""advisors in advise_from_facts.py"""


SECCOMP_PAGE = advisor_page(
    "seccomp",
    (
        ("web-0 --timeout 1h > web.json", "the profile of the pod web-0, of what it does in an hour"),
        ("-l app=web --format SeccompProfile", "of all replicas, for the security-profiles-operator; Ctrl-C ends"),
        ("-l app=web --merge web.json", "an earlier profile, and what is missing in it"),
    ),
    "The profile denies what was not observed: observe for long, and through a restart. See docs/advise.md.",
)
Format = Annotated[
    str | None,
    flag(
        SHOW,
        "--format",
        metavar="FORMAT",
        help="profile, patch or SeccompProfile (default: profile)",
        choices=("profile", "patch", "SeccompProfile"),
    ),
    word_lists.one_of("profile", "patch", "SeccompProfile"),
]
Merge = Annotated[
    str | None,
    flag(SHOW, "--merge", metavar="FILE", help="Extend this profile"),
    word_lists.some_text,
    TypedOnly.FILES,
]


def seccomp(pods: Pods, flags: AdviseFlags, format: Format = None, merge: Merge = None) -> int:
    """Makes profiles from system calls."""
    from kubectl_gadget.advise import seccomp as advisor
    from kubectl_gadget.advise.files import read_text

    earlier = None if merge is None else advisor.read_profile(read_text(merge), merge)
    format = format or "profile"
    if (baselines := baselines_of(flags, pods)) is not None:
        return _seccomp_of(baselines, format, earlier, flags)
    recording, code = watch(advisor.RECIPE, pods, flags)
    documents = advisor.advise(recording, format, earlier)
    warnings = list(advisor.warnings(recording))
    if flags.watch.directory is not None:
        print_documents(documents, recording, flags, warnings, "json" if format == "profile" else None)
        return code
    if format == "profile" and len(documents) > 1:
        warnings.append("there are several profiles; --directory DIR writes a file for each")
    if format == "profile" and len(documents) == 1:
        sys.stdout.write(json.dumps(documents[0].body, indent=2) + "\n")
        documents = []
    print_documents(documents, recording, flags, warnings)
    return code


def _seccomp_of(baselines: "Behavior", format: str, earlier: "Mapping[str, object] | None", flags: AdviseFlags) -> int:
    from kubectl_gadget.behavior.advice.baselines import not_looked_at
    from kubectl_gadget.behavior.advice.seccomp import profiles
    from kubectl_gadget.behavior.facts import FactKind

    documents, warnings = profiles(baselines, format, earlier)
    for text in warnings:
        connect.say(f"warning: {text}")
    without = not_looked_at(baselines, FactKind.SYSCALL)
    if without and documents:
        connect.say(f"warning: no system calls, so no profile: {', '.join(map(str, without))}")
    remedy = "kubectl gadget behavior save or update --syscalls; or record --for behavior-syscalls"
    if not documents:
        raise GadgetError("the baseline has no system calls, which are looked at only when asked for", remedy)
    if format == "profile":
        if flags.watch.directory is None:
            if len(documents) > 1:
                connect.say("warning: there are several profiles; --directory DIR writes a file for each")
            else:
                sys.stdout.write(json.dumps(documents[0].body, indent=2) + "\n")
                return 0
        else:
            write_documents(Path(flags.watch.directory), documents, "json")
            return 0
    return print_advice(documents, flags)


CAPABILITIES_PAGE = advisor_page(
    "capabilities",
    (
        ("-l app=web --timeout 1h", "what the pods of app=web use in an hour, as a patch of their workload"),
        ("-A --record used.kgr", "of all pods, kept for later"),
        ("--from used.kgr --from later.kgr", "from what was kept"),
    ),
    "Ctrl-C stops observing and prints. See docs/advise.md.",
)


def capabilities(pods: Pods, flags: AdviseFlags) -> int:
    """Makes patches from checks of capabilities."""
    from kubectl_gadget.advise import capabilities as advisor

    if (baselines := baselines_of(flags, pods)) is not None:
        from kubectl_gadget.behavior.advice.capabilities import capabilities as advice

        return print_advice(advice(baselines), flags)
    recording, code = watch(advisor.RECIPE, pods, flags)
    print_documents(advisor.advise(recording), recording, flags)
    return code


FILESYSTEM_PAGE = advisor_page(
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


NETWORKPOLICY_PAGE = advisor_page(
    "networkpolicy",
    (
        ("-n shop --timeout 24h > policies.yaml", "a policy for each workload of shop, after a day"),
        ("-n shop --timeout 24h --record day.kgr --format cilium", "the same for Cilium, with a recording"),
        ("--from day.kgr --check policies.yaml", "what policies would have blocked; exit code 4 if anything"),
    ),
    "Ctrl-C stops observing and prints. See docs/advise.md.",
)
PolicyFormat = Annotated[
    str | None,
    flag(
        SHOW,
        "--format",
        metavar="FORMAT",
        help="kubernetes or cilium (default: kubernetes)",
        choices=("kubernetes", "cilium"),
    ),
    word_lists.one_of("kubernetes", "cilium"),
]
Check = Annotated[
    str | None,
    flag(SHOW, "--check", metavar="FILE", help="Only show what these policies would have blocked"),
    word_lists.some_text,
    TypedOnly.ACTION,
]


Objects = Annotated[str | None, objects_flag(SHOW), word_lists.some_text, TypedOnly.ACTION]


def networkpolicy(
    pods: Pods, flags: AdviseFlags, format: PolicyFormat = None, check: Check = None, objects: Objects = None
) -> int:
    """Makes policies from flows, or reports what given policies would have done to them."""
    from kubectl_gadget.advise import networkpolicy as advisor
    from kubectl_gadget.advise.files import read_text
    from kubectl_gadget.network_policies.evaluate import read_policies

    if format is not None and check is not None:
        raise UsageError("--format and --check cannot be used together")
    if (baselines := baselines_of(flags, pods)) is not None:
        from kubectl_gadget.behavior.advice.network_policies import network_policies

        if check or objects or format == "cilium":
            given = "--check" if check else "--objects" if objects else "--format cilium"
            raise UsageError(f"{given} cannot be used with a baseline, which has no addresses", "--from a recording")
        return print_advice(network_policies(baselines), flags)
    policies = None
    if check:
        offline = flags.target.local or bool(flags.watch.recordings) or replaying.get() is not None
        policies = read_policies(read_text(check), check, own_namespace(flags.scope, flags.cluster, offline))
    recording, code = watch(advisor.RECIPE, pods, flags, objects)
    if policies is not None:
        return _report(recording, policies, flags) or code
    print_documents(advisor.advise(recording, format or "kubernetes"), recording, flags, advisor.warnings(recording))
    return code


def _report(recording: "Recording", policies: Sequence[Mapping[str, object]], flags: AdviseFlags) -> int:
    """Prints what would have been blocked; returns BLOCKED if there is anything."""
    from dataclasses import asdict

    from kubectl_gadget.cli.help.printed_tables import print_table
    from kubectl_gadget.network_policies.evaluate import blocked

    print_documents((), recording, flags)
    found = blocked(recording.inventory, recording.uses, policies)
    if flags.watch.output == "json":
        sys.stdout.write(json.dumps([asdict(item) for item in found], indent=2) + "\n")
    elif flags.watch.output == "yaml":
        import yaml

        sys.stdout.write(yaml.safe_dump([json.loads(json.dumps(asdict(item))) for item in found], sort_keys=False))
    elif found:
        rows = [
            (f"{item.namespace}/{item.pod}", item.direction, item.peer, f"{item.port}/{item.protocol}",
             str(item.connections), ",".join(item.policies))
            for item in found
        ]  # fmt: skip
        print_table(("POD", "DIRECTION", "PEER", "PORT", "CONNECTIONS", "POLICIES"), rows)
    connect.say(f"{len(found)} of {len(recording.uses)} flows would have been blocked")
    return BLOCKED if found else 0


def advise_group() -> GadgetGroup:
    """`kubectl gadget advise`."""
    module = "kubectl_gadget.cli.commands.advise"
    entries = {
        name: Entry(
            summary,
            "Advisors",
            lazily(f"{module}{'_from_facts' if name in _FROM_FACTS else ''}:{name}:{name.upper()}_PAGE", name),
        )
        for name, summary in SUMMARIES.items()
    }
    page = Page(
        "Observe pods, then write policies that allow what they did.",
        usage="ADVISOR [POD|KIND/NAME...] [flags]",
        more="kubectl gadget advise ADVISOR --help explains an advisor.",
    )
    return make_group({"flags": AdviseFlags}, "advise", GroupParts(page, entries, noun="advisor", kind=OneAtATime))
