"""`kubectl gadget advise seccomp` and the other advisors: watch, then print what can be applied.

Standard output has nothing else. All advisors share the flags and the ways out of this file, so it is long. The trap:
an hour of watching must not be lost to a mistake on the command line or to a full disk, so everything that can be
checked is checked first, and --record writes while the run observes.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.flags import connect
from kubectl_gadget.cli.flags.declaration import SHOW, FlagSet, TypedOnly, flag, format_flag
from kubectl_gadget.cli.flags.flag_sets import (
    OnlyWarnings,
    OutputFlags,
    Verbose,
)
from kubectl_gadget.cli.flags.own_namespace import own_namespace
from kubectl_gadget.cli.flags.policy_flags import OBJECTS_ARE_LOCAL, objects_flag
from kubectl_gadget.cli.flags.run_flags import SilentRunFlags, replaying, run_options
from kubectl_gadget.cli.framework.command import Entry, GadgetGroup, GroupParts, OneAtATime, lazily, make_group
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.cli.values import amounts, word_lists
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.events.schema import Example
from kubectl_gadget.output.registry import MANIFESTS

if TYPE_CHECKING:
    from kubectl_gadget.advise.documents import Document
    from kubectl_gadget.advise.recipe import Recipe
    from kubectl_gadget.advise.uses import Recording
    from kubectl_gadget.behavior.facts import Behavior

BLOCKED = 4
"""The exit code of --fail-on, also used when --check found something."""
_SUMMARIES = {
    "networkpolicy": "Network policies that allow the connections that were seen",
    "seccomp": "Seccomp profiles that allow the system calls that were seen",
    "capabilities": "Capabilities that containers used, and which others they requested",
    "filesystem": "Whether root file systems can be read-only, and which volumes that needs",
    "apparmor": "AppArmor profiles for the programs, files, capabilities and networks that were seen",
    "tracingpolicy": "Policies that report, or deny, other programs and other written files than were seen",
}
_FROM_FACTS = ("apparmor", "tracingpolicy")
"""advisors in advise_from_facts.py"""


@dataclass(frozen=True)
class WatchFlags(FlagSet):
    """Flags of all advisors, apart from the selection of targets."""

    output: Annotated[
        str | None,
        format_flag(MANIFESTS, f"{MANIFESTS.words} (default: {MANIFESTS.default})"),
        word_lists.format_of(MANIFESTS),
    ] = None
    timeout: Annotated[
        float | None,
        flag(SHOW, "--timeout", metavar="TIME", help="How long to observe: 30m, 24h (default: until Ctrl-C)"),
        amounts.duration_above_zero,
    ] = None
    record: Annotated[
        str | None,
        flag(
            SHOW,
            "--record",
            metavar="FILE",
            help="Record what is observed in this file, for --from and kubectl gadget replay",
        ),
        word_lists.some_text,
        TypedOnly.FILES,
    ] = None
    recordings: Annotated[
        tuple[str, ...] | None,
        flag(
            SHOW, "--from", metavar="FILE", help="Use this recording or baseline, and do not observe; can be repeated"
        ),
        tuple,
        TypedOnly.FILES,
    ] = None
    directory: Annotated[
        str | None,
        flag(SHOW, "--directory", metavar="DIR", help="Write one file per object to this directory, print nothing"),
        word_lists.some_text,
        TypedOnly.FILES,
    ] = None
    quiet: OnlyWarnings = None
    verbose: Verbose = None


@dataclass(frozen=True)
class AdviseFlags(SilentRunFlags):
    """All flags that advisors share."""

    watch: WatchFlags


def advisor_page(name: str, examples: Sequence[tuple[str, str]], more: str) -> Page:
    """The help of an advisor."""
    found = tuple(Example(f"kubectl gadget advise {name} {words}".rstrip(), text) for words, text in examples)
    return Page(f"{_SUMMARIES[name]}.", found, usage="[POD|KIND/NAME...] [flags]", more=more)


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
    recording, code = _watch(advisor.RECIPE, pods, flags)
    documents = advisor.advise(recording, format, earlier)
    warnings = list(advisor.warnings(recording))
    if flags.watch.directory is not None:
        _print(documents, recording, flags, warnings, "json" if format == "profile" else None)
        return code
    if format == "profile" and len(documents) > 1:
        warnings.append("there are several profiles; --directory DIR writes a file for each")
    if format == "profile" and len(documents) == 1:
        sys.stdout.write(json.dumps(documents[0].body, indent=2) + "\n")
        documents = []
    _print(documents, recording, flags, warnings)
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
            _write_files(Path(flags.watch.directory), documents, "json")
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
    recording, code = _watch(advisor.RECIPE, pods, flags)
    _print(advisor.advise(recording), recording, flags)
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

    recording, code = _watch(advisor.RECIPE, pods, flags)
    _print(advisor.advise(recording), recording, flags)
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
    recording, code = _watch(advisor.RECIPE, pods, flags, objects)
    if policies is not None:
        return _report(recording, policies, flags) or code
    _print(advisor.advise(recording, format or "kubernetes"), recording, flags, advisor.warnings(recording))
    return code


def _report(recording: "Recording", policies: Sequence[Mapping[str, object]], flags: AdviseFlags) -> int:
    """Prints what would have been blocked; returns BLOCKED if there is anything."""
    from dataclasses import asdict

    from kubectl_gadget.cli.help.printed_tables import print_table
    from kubectl_gadget.network_policies.evaluate import blocked

    _print((), recording, flags)
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
        for name, summary in _SUMMARIES.items()
    }
    page = Page(
        "Observe pods, then write policies that allow what they did.",
        usage="ADVISOR [POD|KIND/NAME...] [flags]",
        more="kubectl gadget advise ADVISOR --help explains an advisor.",
    )
    return make_group({"flags": AdviseFlags}, "advise", GroupParts(page, entries, noun="advisor", kind=OneAtATime))


def baselines_of(flags: AdviseFlags, pods: tuple[str, ...]) -> "Behavior | None":
    """The baselines in the files of --from; None: they are recordings. Raises UsageError if they are both."""
    from kubectl_gadget.behavior.advice.baselines import read_baselines

    found = read_baselines(flags.watch.recordings or ())
    if found is not None:
        check_unwatched(flags)
        if pods:
            raise UsageError("a baseline has no pods to choose by", "kubectl gadget behavior show: its workloads")
    return found


def print_advice(documents: "Sequence[Document]", flags: AdviseFlags) -> int:
    """Prints suggestions from facts, or writes them to files. Raises GadgetError when there is none."""
    from kubectl_gadget.advise.documents import as_json, as_yaml

    if not documents:
        raise GadgetError("the baseline does not have the facts that this needs", "kubectl gadget behavior save")
    if flags.watch.directory is not None:
        _write_files(Path(flags.watch.directory), documents, flags.watch.output or "yaml")
    else:
        sys.stdout.write(as_json(documents) if flags.watch.output == "json" else as_yaml(documents))
    return 0


def _watch(
    recipe: "Recipe", pods: tuple[str, ...], flags: AdviseFlags, objects: str | None = None
) -> "tuple[Recording, int]":
    """Observes now, or reads recordings; returns what was seen and the run's exit code. `objects` is a file with the
    cluster's objects."""
    from kubectl_gadget.advise.files import add_recording
    from kubectl_gadget.advise.uses import Recording
    from kubectl_gadget.recording.places import is_recording, place_of, places_of
    from kubectl_gadget.session.run_options import Replay

    recording = Recording(recipe.name, recipe.kind)
    files, replay = flags.watch.recordings or (), replaying.get()
    if not files:
        return recording, _observe(recipe, recording, pods, flags, objects)
    check_unwatched(flags)
    if baselines_of(flags, pods) is not None:
        raise UsageError(
            f"a baseline does not have what advise {recipe.name} needs",
            f"kubectl gadget record, and advise {recipe.name} --from its file; or advise apparmor, which has files",
        )
    if replay is not None:
        raise UsageError("--from makes no sense in a replay", "kubectl gadget replay FILE FILE advise …")
    frames = tuple(place for place in places_of(files) if is_recording(place))
    code = 0
    if frames:
        token = replaying.set(Replay(frames))
        try:
            code = _observe(recipe, recording, pods, flags, objects)
        finally:
            replaying.reset(token)
    elif objects:
        raise UsageError("--objects and --from cannot be used together with this file: it has its objects")
    for name in files:
        if "://" not in name and place_of(name) not in frames:
            add_recording(recording, name)
    recording.keep_only(flags.scope.namespace, pods, flags.target.containers or ())
    return recording, code


