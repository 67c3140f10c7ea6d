"""`kubectl gadget observe`: the life of workloads, process by process, with what each process did.

Rows that are not shown must still be traced, or processes would lack their parents; so all selections but the
selection of containers are applied after the join.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from kubectl_gadget.cli import run, values
from kubectl_gadget.cli.cluster import chosen_namespace, own_namespace, say_own, warn_of_others
from kubectl_gadget.cli.flags import SHOW, Names, OutputFlags, Switch, Text, Texts, TypedOnly, flag, format_flag
from kubectl_gadget.cli.gadgets import Pods
from kubectl_gadget.cli.policy_flags import PolicyFlags, engine_of, labels_of, replayed_policies
from kubectl_gadget.cli.printing import say
from kubectl_gadget.cli.run_flags import RunFlags, replaying, run_options
from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters.cel import Pattern, compile_pattern
from kubectl_gadget.observe.run import EVENT_TYPES, SHOWN, LineOptions, StoryGadgets, StoryRecipe
from kubectl_gadget.output.registry import STORY
from kubectl_gadget.run.run_options import RunOptions, with_peer_names
from kubectl_gadget.wording import did_you_mean

if TYPE_CHECKING:
    from kubectl_gadget.observe.formats import StoryOutput
    from kubectl_gadget.observe.messages import PodDetails
    from kubectl_gadget.observe.story import Choice
    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.policies.reactions import Reaction

CHOICE = "What is shown"
_COMPACT, _JSON, _STRICT = "compact", "json", "jsonpb"
_OF_LINES = (_COMPACT, _JSON, _STRICT)


def _pattern(text: str) -> Pattern:
    try:
        return compile_pattern(text)
    except ValueError as error:
        raise ValueError(f"not a valid regular expression (RE2): {error}") from None


def _event_types(texts: Sequence[str]) -> tuple[str, ...]:
    names = [text.lower().removeprefix("process_") for text in values.commas(texts)]
    return tuple(f"process_{name}" for name in values.each(values.one_of(*EVENT_TYPES), names))


def _shown(texts: Sequence[str]) -> tuple[str, ...]:
    return values.each(values.one_of(*SHOWN), values.commas(texts))


@dataclass(frozen=True)
class StoryOutputFlags(OutputFlags):
    """The same flags as for gadgets, with other formats."""

    output: Annotated[Text, format_flag(STORY, f"{STORY.help} (default: {STORY.default})")] = None


@dataclass(frozen=True)
class StoryRunFlags(RunFlags):
    """The flags of a run that shows a story."""

    output: StoryOutputFlags


@dataclass(frozen=True)
class StoryFlags:
    """Flags that select what is shown, and how."""

    timestamps: Annotated[Switch, flag(SHOW, "--timestamps", "Begin lines with the time")] = None
    shown: Annotated[
        Texts, flag(SHOW, "--show NAMES", f"Append to lines: {','.join(SHOWN)}", choices=SHOWN), _shown
    ] = None
    tree: Annotated[Switch, flag(SHOW, "--tree", "Draw a tree of the processes at the end")] = None
    ancestors: Annotated[Switch, flag(SHOW, "--ancestors", "In JSON, all ancestors instead of only the parent")] = None
    process: Annotated[
        Any,
        flag(CHOICE, "--process REGEX", "Only programs whose path matches: vi$"),
        _pattern,
        TypedOnly.SELECTION,
    ] = None
    pod: Annotated[
        Any,
        flag(CHOICE, "--pod REGEX", "Only pods whose name matches"),
        _pattern,
        TypedOnly.SELECTION,
    ] = None
    event_types: Annotated[
        Texts,
        flag(CHOICE, "--event-types, -e TYPES", f"{','.join(EVENT_TYPES)}", choices=EVENT_TYPES),
        _event_types,
        TypedOnly.SELECTION,
    ] = None
    file_paths: Annotated[
        Text, flag(CHOICE, "--files PATHS", "Also operations on these files and directories: /etc"), values.paths
    ] = None
    flows: Annotated[
        Switch,
        flag(CHOICE, "--flows", "Also connections and DNS queries, repeated ones summed up"),
        TypedOnly.SELECTION,
    ] = None
    installed: Annotated[Switch, flag(CHOICE, "--installed", "Also events of installed policies"), TypedOnly.ACTION] = (
        None
    )
    policy_names: Annotated[
        Names, flag(CHOICE, "--policy-names NAMES", "Only events of these policies"), TypedOnly.SELECTION
    ] = None
    running: Annotated[
        Switch, flag(CHOICE, "--running", "Also processes and files that already exist"), TypedOnly.SELECTION
    ] = None

    def validate(self, output: StoryOutputFlags) -> None:
        """Raises UsageError if flags contradict each other, or the format."""
        format = output.output or _COMPACT
        if self.tree and output.output is not None:
            raise UsageError(f"--tree cannot be used with -o {format}")
        if (self.timestamps or self.shown) and (format != _COMPACT or self.tree):
            raise UsageError("--timestamps and --show are only for lines", "-o compact, or --columns with a table")
        if self.ancestors and format not in (_JSON, _STRICT):
            raise UsageError("--ancestors is only for -o json and jsonpb")
        if format == _STRICT:
            self._refuse_ours()
        if output.columns and format in _OF_LINES:
            raise UsageError(f"--columns cannot be used with -o {format}", "-o table, wide, csv or yaml")

    def _refuse_ours(self) -> None:
        """Rejects what the schema of -o jsonpb cannot express."""
        from kubectl_gadget.observe.messages import MEMBERS

        asked = {"--files": self.file_paths is not None, "--flows": bool(self.flows)}
        asked |= {f"-e {type.removeprefix('process_')}": type not in MEMBERS for type in self.event_types or ()}
        for name, is_ours in asked.items():
            if is_ours:
                raise UsageError(f"{name} needs events that the schema of -o jsonpb does not have", "-o json")


def observe(pods: Pods, flags: StoryRunFlags, story: StoryFlags, policies: PolicyFlags) -> int:
    """Traces processes, joins them with their actions, and prints the story."""
    if "flows" in pods:  # another tool's command for what is `flows` here
        say("`flows` is the name of a pod here; for network flows: kubectl gadget flows")
    own = partial(own_namespace, flags.scope, flags.cluster, flags.target.local)
    compiled = engine_of(policies, own) if policies.named else None
    if (asked := replaying.get()) is not None:
        compiled = replayed_policies(asked, compiled)
    return show_story(compiled, pods, story, flags, policies.objects)


def show_story(
    compiled: "CompiledPolicies | None",
    pods: Pods,
    story: StoryFlags,
    flags: StoryRunFlags,
    objects: str | None = None,
    reaction: "Reaction | None" = None,
) -> int:
    """Prints the story of processes with the events of policies; returns the exit code. `objects` is a file with pods
    and nodes."""
    story.validate(flags.output)
    if flags.engine.no_sort:
        raise UsageError("--no-sort cannot be used here: events are joined in time order")
    if compiled is not None and not story.installed:
        known = [policy.name for policy in compiled.policies]
        for name in story.policy_names or ():
            if name not in known:
                what = f"there is no policy {name!r} in these files{did_you_mean(name, known)}"
                raise UsageError(f"--policy-names: {what}")
    gadgets = StoryGadgets(
        story.file_paths,
        bool(story.flows),
        bool(story.installed),
        reaction.silent if reaction else None,
        compiled,
    )
    options = run_options(gadgets.runs(), pods, flags)
    if compiled is not None:
        _warn(compiled, flags, options)
    labels = labels_of(compiled, options, objects) if compiled else None
    details = _details(options, flags.output, objects)
    format = flags.output.output or _COMPACT
    output = _output(format, flags.output, story, details)
    if not flags.output.no_names and not objects:
        options = with_peer_names(options)
    recipe = StoryRecipe(gadgets, _choice(story, format), output, reaction, labels, details)
    return run.run(recipe.applied(options, follows=not objects), sys.stdout, sys.stderr)


def _warn(compiled: "CompiledPolicies", flags: RunFlags, options: RunOptions) -> None:
    """Warns about policies that apply to other pods than the selected ones."""
    if options.selection.all_namespaces:
        say_own(compiled.policies)
    elif chosen := chosen_namespace(flags.scope, flags.cluster, options.local):
        warn_of_others("policies", {policy.namespace for policy in compiled.policies}, chosen)


def _details(options: RunOptions, output: OutputFlags, objects: str | None) -> "PodDetails | None":
    """The details of pods for JSON, from a file of objects if there is one; None if nothing is known or shown."""
    if output.output not in (_JSON, _STRICT) or (options.local and options.replay is None and not objects):
        return None
    from kubectl_gadget.observe.messages import PodDetails

    details = PodDetails()
    if objects:
        from kubectl_gadget.policies.network.run import read_objects

        details.take(read_objects(objects))
    return details


def _choice(flags: StoryFlags, format: str) -> "Choice":
    from kubectl_gadget.observe.messages import MEMBERS
    from kubectl_gadget.observe.story import Choice

    return Choice(
        process=flags.process,
        pod=flags.pod,
        event_types=frozenset(flags.event_types or (MEMBERS if format == _STRICT else ())),
        policies=frozenset(flags.policy_names or ()),
        running=bool(flags.running),
    )


def _output(format: str, output: OutputFlags, flags: StoryFlags, details: "PodDetails | None") -> "StoryOutput":
    from kubectl_gadget.observe.formats import StoryOutput

    return StoryOutput(
        format,
        LineOptions(bool(flags.timestamps), frozenset(flags.shown or ())),
        tree=bool(flags.tree),
        ancestors=bool(flags.ancestors),
        color=output.color or "auto",
        details=details.of if details else None,
    )
