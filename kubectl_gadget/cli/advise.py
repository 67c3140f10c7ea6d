"""Commands that write policies and profiles from observations: the advisors of `advise`.

All share their flags, the run that they watch, and how suggestions are printed or written to files. Standard output has
nothing else. An hour of watching must not be lost to a mistake on the command line or to a full disk, so
everything that can be checked is checked first, and --record writes while the run observes.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget import gadgets
from kubectl_gadget.cli.cluster import own_namespace
from kubectl_gadget.cli.command import Entry, GadgetGroup, GroupParts, OneAtATime, make_group
from kubectl_gadget.cli.flags import (
    SHOW,
    FlagSet,
    OnlyWarnings,
    OutputFlags,
    RecordFile,
    Seconds,
    Switch,
    Text,
    Texts,
    TypedOnly,
    Verbose,
    flag,
    format_flag,
)
from kubectl_gadget.cli.gadgets import Pods
from kubectl_gadget.cli.pages import page_of
from kubectl_gadget.cli.policy_flags import OBJECTS_ARE_LOCAL, objects_flag
from kubectl_gadget.cli.printing import print_json, print_table, say
from kubectl_gadget.cli.run_flags import SilentRunFlags, recorded_options, replaying, run_options
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.output.registry import MANIFESTS
from kubectl_gadget.run.run_options import GadgetRun, Replay

if TYPE_CHECKING:
    from typer.models import OptionInfo

    from kubectl_gadget.advise.documents import Document
    from kubectl_gadget.advise.uses import Recipe, SeenUses
    from kubectl_gadget.behavior.facts import Behavior
    from kubectl_gadget.run.run_options import GadgetRun, RunOptions


# Flags


@dataclass(frozen=True)
class WatchFlags(FlagSet):
    """Flags of all advisors, apart from the selection of targets."""

    output: Annotated[Text, format_flag(MANIFESTS, f"{MANIFESTS.words} (default: {MANIFESTS.default})")] = None
    timeout: Annotated[
        Seconds, flag(SHOW, "--timeout TIME", "How long to observe: 30m, 24h (default: until Ctrl-C)")
    ] = None
    record: RecordFile = None
    recordings: Annotated[
        Texts, flag(SHOW, "--from FILE", "Use this recording or baseline, and do not observe; can be repeated")
    ] = None
    directory: Annotated[
        Text, flag(SHOW, "--directory DIR", "Write one file per object to this directory, print nothing")
    ] = None
    quiet: OnlyWarnings = None
    verbose: Verbose = None


@dataclass(frozen=True)
class AdviseFlags(SilentRunFlags):
    """All flags that advisors share."""

    watch: WatchFlags

    def options(self, gadgets: "tuple[GadgetRun, ...]", pods: tuple[str, ...]) -> "RunOptions":
        """The options of the run that is watched. Raises UsageError if flags contradict each other."""
        watch = self.watch
        output = OutputFlags(timeout=watch.timeout, quiet=watch.quiet, verbose=watch.verbose, record=watch.record)
        return run_options(gadgets, pods, self.with_output(output))

    def validate_unwatched(self) -> None:
        """Raises UsageError for what cannot be used with --from: flags that need a run, and a replay."""
        if replaying.get() is not None:
            raise UsageError("--from cannot be used in a replay", "kubectl gadget replay FILE FILE advise …")
        if self.watch.record is not None:
            raise UsageError("--record and --from cannot be used together", "several --from, which are combined")
        if self.watch.timeout is not None:
            raise UsageError("--timeout and --from cannot be used together")
        if self.scope.selector is not None:
            raise UsageError("-l cannot be used with --from: a recording has no labels", "name the pods, or -n and -c")


def advise_group(entries: Mapping[str, Entry]) -> GadgetGroup:
    """`kubectl gadget advise`."""
    parts = GroupParts(partial(page_of, "advise"), entries, noun="advisor", kind=OneAtATime)
    return make_group({"flags": AdviseFlags}, "advise", parts)


def advice_format(*formats: str) -> "OptionInfo":
    """Declares --format; the first one is the default."""
    help = f"{', '.join(formats[:-1])} or {formats[-1]} (default: {formats[0]})"
    return flag(SHOW, "--format FORMAT", help, choices=formats)


# What is seen: a run, recordings or baselines


def baselines_of(flags: AdviseFlags, pods: tuple[str, ...]) -> "Behavior | None":
    """The baselines in the files of --from; None: they are recordings, or there are none.
    Raises UsageError if they are both, and for what cannot be used with --from."""
    from kubectl_gadget.advise.baselines import read_baselines

    if not flags.watch.recordings:
        return None
    flags.validate_unwatched()
    found = read_baselines(flags.watch.recordings)
    if found is not None and pods:
        raise UsageError(
            "a baseline has workloads, not pods, so pods cannot be selected",
            "kubectl gadget behavior show, which lists its workloads",
        )
    return found


def watch(
    recipe: "Recipe", pods: tuple[str, ...], flags: AdviseFlags, objects: str | None = None
) -> "tuple[SeenUses, int]":
    """Observes now, or reads recordings; returns what was seen and the run's exit code. `objects` is a file with the
    cluster's objects."""
    from kubectl_gadget.advise.uses import SeenUses
    from kubectl_gadget.recording.places import places_of

    recording = SeenUses(recipe.kind)
    files = flags.watch.recordings or ()
    if not files:
        return recording, _observe(recipe, recording, pods, flags, objects)
    if baselines_of(flags, pods) is not None:
        raise UsageError(
            f"a baseline does not have what advise {recipe.name} needs",
            f"kubectl gadget record, and advise {recipe.name} --from its file; or advise apparmor, which has files",
        )
    token = replaying.set(Replay(tuple(places_of(files))))
    try:
        return recording, _observe(recipe, recording, pods, flags, objects)
    finally:
        replaying.reset(token)


