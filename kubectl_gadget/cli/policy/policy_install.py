"""`kubectl gadget policy install`, `installed` and `uninstall`: policies that stay in force without this program.

The trap: a policy that denies stays in force after the command has ended, so it is installed only with --enforce.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypedDict, cast

import typer

from kubectl_gadget.cli.flags.connect import connect, say, wait_for
from kubectl_gadget.cli.flags.flag_declaration import Seconds, Switch, Text, TypedOnly, flag, format_flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, NoHeaders, ScopeFlags
from kubectl_gadget.cli.flags.own_namespace import own_namespace, refuse_others
from kubectl_gadget.cli.flags.policy_flags import NamedPolicyFlags
from kubectl_gadget.cli.help.printed_tables import print_json, print_table
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.output.registry import REPORTS

if TYPE_CHECKING:
    from kubectl_gadget.kube.api.requests import Api
    from kubectl_gadget.policies.run.installation import Installed, NodePolicies, PolicyChange, StoredPolicy

_HOW = "How"
_SECONDS = 120.0
Enforce = Annotated[Switch, flag(_HOW, "--enforce", "Allow policies that deny, kill or signal"), TypedOnly.RIGHTS]
AllowWeaker = Annotated[
    Switch,
    flag(_HOW, "--allow-weaker", "For all installed policies: accept nodes that can only send signals"),
    TypedOnly.RIGHTS,
]
Wait = Annotated[Switch, flag(_HOW, "--wait", "Wait until all nodes are up to date (default: true)")]
Timeout = Annotated[Seconds, flag(_HOW, "--timeout TIME", "How long to wait (default: 2m)")]
Format = Annotated[Text, format_flag(REPORTS)]
Names = Annotated[tuple[str, ...], typer.Argument(metavar="NAME")]
All = Annotated[Switch, flag(_HOW, "--all", "All installed policies"), TypedOnly.ACTION]


class ReportedPolicy(TypedDict, total=False):
    """A node's report on one installed policy; unknown members are passed on unchanged."""

    state: str
    hooks: list[dict[str, str]]
    events: int


def install(
    policies: NamedPolicyFlags,
    scope: ScopeFlags,
    cluster: ClusterFlags,
    enforce: Enforce = None,
    allow_weaker: AllowWeaker = None,
    wait: Wait = None,
    timeout: Timeout = None,
) -> int:
    """Checks and installs policies, and waits for the nodes."""
    from kubectl_gadget.policies.builtin import builtin_files
    from kubectl_gadget.policies.read.policy_files import sources
    from kubectl_gadget.policies.run.installation import PolicyChange, policies_to_store, refuse_enforcing

    if not policies.named:
        raise UsageError("no policy was given", "kubectl gadget policy install -f policy.yaml, or --policy NAME")
    names = [*(policies.files or ()), *builtin_files(policies.builtin or ())]
    api = connect(cluster)
    found = policies_to_store(sources(names), own_namespace(scope, cluster))
    refuse_others((one.policy for one in found), scope.namespace)
    if not enforce:
        refuse_enforcing(found)
    wanted = PolicyChange(found, allow_weaker=allow_weaker)
    return wait_for(_change(api, cluster.agents(), wanted, f"installed {_titles(found)}", _wait_seconds(wait, timeout)))


def uninstall(
    scope: ScopeFlags,
    cluster: ClusterFlags,
    names: Names = (),
    all: All = None,
    wait: Wait = None,
    timeout: Timeout = None,
) -> int:
    if bool(names) == bool(all):
        what = "--all and names cannot be used together" if names else "no policy was given"
        raise UsageError(what, "kubectl gadget policy uninstall NAME, or --all")
    return wait_for(_uninstall(connect(cluster), cluster.agents(), names, _wait_seconds(wait, timeout)))


def installed(scope: ScopeFlags, cluster: ClusterFlags, output: Format = None, no_headers: NoHeaders = None) -> int:
    there, found, others = wait_for(_ask(connect(cluster), cluster.agents()))
    if output == "json":
        print_json(_as_json(there, found))
        sys.stdout.flush()
    else:
        _print(there, found, not no_headers)
    if not there.policies:
        say("no policies are installed")
    if not any(node.has_agent for node in found):
        say("no agents are deployed; try: kubectl gadget deploy")
    for line in others:
        say(line)
    return int(_explain(there, found))


async def _ask(api: "Api", agents: AgentOptions) -> "tuple[Installed, list[NodePolicies], list[str]]":
    from kubectl_gadget.policies.run.installation import nodes, read, reports_of_others

    found = await nodes(api, agents)
    return await read(api, agents), found, await reports_of_others(api, agents, found)


