"""Where the facts of a command come from: a baseline, recordings, or a live run; and flags that several commands share.

The trap: a file says by its first bytes what it is, not by its name.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_gadget.cli.flags.flag_declaration import SHOW, FlagSet, Seconds, Switch, Text, Texts, TypedOnly, flag
from kubectl_gadget.cli.flags.flag_sets import OnlyWarnings, OutputFlags, Verbose
from kubectl_gadget.cli.flags.run_flags import SilentRunFlags, recorded_options, run_options
from kubectl_gadget.cli.values import object_names
from kubectl_gadget.errors import GadgetError, UsageError

if TYPE_CHECKING:
    from kubectl_gadget.behavior.facts import Behavior
    from kubectl_gadget.behavior.generalization import Generalizer
    from kubectl_gadget.run.run_options import RunOptions

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


@dataclass(frozen=True)
class BehaviorFlags(SilentRunFlags):
    """All flags of commands that watch."""

    collect: CollectFlags


def generalizer(rules: str | None) -> "Generalizer":
    """The rules of the program, with those of a file. Raises UsageError."""
    from kubectl_gadget.behavior.generalization import Generalizer, read_rules

    return Generalizer(read_rules(None if rules is None else Path(rules)))


def behavior_of(text: str, options: "RunOptions", with_rules: "Generalizer") -> "Behavior":
    """The behavior in a baseline or a recording, which may be in an object store. Raises GadgetError."""
    from kubectl_gadget.recording.recording_places import is_recording, place_of

    place = place_of(text)
    if not isinstance(place, Path) or is_recording(place):
        from kubectl_gadget.behavior.facts import merge
        from kubectl_gadget.behavior.run import collect_recordings

        return merge(collect_recordings([place], options, with_rules, sys.stderr))
    from kubectl_gadget.behavior.baseline import read_baseline

    return read_baseline(place).behavior


def collected(words: Sequence[str], flags: BehaviorFlags, before: "Behavior | None" = None) -> "tuple[Behavior, int]":
    """What the pods of `words` do from now on, or did in recordings; and the exit code. `before`: the baseline that it
    is for, whose kinds of facts are looked at. Raises GadgetError."""
    from kubectl_gadget.behavior.facts import merge
    from kubectl_gadget.behavior.run import collect_live, collect_recordings
    from kubectl_gadget.recording.recording_places import places_of

    with_rules, files = generalizer(flags.collect.rules), flags.collect.recordings
    if files is not None:
        for name, given in (("--timeout", flags.collect.timeout), ("--syscalls", flags.collect.syscalls)):
            if given is not None:
                raise UsageError(f"{name} and --from cannot be used together")
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
    if recording := next((word for word in words if word.endswith(object_names.RECORDING)), None):
        raise UsageError(f"{recording} is a recording and not a pod", f"--from {recording}")
    try:
        return object_names.pod_names(list(words))
    except ValueError as error:
        raise UsageError(str(error)) from None