def _observe(
    recipe: "Recipe", recording: "SeenUses", pods: tuple[str, ...], flags: AdviseFlags, objects: str | None
) -> int:
    from kubectl_gadget.advise.advise_run import INTERVAL, AdviceOrder, add_recordings, observe

    runs = tuple(GadgetRun(gadgets.load_gadget(name), dict(parameters)) for name, parameters in recipe.sources)
    options = flags.options(runs, pods)
    arrangement = replace(options.arrangement, interval=INTERVAL)
    options = replace(options, arrangement=arrangement, command=("advise", recipe.name))
    if objects:
        from kubectl_gadget.policies.network.run import inventory, read_objects

        if not options.local:
            raise UsageError(OBJECTS_ARE_LOCAL)
        recording.inventory.add(inventory(read_objects(objects)))
    order = AdviceOrder(recording, recipe.uses_of, recipe.whole_cluster, recipe.instead)
    return (observe if options.replay is None else add_recordings)(options, order, sys.stderr)


def watch_facts(pods: tuple[str, ...], flags: AdviseFlags) -> "tuple[Behavior, tuple[str, ...], int]":
    """Return the facts of a run or of baselines, the paths of programs that are many commands in one file, and the exit
    code. Raises GadgetError. Only a run that saw a container start has the facts of its start."""
    from kubectl_gadget.behavior.facts import merge
    from kubectl_gadget.behavior.generalization import Generalizer, read_rules
    from kubectl_gadget.behavior.run import behavior_runs, collect_live, collect_recordings
    from kubectl_gadget.recording.places import places_of

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


# Suggestions, printed or written to files


def print_advice(documents: "Sequence[Document]", flags: AdviseFlags) -> int:
    """Prints suggestions from facts, or writes them to files. Raises GadgetError when there is none."""
    if not documents:
        raise GadgetError(
            "no container has the facts that this needs", "kubectl gadget behavior save, or record --for behavior"
        )
    _print_or_write(documents, flags)
    return 0


