"""Flags that select policies, and compiles the selected policies.

The trap: reading YAML and compiling policies takes time, so the modules for it are imported only when needed.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from kubectl_gadget.cli.flags.flag_declaration import Names, Text, Texts, TypedOnly, flag
from kubectl_gadget.errors import UsageError
from kubectl_gadget.light_dataclasses import dataclass
from kubectl_gadget.run.run_options import Replay, RunOptions

if TYPE_CHECKING:
    from typer.models import OptionInfo

    from kubectl_gadget.observe.recorded_policies import RecordedPolicies
    from kubectl_gadget.policies.compiler.compiled_policies import CompiledPolicies
    from kubectl_gadget.policies.run.labels import PolicyLabels

POLICIES = "Policies"
OBJECTS_ARE_LOCAL = "--objects is only for --local; with a cluster, its objects are used"
_OBJECTS_HELP = "With --local: from kubectl get pods,ns,svc,no -A -o yaml"


def objects_flag(section: str) -> "OptionInfo":
    """--objects, in the given section of a command's help."""
    return flag(section, "--objects FILE", _OBJECTS_HELP)


@dataclass(frozen=True)
class NamedPolicyFlags:
    """Flags that name policies."""

    files: Annotated[
        Texts, flag(POLICIES, "--filename, -f FILE", "A file, a folder, or - for standard input"), TypedOnly.ACTION
    ] = None
    builtin: Annotated[
        Names, flag(POLICIES, "--policy NAMES", "Built-in policies; see policy list"), TypedOnly.ACTION
    ] = None

    @property
    def named(self) -> bool:
        return bool(self.files or self.builtin)


@dataclass(frozen=True)
class PolicyFlags(NamedPolicyFlags):
    """The same for a run, which may be without a cluster."""

    objects: Annotated[Text, objects_flag(POLICIES), str, TypedOnly.ACTION] = None


def engine_of(
    flags: PolicyFlags,
    namespace: Callable[[], str],
    enforce: bool = False,
    allow_weaker: bool = False,
    reaction: Literal["", "kill", "notify"] = "",
    calls_out: bool = True,
) -> "CompiledPolicies":
    """Compiles these policies for the agents; `namespace` returns the namespace of policies that do not name one.
    Raises UsageError for invalid or unsupported policies."""
    from kubectl_gadget.policies.builtin_policies import builtin_files
    from kubectl_gadget.policies.read.policy_files import read_policies

    texts: list[tuple[str, str]] = []
    policies = read_policies([*(flags.files or ()), *builtin_files(flags.builtin or ())], namespace, texts=texts)
    from kubectl_gadget.cli.flags.connect import say
    from kubectl_gadget.policies.report.gaps import gaps

    for policy in policies:
        for note in (*policy.notes, *(gaps(policy) if enforce else ())):
            say(f"warning: {note.place} {note.text}")
    from kubectl_gadget.policies.compiler.compiled_policies import CompiledPolicies
    from kubectl_gadget.policies.compiler.selectors_at_hook import CompilerOptions

    compiled = CompiledPolicies(policies, CompilerOptions(enforce, allow_weaker, reaction, calls_out=calls_out))
    options = {"enforce": enforce, "allow_weaker": allow_weaker, "reaction": reaction, "calls_out": calls_out}
    needed = any(policy.names_no_namespace for policy in policies)
    compiled.origin = {"texts": texts, "namespace": namespace() if needed else "", "options": options}
    return compiled


def replayed_policies(
    replay: Replay, chosen: "CompiledPolicies | None"
) -> "tuple[CompiledPolicies | None, RecordedPolicies | None]":
    """The policies of a replay, and what decides them by rows, if they were not in force in the recorded run. `chosen`
    by the user; None: those of the recording, if it has any. Raises UsageError."""
    from kubectl_gadget.observe.recorded_policies import RecordedPolicies
    from kubectl_gadget.policies.compiler.compiled_policies import CompiledPolicies
    from kubectl_gadget.policies.compiler.selectors_at_hook import CompilerOptions
    from kubectl_gadget.policies.read.policy_files import parse_policies
    from kubectl_gadget.recording.reader import RecordingReader
    from kubectl_gadget.recording.recorded_run import RecordedRun

    with RecordingReader(replay.files[0]) as reader:
        meta = reader.meta
    if (origin := meta.get("policies")) is not None:
        try:
            texts = [(str(file), str(text)) for file, text in origin["texts"]]
            policies = parse_policies(texts, str(origin["namespace"]))
            in_force = CompiledPolicies(policies, CompilerOptions(**origin["options"]))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise UsageError(f"{replay.files[0]}: its policies cannot be read: {error!r}") from None
        if chosen is None or chosen.policies == in_force.policies:
            return in_force, None
    if chosen is None:
        return None, None
    run = RecordedRun.from_meta(meta, str(replay.files[0]))
    recorded = {item.gadget.name: item.gadget.values(item.parameters) for item in run.gadgets}
    if "trace_process" not in recorded:
        raise UsageError(
            "policies cannot be decided without events of trace process, and the recording has none",
            "kubectl gadget trace process+… --record FILE, or kubectl gadget record, for the next recording",
        )
    return chosen, RecordedPolicies(chosen, recorded)


def labels_of(compiled: "CompiledPolicies", options: RunOptions, objects: str | None) -> "PolicyLabels | None":
    """The labels that policies select by, from a file of objects if there is no cluster; None if they use no labels.
    Raises UsageError."""
    if objects and not options.local:
        raise UsageError(OBJECTS_ARE_LOCAL)
    if not compiled.by_labels:
        if objects:
            from kubectl_gadget.policies.run.network_tables import read_objects

            read_objects(objects)  # reports errors in the file nevertheless
        return None
    from kubectl_gadget.policies.run.labels import PolicyLabels

    follows = not options.local or (options.replay is not None and not objects)
    labels = PolicyLabels(compiled.scopes, one_node=not follows)
    if follows:
        return labels
    if not objects:
        what = "these policies select by labels of pods or nodes, which are not known without a cluster"
        raise UsageError(what, "--objects FILE, with what kubectl get pods,nodes -A -o yaml prints")
    from kubectl_gadget.policies.run.network_tables import read_objects

    labels.take(read_objects(objects))
    return labels
