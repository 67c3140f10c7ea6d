"""`kubectl gadget advise apparmor` and `advise tracingpolicy`: profiles from the facts of a run or of baselines.

The trap: a live run or a recording has all facts, but only a run that saw a container start has those of its start; the
comments in a profile say where this is not so.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.commands.advisor import (
    AdviseFlags,
    advisor_page,
    baselines_of,
    print_advice,
    write_files,
)
from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.flags.declaration import SHOW, flag
from kubectl_gadget.cli.flags.run_flags import recorded_options
from kubectl_gadget.cli.values import word_lists
from kubectl_gadget.errors import GadgetError, UsageError

if TYPE_CHECKING:
    from kubectl_gadget.behavior.facts import Behavior

_BASELINES = "kubectl gadget behavior save writes baselines. See docs/advise.md."
APPARMOR_PAGE = advisor_page(
    "apparmor",
    (
        ("web-0 --timeout 1h > web.profile", "the profile of the pod web-0, of what it does in an hour"),
        ("--from cart.yaml --directory profiles", "of a baseline, a file for each container"),
        ("--from cart.yaml --format patch", "the part of the workload that selects the profiles"),
    ),
    "Load it in complain mode first: aa-complain FILE. " + _BASELINES,
)
TRACINGPOLICY_PAGE = advisor_page(
    "tracingpolicy",
    (
        ("--from cart.yaml > policy.yaml", "what is not in a baseline is reported"),
        (
            "--from cart.yaml --deny > policy.yaml",
            "it is denied; enforce -f policy.yaml --dry-run shows what that does",
        ),
        ("-l app=web --timeout 1h", "of what pods do in an hour"),
    ),
    _BASELINES,
)
_FORMATS = ("profile", "patch", "AppArmorProfile")
Format = Annotated[
    str | None,
    flag(
        SHOW,
        "--format",
        metavar="FORMAT",
        help="profile, patch or AppArmorProfile (default: profile)",
        choices=_FORMATS,
    ),
    word_lists.one_of(*_FORMATS),
]
Deny = Annotated[bool | None, flag(SHOW, "--deny/--no-deny", help="Deny what was not seen (default: report it)")]


def apparmor(pods: Pods, flags: AdviseFlags, format: Format = None) -> int:
    """Makes profiles from facts."""
    from kubectl_gadget.behavior.advice import apparmor as advice

    if (format or "profile") == "profile" and flags.watch.output is not None:
        raise UsageError("-o has no effect on a profile, which is text", "--format patch or AppArmorProfile")
    found, multicall, code = _facts(pods, flags)
    if format == "patch":
        return print_advice(advice.patches(found, multicall), flags) or code
    if format == "AppArmorProfile":
        return print_advice(advice.operator_objects(found, multicall), flags) or code
    profiles = advice.profiles(found, multicall)
    if not profiles:
        return print_advice([], flags)
    if flags.watch.directory is not None:
        write_files(Path(flags.watch.directory), ((item.file_name, text) for item, text in profiles.items()))
    else:
        sys.stdout.write("\n".join(profiles.values()))
    return code


def tracingpolicy(pods: Pods, flags: AdviseFlags, deny: Deny = None) -> int:
    """Makes policies from facts."""
    from kubectl_gadget.behavior.advice.tracing_policies import tracing_policies

    found, multicall, code = _facts(pods, flags)
    documents = tracing_policies(found, multicall, bool(deny))
    if not documents and not any(unit.workload.namespace for unit in found.coverage):
        raise GadgetError("none of the containers is in a pod, so no policy can select it", "advise apparmor")
    return print_advice(documents, flags) or code


def _facts(pods: tuple[str, ...], flags: AdviseFlags) -> "tuple[Behavior, tuple[str, ...], int]":
    """The facts, the programs of which one file is many, and the exit code. Raises GadgetError."""
    from kubectl_gadget.behavior.facts import merge
    from kubectl_gadget.behavior.from_rows.generalization import Generalizer, read_rules
    from kubectl_gadget.recording.places import places_of
    from kubectl_gadget.session.behavior_run import collect_live, collect_recordings
    from kubectl_gadget.session.recipes.behavior_gadgets import behavior_runs

    rules, code = read_rules(None), 0
    multicall = tuple(rules.multicall)
    if (baselines := baselines_of(flags, pods)) is not None:
        return baselines, multicall, 0
    if flags.watch.recordings:
        options = recorded_options(pods, flags.scope, flags.target)
        files = tuple(places_of(flags.watch.recordings))
    else:
        options = flags.options(behavior_runs(), pods)
        files = options.replay.files if options.replay is not None else ()
    if files:
        found = merge(collect_recordings(files, replace(options, replay=None), Generalizer(rules), sys.stderr))
    else:
        (found,), code = collect_live(options, Generalizer(rules), sys.stderr)
    if not found.coverage:
        raise GadgetError("no container was watched, so there is no advice", "observe longer")
    return found, multicall, code
