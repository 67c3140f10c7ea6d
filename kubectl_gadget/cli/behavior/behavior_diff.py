"""`kubectl gadget behavior diff`: what is new in one baseline, recording or live selection compared with another.

The trap: incomplete data must not be reported as "no changes"; exit code 5 means that the answer is not known.
"""

import sys
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.behavior.fact_sources import BehaviorFlags, Words, behavior_of, generalizer, live_options
from kubectl_gadget.cli.flags import connect
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Switch, Text, TypedOnly, flag, format_flag
from kubectl_gadget.cli.flags.run_flags import recorded_options
from kubectl_gadget.cli.values import amounts
from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.registry import CHANGES

if TYPE_CHECKING:
    from kubectl_gadget.behavior.comparison import Change
    from kubectl_gadget.behavior.facts import Behavior

CHANGED, INCONCLUSIVE = 4, 5
"""exit codes"""
Format = Annotated[Text, format_flag(CHANGES)]
Live = Annotated[
    Switch,
    flag(SHOW, "--live", "OLD and NEW are label selectors, whose pods are watched side by side"),
    TypedOnly.SELECTION,
]
Counts = Annotated[
    float | None,
    flag(SHOW, "--counts N", "Also show what happens at least N times more, or less, often per pod"),
    amounts.factor,
]


def diff(words: Words, flags: BehaviorFlags, output: Format = None, live: Live = None, counts: Counts = None) -> int:
    from kubectl_gadget.behavior.comparison import compare, doubts, paired

    if len(words) != 2:
        what = "two label selectors are needed" if live else "two baselines or recordings are needed"
        raise UsageError(what, f"kubectl gadget behavior diff {'--live OLD-LABELS NEW-LABELS' if live else 'OLD NEW'}")
    old, new = _live(words, flags) if live else _files(words, flags)
    aligned = paired(old, new)
    if aligned is not old:
        connect.say("the two sides have one workload each, with different names: they are compared with each other")
    changes = compare(aligned, new, counts)
    reasons = doubts(aligned, new)
    _print(changes, reasons, output or "text")
    return CHANGED if changes else INCONCLUSIVE if reasons else 0


def _files(words: Words, flags: BehaviorFlags) -> "tuple[Behavior, Behavior]":
    for name, given in (
        ("--from", flags.collect.recordings),
        ("--timeout", flags.collect.timeout),
        ("--syscalls", flags.collect.syscalls),
    ):
        if given is not None:
            raise UsageError(f"{name} has no effect here: OLD and NEW are files", "--live OLD NEW, for label selectors")
    with_rules, options = generalizer(flags.collect.rules), recorded_options((), flags.scope, flags.target)
    old, new = (behavior_of(word, options, with_rules) for word in words)
    return old, new


def _live(words: Words, flags: BehaviorFlags) -> "tuple[Behavior, Behavior]":
    from kubectl_gadget.behavior.run import collect_live
    from kubectl_gadget.kube.label_selectors import parse

    if flags.collect.recordings is not None or flags.scope.selector is not None:
        given = "-l" if flags.scope.selector is not None else "--from"
        raise UsageError(f"{given} and --live cannot be used together", "--live OLD-LABELS NEW-LABELS")
    selectors = [parse(word) for word in words]
    options = live_options((), flags)
    if options.local:
        raise UsageError("--live needs a cluster: it selects pods by labels", "two recordings or baselines")
    (old, new), _ = collect_live(options, generalizer(flags.collect.rules), sys.stderr, selectors)
    return old, new


def _print(changes: "tuple[Change, ...]", reasons: tuple[str, ...], output: str) -> None:
    from kubectl_gadget.behavior import change_report
    from kubectl_gadget.output.escape import for_log

    if output == "json":
        sys.stdout.write(change_report.json_report(changes, reasons))
    elif output == "markdown":
        sys.stdout.writelines(line + "\n" for line in change_report.markdown_report(changes, reasons))
    elif output == "html":
        sys.stdout.writelines(line + "\n" for line in change_report.html_report(changes, reasons))
    else:
        sys.stdout.writelines(for_log(line) + "\n" for line in change_report.text_report(changes, reasons))
