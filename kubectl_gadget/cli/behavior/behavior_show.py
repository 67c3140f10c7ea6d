"""`kubectl gadget behavior show` and `rules`: facts in words, and the rules by which events become facts."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.behavior.fact_sources import Files, RulesFile, behavior_of, generalizer
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Names, Text, Texts, TypedOnly, flag, format_flag
from kubectl_gadget.cli.flags.flag_sets import ScopeFlags, TargetFlags
from kubectl_gadget.cli.flags.run_flags import recorded_options
from kubectl_gadget.counts import count
from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.registry import BEHAVIORS

if TYPE_CHECKING:
    from kubectl_gadget.behavior.facts import Behavior, Coverage, Fact
    from kubectl_gadget.behavior.generalization import Generalizer

Format = Annotated[Text, format_flag(BEHAVIORS)]
Kinds = Annotated[Names, flag(SHOW, "--kind KINDS", "Only these kinds of facts: program,connect"), TypedOnly.SELECTION]
Try = Annotated[Texts, flag(SHOW, "--try PATH", "Show what this path becomes; can be repeated"), TypedOnly.ACTION]


def show(
    files: Files,
    scope: ScopeFlags,
    target: TargetFlags,
    output: Format = None,
    kind: Kinds = None,
    rules: RulesFile = None,
) -> int:
    from kubectl_gadget.behavior.baseline import baseline_text

    if len(files) != 1:
        raise UsageError("name one baseline or recording", "kubectl gadget behavior show FILE")
    found = behavior_of(files[0], recorded_options((), scope, target), generalizer(rules))
    found = chosen(found, kind, scope, target)
    if output == "json":
        sys.stdout.writelines(json.dumps(fact_json(fact, found)) + "\n" for fact in found.facts)
    elif output == "yaml":
        sys.stdout.write(baseline_text(found))
    else:
        _print(found)
    return 0


def chosen(found: "Behavior", kinds: tuple[str, ...] | None, scope: ScopeFlags, target: TargetFlags) -> "Behavior":
    """The facts that flags select. Raises UsageError."""
    from dataclasses import replace

    from kubectl_gadget.behavior.facts import FactKind
    from kubectl_gadget.similar_names import did_you_mean

    for name in kinds or ():
        if name not in tuple(FactKind):
            raise UsageError(f"--kind: {name!r} is not a kind of facts{did_you_mean(name, tuple(FactKind))}")
    containers, namespace = target.containers, None if scope.all_namespaces else scope.namespace
    coverage = {
        unit: item
        for unit, item in found.coverage.items()
        if namespace in (None, unit.workload.namespace) and (not containers or unit.container in containers)
    }
    facts = tuple(fact for fact in found.facts if fact.unit in coverage and (not kinds or fact.kind in kinds))
    return replace(found, facts=facts, coverage=coverage)


def fact_json(fact: "Fact", of: "Behavior") -> dict[str, object]:
    """A fact for programs."""
    coverage = of.coverage.get(fact.unit)
    return fact.to_json(
        {
            "pods": fact.pods,
            "of_pods": coverage.pods if coverage else fact.pods,
            "runs": fact.runs,
            "of_runs": coverage.runs if coverage else fact.runs,
            "count": fact.count,
        }
    )


def _print(found: "Behavior") -> None:
    from kubectl_gadget.output.escape import for_log

    for unit, coverage in sorted(found.coverage.items(), key=lambda item: str(item[0])):
        lines = [str(unit), *(f"  {line}" for line in _coverage_lines(coverage))]
        lines += [f"  {fact.kind:<10}  {fact.says}{_seen(fact, coverage)}" for fact in found.of(unit)]
        sys.stdout.writelines(for_log(line) + "\n" for line in lines)


def _coverage_lines(coverage: "Coverage") -> "list[str]":
    from kubectl_gadget.behavior.facts import USUAL_KINDS, FactKind

    runs = f"{count(coverage.pods, 'pod')} in {count(coverage.runs, 'run')}"
    found = [f"{runs}, {coverage.complete_runs} complete"]
    if coverage.images:
        found.append(f"images: {', '.join(coverage.images)}")
    found += [f"incomplete: {reason}" for reason in coverage.incomplete]
    if unseen := ", ".join(kind for kind in FactKind if kind in USUAL_KINDS - coverage.kinds):
        found.append(f"not observed: {unseen}")
    return found


def _seen(fact: "Fact", coverage: "Coverage") -> str:
    parts = []
    if fact.pods != coverage.pods:
        parts.append(f"{fact.pods} of {coverage.pods} pods")
    if fact.runs != coverage.runs:
        parts.append(f"{fact.runs} of {coverage.runs} runs")
    return f"  (in {', '.join(parts)})" if parts else ""


def rules(rules: RulesFile = None, try_paths: Try = None) -> int:
    """Prints the rules of the program, or what they make of paths."""
    from kubectl_gadget.behavior.generalization import LISTS, default_text
    from kubectl_gadget.output.escape import escape

    applied = generalizer(rules)
    if try_paths:
        sys.stdout.writelines(f"{_tried(path, applied)}\n" for path in try_paths)
    elif rules is not None:
        own, all_rules = generalizer(None).rules, applied.rules
        number = sum(len(getattr(all_rules, key)) - len(getattr(own, key)) for key in LISTS)
        sys.stdout.write(f"{escape(rules)}: {count(number, 'rule')}, before the built-in ones\n")
    else:
        sys.stdout.write(default_text())
    return 0


def _tried(path: str, applied: "Generalizer") -> str:
    from kubectl_gadget.output.escape import escape

    made = applied.path(path)
    only_read = applied.read_path(made)
    more = f", and {escape(only_read)} where it is only read" if only_read != made else ""
    return f"{escape(path)} becomes {escape(made)}{more}"
