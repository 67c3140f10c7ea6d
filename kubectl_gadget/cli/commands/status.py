"""`kubectl gadget status`: the agent of each node, and what does not work there."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.flags.connect import connect, say, wait_for
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Switch, Text, flag, format_flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, NoHeaders, ScopeFlags
from kubectl_gadget.cli.help.printed_tables import print_json, print_table
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.output.registry import REPORTS

if TYPE_CHECKING:
    from kubectl_gadget.agents.deployments import Deployments, Owner
    from kubectl_gadget.agents.node_status import NodeStatus
    from kubectl_gadget.agents.sessions import AgentUse
    from kubectl_gadget.kube.api.requests import Api

Format = Annotated[Text, format_flag(REPORTS)]
Images = Annotated[
    Switch, flag(SHOW, "--images", "List images already on the nodes that agents can run in, judged by name")
]
_NONE, _UNKNOWN = "<none>", "<unknown>"


def status(
    scope: ScopeFlags, cluster: ClusterFlags, output: Format = None, no_headers: NoHeaders = None, images: Images = None
) -> int:
    if images:
        return _images(cluster, output, not no_headers)
    nodes, known, exist, uses = wait_for(_ask(connect(cluster), cluster.agents()))
    if output == "json":
        print_json(
            [{**node.to_json(), "runs": [vars(use) for use in uses if node.node in use.nodes]} for node in nodes]
        )
        return 0
    print_table(
        ("NODE", "AGENT", "VERSION", "KERNEL", "ARCH", "BTF", "UNSUPPORTED"),
        [_row(node) for node in nodes],
        not no_headers,
    )
    if uses:
        sys.stdout.write("\n")
        print_table(("USER", "GADGETS", "AGENTS", "NODES", "AGE"), [_use_row(use) for use in uses], not no_headers)
    sys.stdout.flush()
    for node in nodes:
        _explain(node, exist)
    if known.left_behind:
        whose = f"the agents of namespace {', '.join(known.left_behind)} were removed without undeploy"
        say(f"{whose}, so installed policies may still be in force; kubectl gadget undeploy finds and removes them")
    elif not any(node.pod for node in nodes):
        say("no agents are deployed: each run starts its own; kubectl gadget deploy keeps agents on the nodes")
    return 0


async def _ask(
    api: "Api", options: AgentOptions
) -> "tuple[list[NodeStatus], Deployments, Mapping[Owner, bool | None], list[AgentUse]]":
    """Asks the agents, and the API server whose policies they found pinned, and who uses agents."""
    from kubectl_gadget.agents import deployments, sessions
    from kubectl_gadget.agents.node_status import status as ask

    nodes = await ask(api, options)
    pins = [one for node in nodes if node.hello for one in node.hello.pins]
    uses = [*await sessions.on_demand(api, options), *sessions.in_residents(nodes)]
    return nodes, await deployments.find(api), await deployments.exist(api, pins), uses


def _use_row(use: "AgentUse") -> tuple[str, ...]:
    agents = "on demand" if use.run else "resident"
    return (use.user or _UNKNOWN, ",".join(use.gadgets) or _UNKNOWN, agents, ",".join(use.nodes) or _NONE, use.age)


def _images(cluster: ClusterFlags, output: str | None, headers: bool) -> int:
    from kubectl_gadget.agents.node_status import candidates

    found, nodes = wait_for(candidates(connect(cluster)))
    if output == "json":
        print_json([vars(one) for one in found])
        return 0
    rows = [
        (one.image, f"{one.nodes}/{nodes}", f"{one.bytes / 1e6:.0f} MB", "agent" if one.ours else "python")
        for one in found
    ]
    print_table(("IMAGE", "NODES", "SIZE", "HAS"), rows, headers)
    sys.stdout.flush()
    if found:
        say(f"chosen by name; try: kubectl gadget trace open --image {found[0].image}")
    else:
        say("no node has an image whose name says Python 3.11 or newer; kubelets report only their 50 largest images")
    return 0


def _row(node: "NodeStatus") -> tuple[str, ...]:
    """The cells of a node. As in kubectl, <none> means that something does not exist, <unknown> that no agent reported
    it."""
    agent = _NONE if node.pod is None else node.state
    hello = node.hello
    if hello is None:
        version = _UNKNOWN if node.pod else _NONE
        kernel, architecture = node.kernel or _UNKNOWN, node.architecture or _UNKNOWN
        return (node.node, agent, version, kernel, architecture, _UNKNOWN, _UNKNOWN)
    kernel = node.kernel or hello.kernel or _UNKNOWN
    architecture = node.architecture or hello.architecture or _UNKNOWN
    missing = ",".join(name for name, works in hello.can.items() if works is False and name != "btf")
    btf = {True: "yes", False: "no", None: _UNKNOWN}[hello.can.get("btf")]
    return (node.node, agent, hello.agent or _UNKNOWN, kernel, architecture, btf, missing or _NONE)


def _explain(node: "NodeStatus", exist: "Mapping[Owner, bool | None]") -> None:
    from kubectl_gadget.agents.deployments import reports

    if node.problem:
        say(f"{node.node}: {node.problem}")
    if node.hello is None:
        return
    for problem in node.hello.problems:
        remedy = f"; try: {problem.try_}" if problem.try_ else ""
        say(f"{node.node}: {problem.what}: {problem.why}{remedy}")
    for line in reports(node.node, node.hello.pins, exist):
        say(line)
    if node.hello.policies and node.hello.policies.former:
        names = ", ".join(node.hello.policies.former)
        say(f"{node.node}: its agent took policies out of force that are not installed any more: {names}")
