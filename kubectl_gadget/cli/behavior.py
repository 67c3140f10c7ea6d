"""Commands of `behavior`: baselines of what workloads do, and what is new in them.

The facts of a command come from a baseline, recordings, or a live run. A file's first bytes, not its name, say which it
is.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_gadget.cli import run, values
from kubectl_gadget.cli.flags import (
    SHOW,
    FlagSet,
    Names,
    OnlyWarnings,
    OutputFlags,
    ScopeFlags,
    Seconds,
    Switch,
    TargetFlags,
    Text,
    Texts,
    TypedOnly,
    Verbose,
    flag,
    format_flag,
)
from kubectl_gadget.cli.printing import say
from kubectl_gadget.cli.run_flags import RunFlags, SilentRunFlags, recorded_options, run_options
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.kube.selectors import parse
from kubectl_gadget.output.escape import escape, for_log
from kubectl_gadget.output.registry import BEHAVIORS, CHANGES
from kubectl_gadget.wording import count, did_you_mean, some

if TYPE_CHECKING:
    from kubectl_gadget.behavior.comparison import Change
    from kubectl_gadget.behavior.facts import Behavior, Coverage, Fact, Unit
    from kubectl_gadget.behavior.generalization import Generalizer
    from kubectl_gadget.run.run_options import RunOptions


# Where facts come from, and flags that several commands share

Files = Annotated[tuple[str, ...], typer.Argument(metavar="FILE")]
Words = Annotated[tuple[str, ...], typer.Argument(metavar="BASELINE")]
RulesFile = Annotated[
    Text, flag(SHOW, "--rules FILE", "Your rules, before the built-in ones: behavior rules shows them")
]

WithSyscalls = Annotated[
    Switch,
    flag(SHOW, "--syscalls", "Also system calls, for advise seccomp; this makes each call slower"),
    TypedOnly.ACTION,
]


@dataclass(frozen=True)
class CollectFlags(FlagSet):
    """Flags for where facts come from."""

    recordings: Annotated[
        Texts, flag(SHOW, "--from FILE", "A recording to use instead of watching; can be repeated")
    ] = None
    timeout: Annotated[Seconds, flag(SHOW, "--timeout TIME", "How long to watch: 10m, 24h (default: until Ctrl-C)")] = (
        None
    )
    rules: RulesFile = None
    syscalls: WithSyscalls = None
    quiet: OnlyWarnings = None
    verbose: Verbose = None

    def validate(self) -> None:
        """Raises UsageError if flags of a live run are given with recordings."""
        if self.recordings is not None:
            for name, given in self._of_live_runs():
                if given is not None:
                    raise UsageError(f"{name} and --from cannot be used together")

    def validate_compared(self, live: bool, selector: str | None) -> None:
        """Raises UsageError if flags contradict OLD and NEW: files, or, if `live`, label selectors."""
        if not live:
            for name, given in (("--from", self.recordings), *self._of_live_runs()):
                if given is not None:
                    what = f"{name} has no effect here: OLD and NEW are files"
                    raise UsageError(what, "--live OLD NEW, for label selectors")
        elif self.recordings is not None or selector is not None:
            given = "-l" if selector is not None else "--from"
            raise UsageError(f"{given} and --live cannot be used together", "--live OLD-LABELS NEW-LABELS")

    def _of_live_runs(self) -> tuple[tuple[str, object], ...]:
        return ("--timeout", self.timeout), ("--syscalls", self.syscalls)


@dataclass(frozen=True)
class BehaviorFlags(SilentRunFlags):
    """All flags of commands that watch."""

    collect: CollectFlags


def generalizer(rules: str | None) -> "Generalizer":
    """Return the rules of the program, and of a file. Raises UsageError."""
    from kubectl_gadget.behavior.generalization import Generalizer, read_rules

    return Generalizer(read_rules(None if rules is None else Path(rules)))


def behavior_of(text: str, options: "RunOptions", with_rules: "Generalizer") -> "Behavior":
    """The behavior in a baseline or a recording, which may be in an object store. Raises GadgetError."""
    from kubectl_gadget.recording.places import is_recording, place_of

    place = place_of(text)
    if not isinstance(place, Path) or is_recording(place):
        from kubectl_gadget.behavior.facts import merge
        from kubectl_gadget.behavior.run import collect_recordings

        return merge(collect_recordings([place], options, with_rules, sys.stderr))
    from kubectl_gadget.behavior.baseline import read_baseline

    return read_baseline(place).behavior


def collected(words: Sequence[str], flags: BehaviorFlags, before: "Behavior | None" = None) -> "tuple[Behavior, int]":
    """Return what the pods of `words` do during this run, or did in recordings, and the exit code. `before`: the
    baseline to compare with, whose kinds of facts are collected. Raises GadgetError."""
    from kubectl_gadget.behavior.facts import merge
    from kubectl_gadget.behavior.run import collect_live, collect_recordings
    from kubectl_gadget.recording.places import places_of

    with_rules, files = generalizer(flags.collect.rules), flags.collect.recordings
    flags.collect.validate()
    if files is not None:
        options = recorded_options(pod_words(words), flags.scope, flags.target)
        found, code = merge(collect_recordings(places_of(files), options, with_rules, sys.stderr)), 0
    else:
        (found,), code = collect_live(live_options(words, flags, before), with_rules, sys.stderr)
    if not found.coverage:
        raise GadgetError("no container was watched, so there is nothing to save", "-n NAMESPACE, -A, or watch longer")
    return found, code


def live_options(words: Sequence[str], flags: BehaviorFlags, before: "Behavior | None" = None) -> "RunOptions":
    """The options of a run that watches these pods."""
    from kubectl_gadget.behavior.run import behavior_runs

    pods, collect = pod_words(words), flags.collect
    output = OutputFlags(timeout=collect.timeout, quiet=collect.quiet, verbose=collect.verbose)
    syscalls = collect.syscalls if collect.syscalls is not None else before is not None and before.has_syscalls
    return run_options(behavior_runs(syscalls), pods, flags.with_output(output))


def pod_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return names of pods and workloads. Raises UsageError."""
    if recording := next((word for word in words if word.endswith(values.RECORDING)), None):
        raise UsageError(f"{recording} is a recording and not a pod", f"--from {recording}")
    try:
        return values.pod_names(list(words))
    except ValueError as error:
        raise UsageError(str(error)) from None