def print_documents(
    documents: "Sequence[Document]",
    recording: "SeenUses",
    flags: AdviseFlags,
    warnings: Iterable[str] = (),
    ending: str | None = None,
) -> None:
    """Prints what was seen, warnings, and suggestions from it, or writes these to files with this `ending`. Raises
    GadgetError when nothing was seen."""
    from kubectl_gadget.advise import uses

    if not flags.watch.quiet:
        say(uses.summary(recording))
    for warning in (*uses.warnings(recording), *warnings):
        say(f"warning: {warning}")
    if not recording.uses and not documents:
        raise GadgetError("nothing was observed in the selected containers, so there is no advice", "observe longer")
    head = f"Advice of kubectl gadget: {uses.summary(recording)}. Not complete: it covers only what was seen."
    documents = [replace(document, comments=(head, *document.comments)) for document in documents]
    _print_or_write(documents, flags, ending)


def _print_or_write(documents: "Sequence[Document]", flags: AdviseFlags, ending: str | None = None) -> None:
    from kubectl_gadget.advise.documents import as_json, as_yaml

    if flags.watch.directory is not None:
        write_documents(Path(flags.watch.directory), documents, ending or flags.watch.output or "yaml")
    elif documents:
        sys.stdout.write(as_json(documents) if flags.watch.output == "json" else as_yaml(documents))


def write_documents(directory: Path, documents: "Sequence[Document]", ending: str) -> None:
    from kubectl_gadget.advise.documents import as_json, as_yaml

    text_of = as_json if ending == "json" else as_yaml
    write_files(directory, ((f"{document.name}.{ending}", text_of([document])) for document in documents))


def write_files(directory: Path, files: Iterable[tuple[str, str]]) -> None:
    """Writes files, each given by its name and text."""
    from kubectl_gadget.advise.documents import file_in, make_directory, write_text

    make_directory(directory)
    for name, text in files:
        path = file_in(directory, name)
        write_text(path, text)
        say(f"wrote {path}")


# `networkpolicy`: policies from flows, and what given policies would have done to these

BLOCKED = 4
"""The exit code of --fail-on, also used when --check found something."""
_POLICY_FORMATS = ("kubernetes", "cilium")
PolicyFormat = Annotated[Text, advice_format(*_POLICY_FORMATS)]
Check = Annotated[
    Text, flag(SHOW, "--check FILE", "Only show what these policies would have blocked"), TypedOnly.ACTION
]
Objects = Annotated[Text, objects_flag(SHOW), TypedOnly.ACTION]


def networkpolicy(
    pods: Pods, flags: AdviseFlags, format: PolicyFormat = None, check: Check = None, objects: Objects = None
) -> int:
    """Makes policies from flows, or reports what given policies would have done to them."""
    from kubectl_gadget.advise import networkpolicy as advisor
    from kubectl_gadget.advise.documents import read_text
    from kubectl_gadget.policies.network.evaluate import read_policies

    if format is not None and check is not None:
        raise UsageError("--format and --check cannot be used together")
    if (baselines := baselines_of(flags, pods)) is not None:
        from kubectl_gadget.advise.networkpolicy import network_policies

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


def _report(recording: "SeenUses", policies: Sequence[Mapping[str, object]], flags: AdviseFlags) -> int:
    """Prints what would have been blocked; returns BLOCKED if there is anything."""
    from kubectl_gadget.policies.network.evaluate import blocked

    print_documents((), recording, flags)
    found = blocked(recording.inventory, recording.uses, policies)
    if flags.watch.output == "json":
        print_json([asdict(item) for item in found])
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
    say(f"{len(found)} of {len(recording.uses)} flows would have been blocked")
    return BLOCKED if found else 0


# `seccomp`: profiles from system calls, which are JSON files that nodes read