def _observe(
    recipe: "Recipe", recording: "Recording", pods: tuple[str, ...], flags: AdviseFlags, objects: str | None
) -> int:
    from dataclasses import replace

    from kubectl_gadget.catalogue import load_gadget
    from kubectl_gadget.session.advise_run import INTERVAL, Order, add_recordings, observe
    from kubectl_gadget.session.run_options import GadgetRun

    watch = flags.watch
    output = OutputFlags(timeout=watch.timeout, quiet=watch.quiet, verbose=watch.verbose, record=watch.record)
    runs = tuple(GadgetRun(load_gadget(name), dict(parameters)) for name, parameters in recipe.sources)
    options = run_options(runs, pods, flags.with_output(output))
    arrangement = replace(options.arrangement, interval=INTERVAL)
    options = replace(options, arrangement=arrangement, command=("advise", recipe.name))
    if objects:
        from kubectl_gadget.session.policies.network_tables import inventory, read_objects

        if not options.local:
            raise UsageError(OBJECTS_ARE_LOCAL)
        recording.inventory.add(inventory(read_objects(objects)))
    order = Order(recording, recipe.uses_of, recipe.whole_cluster)
    return (observe if options.replay is None else add_recordings)(options, order, sys.stderr)


def check_unwatched(flags: AdviseFlags) -> None:
    """Raises UsageError for flags that need a run."""
    if flags.watch.record is not None:
        raise UsageError("--record and --from cannot be used together", "several --from, which count as one")
    if flags.watch.timeout is not None:
        raise UsageError("--timeout and --from cannot be used together")
    if flags.scope.selector is not None:
        raise UsageError("-l cannot be used with --from: a recording has no labels", "name the pods, or -n and -c")