# `save`, `update` and `merge` write baselines


@dataclass(frozen=True)
class EvidenceFlags:
    """Options for writing the evidence."""

    no_evidence: Annotated[
        Switch, flag(SHOW, "--no-evidence/--evidence", "Leave out times, counts and rows at the end of the file")
    ] = None


@dataclass(frozen=True)
class NewFileFlags(EvidenceFlags):
    """Options for writing a file that may exist."""

    force: Annotated[Switch, flag(SHOW, "--force", "Replace an existing file"), TypedOnly.FILES] = None

    def validate(self, path: Path, remedy: str) -> None:
        """Raises UsageError if the file exists and must not be replaced."""
        if path.exists() and not self.force:
            raise UsageError(f"{path} exists", f"{remedy}--force to replace it")


To = Annotated[Text, flag(SHOW, "--to FILE", "Write it to this file (default: print it)")]


def save(words: Words, flags: BehaviorFlags, file: NewFileFlags) -> int:
    from kubectl_gadget.advise.documents import check_writable

    path = _baseline(words, "save")
    file.validate(path, f"kubectl gadget behavior update {path}, or ")
    check_writable(path)
    found, code = collected(words[1:], flags)
    _write(path, found, not file.no_evidence)
    _report(found, path, bool(flags.collect.quiet))
    return code


def update(words: Words, flags: BehaviorFlags, file: EvidenceFlags) -> int:
    from kubectl_gadget.advise.documents import check_writable
    from kubectl_gadget.behavior.baseline import read_baseline
    from kubectl_gadget.behavior.comparison import ChangeKind, all_without_chance, compare
    from kubectl_gadget.behavior.facts import merge

    path = _baseline(words, "update")
    before = read_baseline(path).behavior
    check_writable(path)
    found, code = collected(words[1:], flags, before)
    new = [change for change in compare(before, found) if change.kind is ChangeKind.NEW]
    together = merge([before, all_without_chance(found, before.learned)])
    _write(path, together, not file.no_evidence)
    say(f"{len(new)} new facts")
    _report(together, path, bool(flags.collect.quiet))
    return code


