"""The flags by which policies are named, and what becomes of them.

The trap: reading YAML and compiling policies takes time, so nothing of it is imported before it is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from kubectl_gadget.cli.flags.declaration import TypedOnly, flag
from kubectl_gadget.cli.values import word_lists
from kubectl_gadget.errors import UsageError
from kubectl_gadget.session.options import RunOptions

if TYPE_CHECKING:
    from typer.models import OptionInfo

    from kubectl_gadget.policies.engine.engine import Engine
    from kubectl_gadget.session.policies.labels import PolicyLabels

POLICIES = "Policies"
OBJECTS_ARE_LOCAL = "--objects is only for --local; with a cluster, its objects are used"
_OBJECTS_HELP = "With --local: from kubectl get pods,ns,svc,no -A -o yaml"


def objects_flag(section: str) -> "OptionInfo":
    """--objects, in the section of a command's help."""
    return flag(section, "--objects", metavar="FILE", help=_OBJECTS_HELP)


@dataclass(frozen=True)
class PolicyFlags:
    """Which policies."""

    files: Annotated[
        tuple[str, ...] | None,
        flag(
            POLICIES,
            "--filename",
            "-f",
            metavar="FILE",
            help="A file, a folder, or - for standard input",
        ),
        tuple,
        TypedOnly.ACTION,
    ] = None
    objects: Annotated[str | None, objects_flag(POLICIES), str, TypedOnly.ACTION] = None
    ready: Annotated[
        tuple[str, ...] | None,
        flag(POLICIES, "--policy", metavar="NAMES", help="Built-in policies; see policy list"),
        word_lists.commas,
        TypedOnly.ACTION,
    ] = None

    @property
    def named(self) -> bool:
        """Whether any was named."""
        return bool(self.files or self.ready)


def engine_of(
    flags: PolicyFlags,
    namespace: Callable[[], str],
    enforce: bool = False,
    allow_weaker: bool = False,
    reaction: Literal["", "kill", "tell"] = "",
    calls_out: bool = True,
) -> "Engine":
    """What the agents are to do for these policies; `namespace` is asked for that of those that name none. Raises
    UsageError for what is wrong or cannot be done."""
    from kubectl_gadget.policies.builtin_policies import ready_files
    from kubectl_gadget.policies.engine.engine import Engine
    from kubectl_gadget.policies.engine.selectors_at_hook import EngineOptions
    from kubectl_gadget.policies.read.policies import read_policies

    policies = read_policies([*(flags.files or ()), *ready_files(flags.ready or ())], namespace)
    from kubectl_gadget.cli.flags.connect import say
    from kubectl_gadget.policies.report.gaps import gaps

    for policy in policies:
        for note in (*policy.notes, *(gaps(policy) if enforce else ())):
            say(f"warning: {note.place} {note.text}")
    return Engine(policies, EngineOptions(enforce, allow_weaker, reaction, calls_out=calls_out))


def labels_of(engine: "Engine", options: RunOptions, objects: str | None) -> "PolicyLabels | None":
    """The labels that policies go by, from a file of objects where there is no cluster; None when they go by none.
    Raises UsageError."""
    if objects and not options.local:
        raise UsageError(OBJECTS_ARE_LOCAL)
    if not engine.by_labels:
        if objects:
            from kubectl_gadget.session.policies.network_tables import read_objects

            read_objects(objects)  # what is wrong with it is said all the same
        return None
    from kubectl_gadget.session.policies.labels import PolicyLabels

    labels = PolicyLabels(engine.scopes, one_node=bool(options.local))
    if not options.local:
        return labels
    if not objects:
        what = "these policies select by labels of pods or nodes, which are not known without a cluster"
        raise UsageError(what, "--objects FILE, with what kubectl get pods,nodes -A -o yaml prints")
    from kubectl_gadget.session.policies.network_tables import read_objects

    labels.take(read_objects(objects))
    return labels
