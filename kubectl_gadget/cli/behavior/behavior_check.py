"""`kubectl gadget behavior check`: shows what workloads do that is not in their baseline, while it happens.

The trap: the client drops known facts, and the kernel already drops repeated opens, so the number of rows says nothing
about how much was watched; the summary does.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_gadget.cli.behavior.fact_sources import RulesFile, Words, generalizer, pod_words
from kubectl_gadget.cli.flags import connect
from kubectl_gadget.cli.flags.run_flags import RunFlags, run_options
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubectl_gadget.behavior.facts import Behavior, Unit

_REST_MS = 250
"""A check is meant to be left on: agents look for events four times a second, which takes less of the node."""


def check(words: Words, flags: RunFlags, rules: RulesFile = None) -> int:
    from kubectl_gadget.behavior.baseline import read_baseline
    from kubectl_gadget.behavior.new_facts import NewFacts
    from kubectl_gadget.behavior.run import MISSING, Beginning, behavior_runs
    from kubectl_gadget.kube.seen_inventory import SeenInventory
    from kubectl_gadget.run.run import run

    if not words:
        raise UsageError("no baseline was given", "kubectl gadget behavior check BASELINE.yaml")
    with_rules = generalizer(rules)
    baseline = read_baseline(Path(words[0])).behavior
    if not baseline.coverage:
        raise UsageError(f"{words[0]} has no containers", f"kubectl gadget behavior update {words[0]}")
    pods = pod_words(words[1:])
    options = run_options(behavior_runs(baseline.has_syscalls), pods, flags)
    seen = SeenInventory()
    beginning = Beginning()
    transform = NewFacts(baseline, with_rules, seen.inventory, _as_baseline(baseline), beginning.text)
    options = replace(
        options,
        transform=transform,
        services=(*options.services, beginning.noted),
        followers=(seen.follower(MISSING),),
        doing=f"checking behavior against {words[0]}",
        rest_ms=_REST_MS,
    )
    return run(options, sys.stdout, sys.stderr)


def _as_baseline(baseline: "Behavior") -> "Callable[[Unit], Unit]":
    """A container's unit, or that of the baseline's only workload where the baseline does not have it."""
    workloads = {unit.workload for unit in baseline.coverage}

    def unit_of(unit: "Unit") -> "Unit":
        return unit

    if len(workloads) != 1:
        return unit_of
    (only,) = workloads
    said: set[object] = set()

    def as_only(unit: "Unit") -> "Unit":
        if unit.workload == only:
            return unit
        if unit.workload not in said:
            said.add(unit.workload)
            connect.say(f"{unit.workload} is compared with {only}, the only workload of the baseline")
        return replace(unit, workload=only)

    return as_only