def merge(files: Files, file: NewFileFlags, to: To = None) -> int:
    from kubectl_gadget.behavior.baseline import baseline_text, read_baseline
    from kubectl_gadget.behavior.comparison import all_without_chance
    from kubectl_gadget.behavior.facts import merge as merge_behaviors

    if not files:
        raise UsageError("no baseline was given", "kubectl gadget behavior merge BASELINE BASELINE")
    each = [read_baseline(path).behavior for path in dict.fromkeys(map(Path, files))]
    learned = [rule for behavior in each for rule in behavior.learned]
    together = merge_behaviors(all_without_chance(behavior, learned) for behavior in each)
    if to is None:
        sys.stdout.write(baseline_text(together, not file.no_evidence))
        return 0
    file.validate(Path(to), "")
    _write(Path(to), together, not file.no_evidence)
    _report(together, Path(to), False)
    return 0


def _baseline(words: tuple[str, ...], command: str) -> Path:
    if not words:
        raise UsageError("no file for the baseline was given", f"kubectl gadget behavior {command} BASELINE.yaml")
    return Path(words[0])


def _write(path: Path, found: "Behavior", with_evidence: bool) -> None:
    """Replaces the file. Called after everything went well, since it may be under review, and the only copy."""
    from kubectl_gadget.advise.documents import write_text
    from kubectl_gadget.behavior.baseline import baseline_text

    text = baseline_text(found, with_evidence)
    write_text(path, text)


def _report(found: "Behavior", path: Path, quiet: bool) -> None:
    """Says what was written, and what is incomplete in it."""
    from kubectl_gadget.behavior.facts import USUAL_KINDS, FactKind

    if not quiet:
        say(f"{path}: {count(len(found.facts), 'fact')} of {count(len(found.coverage), 'container')}")
    for text in dict.fromkeys(found.missing):
        say(f"warning: not watched: {text}")
    reasons: dict[str, list[str]] = {}
    for unit, coverage in found.coverage.items():
        if not coverage.complete_runs:
            for reason in coverage.incomplete:
                reasons.setdefault(reason, []).append(str(unit))
    for reason, units in reasons.items():
        say(f"warning: incomplete: {some(units, 3)}: {reason}")
    looked_at = {kind for coverage in found.coverage.values() for kind in coverage.kinds}
    if unseen := ", ".join(kind for kind in FactKind if kind in USUAL_KINDS - looked_at):
        say(f"warning: not observed: {unseen} (record --for behavior observes everything)")


# `show` and `rules`: facts in words, and the rules by which events become facts

FactsFormat = Annotated[Text, format_flag(BEHAVIORS)]
Kinds = Annotated[Names, flag(SHOW, "--kind KINDS", "Only these kinds of facts: program,connect"), TypedOnly.SELECTION]
Learn = Annotated[
    Switch,
    flag(SHOW, "--learn", "Propose rules from two runs that should be equal: baselines or recordings"),
    TypedOnly.ACTION,
]
Try = Annotated[Texts, flag(SHOW, "--try PATH", "Show what this path becomes; can be repeated"), TypedOnly.ACTION]


