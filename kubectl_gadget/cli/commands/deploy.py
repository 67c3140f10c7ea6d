"""`kubectl gadget deploy` and `undeploy`: resident agents on the nodes.

The trap: -n selects whose events a run shows. Agents are in their own namespace, so here it has no effect, and a
message says so.
"""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.flags.connect import connect, say, wait_for
from kubectl_gadget.cli.flags.flag_declaration import Seconds, Switch, Text, TypedOnly, flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ImageFlags, ScopeFlags, StartFlags
from kubectl_gadget.cli.help.printed_tables import print_json
from kubectl_gadget.cli.values import object_names, word_lists
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.output.registry import MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubectl_gadget.agents.sessions import AgentUse

_DEPLOY = "Deployment"
_SECONDS = 120.0

DryRun = Annotated[
    Text,
    flag(_DEPLOY, "--dry-run client", "Print what would be applied, and apply nothing", choices=("client", "none")),
    word_lists.one_of("none", "client"),
    TypedOnly.ACTION,
]
Format = Annotated[
    Text,
    flag(_DEPLOY, "--output, -o FORMAT", "With --dry-run=client: yaml or json", choices=MANIFESTS.choices),
    word_lists.format_of(MANIFESTS),
]
NodeSelector = Annotated[
    tuple[tuple[str, str], ...] | None,
    flag(_DEPLOY, "--node-selector LABELS", "Only nodes with these labels: key=value,key=value"),
    object_names.node_selector,
    TypedOnly.ACTION,
]
Contained = Annotated[
    Switch,
    flag(_DEPLOY, "--contained", "Agents for observers, limited to their gadgets by an admission policy (SECURITY.md)"),
    TypedOnly.RIGHTS,
]
Enforcing = Annotated[
    Switch,
    flag(_DEPLOY, "--enforcing", "Agents for installed policies, never preempted by other pods (system-node-critical)"),
    TypedOnly.RIGHTS,
]
Wait = Annotated[Switch, flag(_DEPLOY, "--wait", "Wait until all agents run (default: true)")]
Timeout = Annotated[Seconds, flag(_DEPLOY, "--timeout TIME", "How long to wait (default: 2m)")]
AllNodes = Annotated[
    Switch,
    flag(_DEPLOY, "--all-nodes", "Start agents on nodes without one, to find policies of removed deployments there"),
    TypedOnly.ACTION,
]
Force = Annotated[
    Switch,
    flag(_DEPLOY, "--force", "Do not ask, even if runs use the agents"),
    TypedOnly.RIGHTS,
]


def deploy(
    dry_run: DryRun,
    output: Format,
    node_selector: NodeSelector,
    wait: Wait,
    timeout: Timeout,
    contained: Contained,
    enforcing: Enforcing,
    image: ImageFlags,
    scope: ScopeFlags,
    cluster: ClusterFlags,
) -> int:
    """Applies the manifests, or prints them."""
    from kubectl_gadget.agents import manifests
    from kubectl_gadget.agents import resident_agents as deployment

    options = cluster.agents(image, StartFlags(timeout or _SECONDS))
    options = replace(options, contained=bool(contained), enforcing=bool(enforcing))
    _check_contained(options, wait, dry_run)
    contents = _contents() if contained else ()
    labels = dict(node_selector or ())
    if dry_run == "client":
        if output == "json":
            objects = {"apiVersion": "v1", "kind": "List", "items": manifests.deployment(options, labels, contents)}
            print_json(objects)
        else:
            sys.stdout.write(deployment.render(options, labels, contents))
        return 0
    if output:
        raise UsageError(f"-o {output} is only for --dry-run=client", f"--dry-run=client -o {output}")
    if wait is False and timeout is not None:
        raise UsageError("--timeout and --wait=false cannot be used together")
    _mention_scope(scope, options)
    wait_for(deployment.deploy(connect(cluster), options, say, labels, wait is not False, contents))
    return 0


def _check_contained(options: AgentOptions, wait: bool | None, dry_run: str | None) -> None:
    if not options.contained:
        return
    if options.privileged:
        raise UsageError("--contained and --privileged cannot be used together")
    if options.enforcing:
        raise UsageError("--contained and --enforcing cannot be used together: contained agents run no policies")
    if wait is False and dry_run != "client":
        raise UsageError(
            "--contained and --wait=false cannot be used together: the admission policy must be seen in force"
        )


def _contents() -> tuple[str, ...]:
    """Gadgets that show data that is read, written or sent."""
    from kubectl_gadget import gadgets

    names = [summary.name for summary in gadgets.load_index()]
    return tuple(name for name in names if gadgets.load_gadget(name).shows_contents)


def undeploy(all_nodes: AllNodes, force: Force, image: ImageFlags, scope: ScopeFlags, cluster: ClusterFlags) -> int:
    """Removes everything that has our label."""
    from kubectl_gadget.agents import resident_agents as deployment

    options = cluster.agents(image)
    _mention_scope(scope, options)
    confirm = _mention_runs if force else _ask_about_runs
    wait_for(deployment.undeploy(connect(cluster), options, say, bool(all_nodes), confirm))
    return 0


def _mention_runs(uses: "Sequence[AgentUse]") -> None:
    say("these runs lose their agents:\n" + "\n".join(f"  {use}" for use in uses))


def _ask_about_runs(uses: "Sequence[AgentUse]") -> None:
    """Asks whether runs may be ended. Raises UsageError unless the user agrees."""
    _mention_runs(uses)
    if not sys.stdin.isatty():
        raise UsageError(
            "agents are in use, and standard input is not a terminal, so you cannot be asked; nothing was removed",
            "--force",
        )
    sys.stderr.write("Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was removed: you did not answer yes")


def _mention_scope(scope: ScopeFlags, options: AgentOptions) -> None:
    if scope.namespace:
        say(f"-n {scope.namespace} changes nothing here: agents live in namespace {options.namespace}")
