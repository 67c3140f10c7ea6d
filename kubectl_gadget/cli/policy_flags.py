"""The flags by which policies are named, and what becomes of them.

The trap: reading YAML and compiling policies takes time, so nothing of it is imported before it is asked for.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli import values
from kubectl_gadget.cli.flags import SHOW, flag
from kubectl_gadget.session.options import GadgetRun

if TYPE_CHECKING:
    from kubectl_gadget.policies.engine.hooks import Engine

_DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True)
class PolicyFlags:
    """Which policies."""

    files: Annotated[
        tuple[str, ...] | None,
        flag(
            SHOW,
            "--filename",
            "-f",
            metavar="FILE",
            help="Policies: a file, a folder, or - for standard input",
        ),
        tuple,
    ] = None
    ready: Annotated[
        tuple[str, ...] | None,
        flag(SHOW, "--policy", metavar="NAMES", help="Policies that come with this program: see policy list"),
        values.commas,
    ] = None

    @property
    def named(self) -> bool:
        """Whether any was named."""
        return bool(self.files or self.ready)


def engine_of(flags: PolicyFlags, namespace: str | None, enforce: bool = False, allow_weaker: bool = False) -> "Engine":
    """What the agents are to do for these policies. Raises UsageError for what is wrong or cannot be done."""
    from kubectl_gadget.policies.engine.hooks import Engine, Options
    from kubectl_gadget.policies.read import read_policies
    from kubectl_gadget.policies.ready import ready_files

    policies = read_policies([*(flags.files or ()), *ready_files(flags.ready or ())], namespace or _DEFAULT_NAMESPACE)
    if enforce:
        from kubectl_gadget.cli.connect import say
        from kubectl_gadget.policies.gaps import gaps

        for gap in (gap for policy in policies for gap in gaps(policy)):
            say(f"warning: {gap.place} {gap.text}")
    return Engine(policies, Options(enforce, allow_weaker))


def policy_run(engine: "Engine") -> GadgetRun:
    """Beside the gadget that follows processes."""
    from kubectl_gadget.observe.policies import GADGET

    return GadgetRun(GADGET, policies=engine)