def show(
    files: Files,
    scope: ScopeFlags,
    target: TargetFlags,
    output: FactsFormat = None,
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
        _print_facts(found)
    return 0


def chosen(found: "Behavior", kinds: tuple[str, ...] | None, scope: ScopeFlags, target: TargetFlags) -> "Behavior":
    """The facts that flags select. Raises UsageError."""
    from kubectl_gadget.behavior.facts import FactKind

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


def _print_facts(found: "Behavior") -> None:
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


def _learn(files: Sequence[str], with_rules: "Generalizer") -> int:
    """Print rules with which two runs would be equal. Return 4 if they do not explain everything."""
    from kubectl_gadget.behavior.learning import learned, rules_text

    if len(files) != 2:
        raise UsageError("two runs are compared", "kubectl gadget behavior rules --learn ONE OTHER")
    options = recorded_options((), ScopeFlags(all_namespaces=True), TargetFlags())
    one, other = (behavior_of(file, options, with_rules) for file in files)
    found = learned(one, other, with_rules)
    sys.stdout.write(rules_text(found, [for_log(file) for file in files]))
    for fact in found.unexplained:
        say(f"no rule: {for_log(fact.says)}")
    return CHANGED if found.unexplained else 0


def rules(files: Files, rules: RulesFile = None, try_paths: Try = None, learn: Learn = None) -> int:
    """Prints the rules of the program, what they make of paths, or rules from two runs."""
    if learn or files:
        if not learn or try_paths:
            raise UsageError("files are only for --learn", "kubectl gadget behavior rules --learn ONE OTHER")
        return _learn(files, generalizer(rules))
    from kubectl_gadget.behavior.generalization import LISTS, default_text

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
    made = applied.path(path)
    only_read = applied.read_path(made)
    more = f", and {escape(only_read)} where it is only read" if only_read != made else ""
    return f"{escape(path)} becomes {escape(made)}{more}"


# `diff`: what is new in one baseline, recording or live selection compared with another

CHANGED, INCONCLUSIVE = 4, 5
"""exit codes"""
ChangesFormat = Annotated[Text, format_flag(CHANGES)]
Live = Annotated[
    Switch,
    flag(SHOW, "--live", "OLD and NEW are label selectors, whose pods are watched side by side"),
    TypedOnly.SELECTION,
]
Counts = Annotated[
    float | None,
    flag(SHOW, "--counts N", "Also show what happens at least N times more, or less, often per pod"),
    values.factor,
]


def diff(
    words: Words, flags: BehaviorFlags, output: ChangesFormat = None, live: Live = None, counts: Counts = None
) -> int:
    """Prints changes. Incomplete data must not be reported as "no changes", so it has an exit code of its
    own."""
    from kubectl_gadget.behavior.comparison import compare, doubts, paired

    if len(words) != 2:
        what = "two label selectors are needed" if live else "two baselines or recordings are needed"
        raise UsageError(what, f"kubectl gadget behavior diff {'--live OLD-LABELS NEW-LABELS' if live else 'OLD NEW'}")
    flags.collect.validate_compared(bool(live), flags.scope.selector)
    old, new = _live(words, flags) if live else _files(words, flags)
    aligned = paired(old, new)
    if aligned is not old:
        say("the two sides have one workload each, with different names: they are compared with each other")
    changes = compare(aligned, new, counts)
    reasons = doubts(aligned, new)
    _print_changes(changes, reasons, output or "text")
    return CHANGED if changes else INCONCLUSIVE if reasons else 0


def _files(words: Words, flags: BehaviorFlags) -> "tuple[Behavior, Behavior]":
    with_rules, options = generalizer(flags.collect.rules), recorded_options((), flags.scope, flags.target)
    old, new = (behavior_of(word, options, with_rules) for word in words)
    return old, new


def _live(words: Words, flags: BehaviorFlags) -> "tuple[Behavior, Behavior]":
    from kubectl_gadget.behavior.run import collect_live

    selectors = [parse(word) for word in words]
    options = live_options((), flags)
    if options.local:
        raise UsageError("--live needs a cluster: it selects pods by labels", "two recordings or baselines")
    (old, new), _ = collect_live(options, generalizer(flags.collect.rules), sys.stderr, selectors)
    return old, new


def _print_changes(changes: "tuple[Change, ...]", reasons: tuple[str, ...], output: str) -> None:
    from kubectl_gadget.behavior import comparison

    if output == "json":
        sys.stdout.write(comparison.json_report(changes, reasons))
    elif output == "markdown":
        sys.stdout.writelines(line + "\n" for line in comparison.markdown_report(changes, reasons))
    elif output == "html":
        sys.stdout.writelines(line + "\n" for line in comparison.html_report(changes, reasons))
    else:
        sys.stdout.writelines(for_log(line) + "\n" for line in comparison.text_report(changes, reasons))


# `check`: what workloads do that is not in their baseline, while it happens

_REST_MS = 250
"""A check is meant to be left on: agents look for events four times a second, which takes less of the node."""


def check(words: Words, flags: RunFlags, rules: RulesFile = None) -> int:
    """Shows new facts. The client drops known facts, and the kernel already drops repeated opens, so the number of rows
    says nothing about how much was watched; the summary does."""
    from kubectl_gadget.behavior.baseline import read_baseline
    from kubectl_gadget.behavior.new_facts import NewFacts
    from kubectl_gadget.behavior.run import MISSING, Beginning, behavior_runs
    from kubectl_gadget.kube.inventory import SeenInventory

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
    return run.run(options, sys.stdout, sys.stderr)


def _as_baseline(baseline: "Behavior") -> "Callable[[Unit], Unit]":
    """Return a function that maps a container's unit to itself, or to the baseline's only workload if the baseline
    lacks it."""
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
            say(f"{unit.workload} is compared with {only}, the only workload of the baseline")
        return replace(unit, workload=only)

    return as_only
