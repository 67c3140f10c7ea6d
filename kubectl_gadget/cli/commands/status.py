"""`kubectl gadget status`: the agent of each node, and what does not work there."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.flags.connect import connect, say, wait_for
from kubectl_gadget.cli.flags.declaration import SHOW, WHERE, flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, NoHeaders, ScopeFlags
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.cli.help.printed_tables import print_table
from kubectl_gadget.cli.values import word_lists
from kubectl_gadget.events.schema import Example
from kubectl_gadget.output.registry import REPORTS

if TYPE_CHECKING:
    from kubectl_gadget.cluster.agents.status import NodeStatus

PAGE = Page(
    "Show the agent of each node, its kernel, and what cannot work there.",
    (
        Example("kubectl gadget status", "one line per node"),
        Example("kubectl gadget status -o json", "everything that the agents report"),
        Example("kubectl gadget status --images", "images on the nodes that agents can run in, for --image"),
    ),
    usage="[flags]",
    silent=(WHERE,),
)
Format = Annotated[
    str | None,
    flag(SHOW, "--output", "-o", metavar="FORMAT", help=REPORTS.words, choices=REPORTS.choices),
    word_lists.format_of(REPORTS),
]
Images = Annotated[
    bool | None,
    flag(SHOW, "--images", help="List images already on the nodes that agents can run in, judged by name"),
]
_NONE, _UNKNOWN = "<none>", "<unknown>"


def status(
    scope: ScopeFlags,
    cluster: ClusterFlags,
    output: Format = None,
    no_headers: NoHeaders = None,
    images: Images = None,
) -> int:
    """Asks every resident agent."""
    from kubectl_gadget.cluster.agents.policy_removal import left_behind
    from kubectl_gadget.cluster.agents.status import status as ask

    if images:
        return _images(cluster, output, not no_headers)
    nodes = wait_for(ask(connect(cluster), cluster.agents()))
    if output == "json":
        sys.stdout.write(json.dumps([node.to_json() for node in nodes], indent=2) + "\n")
        return 0
    print_table(
        ("NODE", "AGENT", "VERSION", "KERNEL", "ARCH", "BTF", "UNSUPPORTED"),
        [_row(node) for node in nodes],
        not no_headers,
    )
    sys.stdout.flush()
    for node in nodes:
        _explain(node)
    if any(node.pod for node in nodes):
        return 0
    if wait_for(left_behind(connect(cluster), cluster.agents())) is not None:
        what = "the agents were removed without undeploy, so installed policies may still be in force"
        say(f"{what}; kubectl gadget undeploy finds and removes them")
    else:
        say("no agents are deployed: each run starts its own; kubectl gadget deploy keeps agents on the nodes")
    return 0


def _images(cluster: ClusterFlags, output: str | None, headers: bool) -> int:
    """Prints the images, one per line."""
    from kubectl_gadget.cluster.agents.images import candidates

    found, nodes = wait_for(candidates(connect(cluster)))
    if output == "json":
        sys.stdout.write(json.dumps([vars(one) for one in found], indent=2) + "\n")
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
        say("no node has an image whose name says Python 3.11 or newer; kubelets name their 50 largest images only")
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


def _explain(node: "NodeStatus") -> None:
    if node.problem:
        say(f"{node.node}: {node.problem}")
    for problem in node.hello.problems if node.hello else ():
        remedy = f"; try: {problem.try_}" if problem.try_ else ""
        say(f"{node.node}: {problem.what}: {problem.why}{remedy}")
