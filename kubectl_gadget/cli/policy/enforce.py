"""`kubectl gadget enforce`: enforces policies for as long as the command runs.

It is a separate command, so that nothing is blocked by accident. The trap: a policy is in force only in the pods that
the other flags select, so without -A only in one namespace.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.commands.observe import StoryFlags, StoryRunFlags, show_story
from kubectl_gadget.cli.flags.connect import say
from kubectl_gadget.cli.flags.flag_declaration import Switch, Text, TypedOnly, flag
from kubectl_gadget.cli.flags.own_namespace import chosen_namespace, own_namespace
from kubectl_gadget.cli.flags.policy_flags import POLICIES, PolicyFlags, engine_of
from kubectl_gadget.cli.flags.run_flags import replaying
from kubectl_gadget.cli.policy.enforce_network import NetworkPolicyFlags, enforce_network, refuse, replay_refusals
from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.run.reactions import NO_REACTION, deleting_pods, isolating_pods

_KERNEL, _KILL, _DELETE_POD, _ISOLATE_POD = _ACTIONS = ("kernel", "kill", "delete-pod", "isolate-pod")
_OF_PODS = (_DELETE_POD, _ISOLATE_POD)
_SORT_WAIT_OF_PODS = 0.02
"""The wait for sorting in seconds, unless --sort-wait is given: the client acts on rows when it prints them, so a long
wait delays it."""


@dataclass(frozen=True)
class EnforceFlags:
    """Flags for how policies are enforced."""

    allow_weaker: Annotated[
        Switch,
        flag(POLICIES, "--allow-weaker", "Accept nodes that can only send signals or only report"),
        TypedOnly.RIGHTS,
    ] = None
    dry_run: Annotated[
        Switch, flag(POLICIES, "--dry-run", "Only report what would be denied or killed"), TypedOnly.ACTION
    ] = None
    action: Annotated[
        Text,
        flag(POLICIES, "--action WHO", "kernel (default), kill (agents), delete-pod, isolate-pod", choices=_ACTIONS),
        TypedOnly.RIGHTS,
    ] = None
    yes: Annotated[Switch, flag(POLICIES, "--yes", "Delete or isolate pods without asking first"), TypedOnly.RIGHTS] = (
        None
    )


def enforce(
    pods: Pods,
    flags: StoryRunFlags,
    story: StoryFlags,
    policies: PolicyFlags,
    network: NetworkPolicyFlags,
    how: EnforceFlags,
) -> int:
    if replaying.get() is not None:
        for given in (replace(policies, objects=None), network, how):
            refuse(given, "a replay, which enforces nothing")
        return replay_refusals(pods, flags, story, policies.objects)
    if network.named:
        for group in (replace(policies, objects=None), story, replace(how, dry_run=None)):
            refuse(group, "network policies")
        return enforce_network(pods, network, policies.objects, bool(how.dry_run), flags)
    if not policies.named:
        raise UsageError(
            "no policy was given", "kubectl gadget enforce -f policy.yaml, or --policy NAME, or --network-policy FILE"
        )
    action = how.action or _KERNEL
    if action != _KERNEL and (how.dry_run or how.allow_weaker):
        raise UsageError(
            "--dry-run and --allow-weaker are only for --action kernel", "leave out --action, or these flags"
        )
    if how.yes and action not in _OF_PODS:
        raise UsageError("--yes is only for --action delete-pod and isolate-pod")
    if action == _DELETE_POD and flags.target.local:
        raise UsageError("--action delete-pod cannot be used with --local: it needs a cluster")
    compiled = engine_of(
        policies,
        partial(own_namespace, flags.scope, flags.cluster, flags.target.local),
        enforce=not how.dry_run and action == _KERNEL,
        allow_weaker=bool(how.allow_weaker),
        reaction="kill" if action == _KILL else "notify" if action in _OF_PODS else "",
        calls_out=not how.dry_run,
    )
    if not how.dry_run and not any(hook.enforces or hook.reacting for hook in compiled.hooks):
        raise UsageError("these policies deny nothing", "kubectl gadget observe -f …, or actions in their selectors")
    outcome = "deleted" if action == _DELETE_POD else "cut off from the network"
    if action in _OF_PODS and not how.yes and not _is_agreed(pods, flags, outcome):
        return 1  # not 0, which would say to a script that it was enforced
    if action in _OF_PODS and flags.engine.sort_wait is None:
        flags = replace(flags, engine=replace(flags.engine, sort_wait=_SORT_WAIT_OF_PODS))
    reaction, objects = NO_REACTION, policies.objects
    if action == _DELETE_POD:
        reaction, objects = deleting_pods(_namespace(flags), say), None
    elif action == _ISOLATE_POD:
        reaction = isolating_pods(say)
    return show_story(compiled, pods, story, flags, objects, reaction)


def _namespace(flags: StoryRunFlags) -> str | None:
    """The namespace of the run; None: all namespaces, as without a cluster if none is named."""
    return None if flags.scope.all_namespaces else chosen_namespace(flags.scope, flags.cluster, flags.target.local)


def _is_agreed(pods: Pods, flags: StoryRunFlags, outcome: str) -> bool:
    """Ask for confirmation; `outcome` says what happens to pods. Raises UsageError when nobody can be asked."""
    namespace = _namespace(flags)
    where = "all namespaces" if namespace is None else f"the namespace {namespace}"
    which = f"of {', '.join(pods)} in {where}" if pods else f"in {where}"
    what = f"while this runs, any pod {which} that violates these policies is {outcome}"
    if not sys.stdin.isatty():
        raise UsageError(f"{what}, and standard input is not a terminal, so you cannot be asked", "--yes")
    sys.stderr.write(f"{what}. Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        sys.stderr.write("nothing was changed\n")
        return False
    return True