def _write_files(directory: Path, documents: "Sequence[Document]", ending: str) -> None:
    from kubectl_gadget.advise.documents import as_json, as_yaml
    from kubectl_gadget.advise.files import make_directory, write_text

    make_directory(directory)
    for document in documents:
        path = directory / f"{document.name}.{ending}"
        write_text(path, as_json([document]) if ending == "json" else as_yaml([document]))
        connect.say(f"wrote {path}")


def _print(
    documents: "Sequence[Document]",
    recording: "Recording",
    flags: AdviseFlags,
    warnings: Iterable[str] = (),
    ending: str | None = None,
) -> None:
    from dataclasses import replace

    from kubectl_gadget.advise import evidence
    from kubectl_gadget.advise.documents import as_json, as_yaml

    if not flags.watch.quiet:
        connect.say(evidence.summary(recording))
    for warning in (*evidence.warnings(recording), *warnings):
        connect.say(f"warning: {warning}")
    if not recording.uses and not documents:
        raise GadgetError("nothing was observed in the selected containers, so there is no advice", "observe longer")
    head = f"Advice of kubectl gadget: {evidence.summary(recording)}. Not complete: it covers only what was seen."
    documents = [replace(document, comments=(head, *document.comments)) for document in documents]
    if flags.watch.directory is not None:
        _write_files(Path(flags.watch.directory), documents, ending or flags.watch.output or "yaml")
    elif documents and flags.watch.output == "json":
        sys.stdout.write(as_json(documents))
    elif documents:
        sys.stdout.write(as_yaml(documents))
