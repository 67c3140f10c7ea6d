"""`kubectl gadget enforce`: policies carried out, for as long as the command runs.

A word of its own, so that nobody blocks anything by accident. The trap: what is in force is what the policy says within
what the other flags select, so without -A it is this namespace.
"""

from dataclasses import dataclass, replace
from typing import Annotated

from kubectl_gadget.cli.enforce_network import NetworkPolicyFlags, enforce_network, refuse
from kubectl_gadget.cli.flags import (
    SHOW,
    ClusterFlags,
    EngineFlags,
    ImageFlags,
    ScopeFlags,
    StartFlags,
    TargetFlags,
    flag,
)
from kubectl_gadget.cli.gadgets import Pods
from kubectl_gadget.cli.help import Page
from kubectl_gadget.cli.observe import CHOICE, StoryFlags, StoryOutputFlags, tell
from kubectl_gadget.cli.policy_flags import PolicyFlags, engine_of
from kubectl_gadget.cli.run_options import RunFlags
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import Example

PAGE = Page(
    "Carry policies out in the kernel: deny with an error, kill, signal. For as long as this runs, and not longer.",
    (
        Example("kubectl gadget enforce -f policy.yaml", "in the pods of this namespace"),
        Example("kubectl gadget enforce --network-policy np.yaml", "a NetworkPolicy, on any network plugin"),
        Example("kubectl gadget enforce -f policy.yaml --dry-run", "only tell what would have been stopped"),
    ),
    usage="[POD...] {-f FILE | --network-policy FILE} [flags]",
    more="Each node says by which method: a security module or fmod_ret denies before anything happens, and kills "
    "afterwards. A node that cannot do that is refused, unless --allow-weaker says that a signal, which comes when it "
    "may be too late, is good enough. Flags of observe that choose what is told work here, too.",
    silent=(CHOICE,),
)


@dataclass(frozen=True)
class EnforceFlags:
    """How strictly."""

    allow_weaker: Annotated[
        bool | None,
        flag(SHOW, "--allow-weaker/--no-allow-weaker", help="Also on nodes that can send signals only, or just watch"),
    ] = None
    dry_run: Annotated[
        bool | None, flag(SHOW, "--dry-run/--no-dry-run", help="Deny and kill nothing; tell what would have been")
    ] = None


def enforce(
    pods: Pods,
    scope: ScopeFlags,
    target: TargetFlags,
    output: StoryOutputFlags,
    story: StoryFlags,
    policies: PolicyFlags,
    network: NetworkPolicyFlags,
    how: EnforceFlags,
    engine: EngineFlags,
    image: ImageFlags,
    start: StartFlags,
    cluster: ClusterFlags,
) -> int:
    """Checks, carries out, and tells."""
    flags = RunFlags(scope, target, output, engine, image, start, cluster)
    if network.named:
        for group in (replace(policies, objects=None), story, replace(how, dry_run=None)):
            refuse(group)
        return enforce_network(pods, network, policies.objects, bool(how.dry_run), flags)
    if not policies.named:
        raise UsageError(
            "no policy was named", "kubectl gadget enforce -f policy.yaml, or --policy NAME, or --network-policy FILE"
        )
    compiled = engine_of(policies, scope.namespace, enforce=not how.dry_run, allow_weaker=bool(how.allow_weaker))
    if not how.dry_run and not any(hook.enforces for hook in compiled.hooks):
        raise UsageError("these policies only watch", "kubectl gadget observe -f …, or actions in their selectors")
    return tell(compiled, pods, story, flags, policies.objects)