async def _uninstall(api: "Api", agents: AgentOptions, names: Sequence[str], wait_seconds: float) -> int:
    from kubectl_gadget.policies.run.installation import PolicyChange, read

    there = (await read(api, agents)).policies
    by_title = {one.title: one for one in there}
    if not there or any(name not in by_title for name in names):
        for line in (await _ask(api, agents))[2]:
            say(line)
    for name in names:
        if name not in by_title:
            raise UsageError(f"no policy {name!r} is installed", f"one of {', '.join(by_title)}" if by_title else None)
    gone = [by_title[name] for name in names] if names else list(there)
    if not gone:
        say("no policies are installed")
        return 0
    wanted = PolicyChange(remove=[one.key for one in gone])
    return await _change(api, agents, wanted, f"uninstalled {_titles(gone)}", wait_seconds)


async def _change(api: "Api", agents: AgentOptions, wanted: "PolicyChange", done: str, wait_seconds: float) -> int:
    from kubectl_gadget.policies.run.installation import change, lacks_priority, nudge, wait

    there = await change(api, agents, wanted)
    say(done)
    if any(one.enforces for one in wanted.add) and await lacks_priority(api, agents):
        say(
            "on a full node, other pods may preempt the agent, and then nothing guards the policy there;"
            " kubectl gadget deploy --enforcing gives agents the priority system-node-critical"
        )
    if there.allow_weaker:
        say("nodes that cannot deny calls may send signals (--allow-weaker); this holds for all installed policies")
    if not await nudge(api, agents, there.digest):
        say("kubelets were not notified, which needs the right to patch pods; they see the change within two minutes")
    if not wait_seconds:
        return 0
    found = await wait(api, agents, there.digest, wait_seconds, say)
    return int(_explain(there, found))


def _wait_seconds(wait: bool | None, timeout: float | None) -> float:
    if wait is False and timeout is not None:
        raise UsageError("--timeout and --wait=false cannot be used together")
    return 0.0 if wait is False else timeout or _SECONDS


def _titles(policies: "Sequence[StoredPolicy]") -> str:
    return ", ".join(one.title for one in policies)


def _print(there: "Installed", found: "Sequence[NodePolicies]", headers: bool) -> None:
    rows = []
    for one in there.policies:
        for node in found:
            state = _state_of(there, node, one)
            methods = ",".join(dict.fromkeys(hook["method"] for hook in state.get("hooks", ())))
            hooks = ",".join(hook["by"] for hook in state.get("hooks", ()))
            row = (one.title, node.node, state["state"], methods.replace(" ", "-") or "-", hooks or "-")
            rows.append((*row, str(state.get("events", "-"))))
    print_table(("POLICY", "NODE", "STATE", "METHOD", "HOOKS", "EVENTS"), rows, headers)
    sys.stdout.flush()


def _state_of(there: "Installed", node: "NodePolicies", one: "StoredPolicy") -> ReportedPolicy:
    """The state reported by the node; `pending` while it has another version of the ConfigMap, `unknown` without a
    report."""
    if not node.has_agent:
        return {"state": "no-agent"}
    if node.state is None:
        return {"state": "unknown" if node.problem else "pending"}
    for state in node.state.policies:
        if (state.name, state.namespace) == (one.policy.name, one.policy.namespace):
            stale = node.digest != there.digest
            shown = f"{state.state},pending" if stale else state.state
            return cast(ReportedPolicy, {**state.to_json(), "state": shown})
    return {"state": "pending"}


def _explain(there: "Installed", found: "Sequence[NodePolicies]") -> bool:
    """Reports policies that are not in force. Returns whether there are any."""
    failed = False
    for node in found:
        if not node.has_agent:
            say(f"{node.node} has no resident agent, so nothing is in force there")
            continue
        if node.problem:
            failed = True
            say(f"{node.node}: {node.problem}")
        if node.digest != there.digest:
            failed = True
            say(f"{node.node} has not received the change yet")
            continue
        for state in node.state.policies if node.state else ():
            if state.state != "enabled":
                failed = True
                say(f"{node.node}: policy {state.name}: {state.state}: {state.error}")
        if node.state and node.state.not_pinned:
            say(f"{node.node}: not guarded while its agent is restarted: {node.state.not_pinned}")
    return failed


def _as_json(there: "Installed", found: "Sequence[NodePolicies]") -> list[dict[str, object]]:
    return [
        {
            "policy": one.policy.name,
            "namespace": one.policy.namespace,
            "nodes": [{"node": node.node, "problem": node.problem, **_state_of(there, node, one)} for node in found],
        }
        for one in there.policies
    ]
