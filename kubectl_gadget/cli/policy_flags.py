"""Flags that select policies, and compiles the selected policies.

Reading YAML and compiling policies takes time, so the modules for it are imported only when needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from kubectl_gadget.cli.flags import Names, Text, Texts, TypedOnly, flag
from kubectl_gadget.cli.printing import say
from kubectl_gadget.errors import UsageError
from kubectl_gadget.run.run_options import Replay, RunOptions

if TYPE_CHECKING:
    from typer.models import OptionInfo

    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.policies.labels import PolicyLabels
    from kubectl_gadget.recording.places import PathOrUrl

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

    def validate(self, remedy: str) -> None:
        """Raises UsageError if no policy is named."""
        if not self.named:
            raise UsageError("no policy was given", remedy)


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
    from kubectl_gadget.policies.read.policy_files import builtin_files, read_policies

    texts: list[tuple[str, str]] = []
    policies = read_policies([*(flags.files or ()), *builtin_files(flags.builtin or ())], namespace, texts=texts)
    from kubectl_gadget.policies.check import gaps

    for policy in policies:
        for note in (*policy.notes, *(gaps(policy) if enforce else ())):
            say(f"warning: {note.place} {note.text}")
    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.policies.compiler.selectors import CompilerOptions

    compiled = CompiledPolicies(policies, CompilerOptions(enforce, allow_weaker, reaction, calls_out=calls_out))
    options = {"enforce": enforce, "allow_weaker": allow_weaker, "reaction": reaction, "calls_out": calls_out}
    needed = any(policy.names_no_namespace for policy in policies)
    compiled.origin = {"texts": texts, "namespace": namespace() if needed else "", "options": options}
    return compiled


def replayed_policies(replay: Replay, chosen: "CompiledPolicies | None") -> "CompiledPolicies | None":
    """Return the policies that were in force in the recorded runs, whose events the recordings have; None if there were
    none. Raises UsageError if the user chose others: recorded rows cannot decide what these would have matched."""
    first, *others = [(str(file), _policies_of(file)) for file in replay.files]
    for file, found in others:
        if _compared(found) != _compared(first[1]):
            raise UsageError(f"{first[0]} and {file} were recorded with different policies", "replay one at a time")
    file, in_force = first
    if chosen is not None and (in_force is None or in_force.policies != chosen.policies):
        raise _not_recorded(file, chosen, in_force)
    return in_force


def _policies_of(file: "PathOrUrl") -> "CompiledPolicies | None":
    """Return the policies of the recorded run; None if it had none. Raises UsageError."""
    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.policies.compiler.selectors import CompilerOptions
    from kubectl_gadget.policies.read.policy_files import parse_policies
    from kubectl_gadget.recording.reader import RecordingReader

    with RecordingReader(file) as reader:
        origin = reader.meta.get("policies")
    if origin is None:
        return None
    try:
        texts = [(str(name), str(text)) for name, text in origin["texts"]]
        policies = parse_policies(texts, str(origin["namespace"]))
        compiled = CompiledPolicies(policies, CompilerOptions(**origin["options"]))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{file}: its policies cannot be read: {error!r}") from None
    compiled.origin = origin
    return compiled


def _compared(compiled: "CompiledPolicies | None") -> object:
    return compiled and (compiled.policies, compiled.origin["options"])


def _not_recorded(file: str, chosen: "CompiledPolicies", in_force: "CompiledPolicies | None") -> UsageError:
    recorded = () if in_force is None else in_force.policies
    names = ",".join(policy.name for policy in chosen.policies)
    if recorded and all(policy in recorded for policy in chosen.policies):
        return UsageError(f"{file} also has the events of other policies", f"--policy-names {names}, without -f")
    missing = ", ".join(policy.name for policy in chosen.policies if policy not in recorded)
    run = "its run had other policies" if recorded else "its run had no policies"
    return UsageError(
        f"{file} has no events of {missing}: {run}, and recorded rows cannot decide what a policy would have matched",
        "record a run with them: kubectl gadget observe -f POLICY --record FILE",
    )


def labels_of(compiled: "CompiledPolicies", options: RunOptions, objects: str | None) -> "PolicyLabels | None":
    """The labels that policies select by, from a file of objects if there is no cluster; None if they use no labels.
    Raises UsageError."""
    if objects and not options.local:
        raise UsageError(OBJECTS_ARE_LOCAL)
    if not compiled.by_labels:
        if objects:
            from kubectl_gadget.policies.network.run import read_objects

            read_objects(objects)  # reports errors in the file nevertheless
        return None
    from kubectl_gadget.policies.labels import PolicyLabels

    follows = not options.local or (options.replay is not None and not objects)
    labels = PolicyLabels(compiled.scopes, one_node=not follows)
    if follows:
        return labels
    if not objects:
        what = "these policies select by labels of pods or nodes, which are not known without a cluster"
        raise UsageError(what, "--objects FILE, with what kubectl get pods,nodes -A -o yaml prints")
    from kubectl_gadget.policies.network.run import read_objects

    labels.take(read_objects(objects))
    return labels