_SECCOMP_FORMATS = ("profile", "patch", "SeccompProfile")
SeccompFormat = Annotated[Text, advice_format(*_SECCOMP_FORMATS)]
Merge = Annotated[Text, flag(SHOW, "--merge FILE", "Extend this profile")]


def seccomp(pods: Pods, flags: AdviseFlags, format: SeccompFormat = None, merge: Merge = None) -> int:
    from kubectl_gadget.advise import seccomp as advisor
    from kubectl_gadget.advise.documents import read_text

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
        print_json(documents[0].body)
        documents = []
    print_documents(documents, recording, flags, warnings)
    return code


def _seccomp_of(baselines: "Behavior", format: str, earlier: "Mapping[str, object] | None", flags: AdviseFlags) -> int:
    from kubectl_gadget.advise.baselines import not_looked_at
    from kubectl_gadget.advise.seccomp import profiles
    from kubectl_gadget.behavior.facts import FactKind

    documents, warnings = profiles(baselines, format, earlier)
    for text in warnings:
        say(f"warning: {text}")
    without = not_looked_at(baselines, FactKind.SYSCALL)
    if without and documents:
        say(f"warning: no system calls, so no profile: {', '.join(map(str, without))}")
    remedy = "kubectl gadget behavior save or update --syscalls; or record --for behavior-syscalls"
    if not documents:
        raise GadgetError("the baseline has no system calls, which are recorded only with --syscalls", remedy)
    if format == "profile":
        if flags.watch.directory is None:
            if len(documents) > 1:
                say("warning: there are several profiles; --directory DIR writes a file for each")
            else:
                print_json(documents[0].body)
                return 0
        else:
            write_documents(Path(flags.watch.directory), documents, "json")
            return 0
    return print_advice(documents, flags)


# `capabilities`: patches of workloads from checks of capabilities


def capabilities(pods: Pods, flags: AdviseFlags) -> int:
    from kubectl_gadget.advise import capabilities as advisor

    if (baselines := baselines_of(flags, pods)) is not None:
        return print_advice(advisor.from_facts(baselines), flags)
    recording, code = watch(advisor.RECIPE, pods, flags)
    print_documents(advisor.advise(recording), recording, flags)
    return code


# `filesystem`: patches of workloads from written files


def filesystem(pods: Pods, flags: AdviseFlags) -> int:
    from kubectl_gadget.advise import filesystem as advisor

    recording, code = watch(advisor.RECIPE, pods, flags)
    print_documents(advisor.advise(recording), recording, flags)
    return code


# `apparmor`: profiles from the facts of a run or of baselines

_APPARMOR_FORMATS = ("profile", "patch", "AppArmorProfile")
AppArmorFormat = Annotated[str | None, advice_format(*_APPARMOR_FORMATS)]


def apparmor(pods: Pods, flags: AdviseFlags, format: AppArmorFormat = None) -> int:
    from kubectl_gadget.advise import apparmor as advice

    if (format or "profile") == "profile" and flags.watch.output is not None:
        raise UsageError("-o has no effect on a profile, which is text", "--format patch or AppArmorProfile")
    found, multicall, code = watch_facts(pods, flags)
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


# `tracingpolicy`: policies from the facts of a run or of baselines

Deny = Annotated[Switch, flag(SHOW, "--deny", "Deny what was not seen (default: report it)")]


def tracingpolicy(pods: Pods, flags: AdviseFlags, deny: Deny = None) -> int:
    from kubectl_gadget.advise.tracingpolicy import tracing_policies

    found, multicall, code = watch_facts(pods, flags)
    documents = tracing_policies(found, multicall, bool(deny))
    if not documents and not any(unit.workload.namespace for unit in found.coverage):
        raise GadgetError(
            "none of the containers is in a pod, so no policy can select it", "kubectl gadget advise apparmor"
        )
    return print_advice(documents, flags) or code
