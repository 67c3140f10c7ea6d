"""Commands of resident agents: `deploy`, `undeploy` and `status`.

Note: -n selects whose events a run shows. Agents are in their own namespace, so here it has no effect, and a message
says so.
"""

import struct
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, NamedTuple

from kubectl_gadget import gadgets
from kubectl_gadget.agent.elf import ElfFile, MemorySource
from kubectl_gadget.cli import values
from kubectl_gadget.cli.cluster import connect, wait_for
from kubectl_gadget.cli.flags import (
    SHOW,
    ClusterFlags,
    ImageFlags,
    NoHeaders,
    ScopeFlags,
    Seconds,
    StartFlags,
    Switch,
    Text,
    TypedOnly,
    flag,
    format_flag,
)
from kubectl_gadget.cli.printing import print_json, print_table, say
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.load import load_gadget, load_index, object_bytes
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.output.registry import MANIFESTS, REPORTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubectl_gadget.agents.deployments import Deployments, Owner
    from kubectl_gadget.agents.node_status import AgentUse, NodeStatus
    from kubectl_gadget.gadgets.schema import ProgramChoice
    from kubectl_gadget.kube.requests import Api
    from kubectl_gadget.wire.agent_messages import Hello


# `deploy` and `undeploy`

_DEPLOY = "Deployment"
_SECONDS = 120.0

DryRun = Annotated[
    Text,
    flag(_DEPLOY, "--dry-run client", "Print what would be applied, and apply nothing", choices=("client", "none")),
    values.one_of("none", "client"),
    TypedOnly.ACTION,
]
ManifestFormat = Annotated[
    Text,
    flag(_DEPLOY, "--output, -o FORMAT", "With --dry-run=client: yaml or json", choices=MANIFESTS.choices),
    values.format_of(MANIFESTS),
]
NodeSelector = Annotated[
    tuple[tuple[str, str], ...] | None,
    flag(_DEPLOY, "--node-selector LABELS", "Only nodes with these labels: key=value,key=value"),
    values.node_selector,
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
    output: ManifestFormat,
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
        say(f"-n {scope.namespace} has no effect here: agents run in namespace {options.namespace}")


# `status`: the agent of each node, and what does not work there

StatusFormat = Annotated[Text, format_flag(REPORTS)]
Images = Annotated[
    Switch, flag(SHOW, "--images", "List images already on the nodes that agents can run in, judged by name")
]
_NONE, _UNKNOWN = "<none>", "<unknown>"


def status(
    scope: ScopeFlags,
    cluster: ClusterFlags,
    output: StatusFormat = None,
    no_headers: NoHeaders = None,
    images: Images = None,
) -> int:
    if images:
        return _images(cluster, output, not no_headers)
    nodes, known, exist, uses = wait_for(_ask(connect(cluster), cluster.agents()))
    if output == "json":
        print_json([_node(node, uses) for node in nodes])
        return 0
    print_table(
        ("NODE", "AGENT", "VERSION", "KERNEL", "ARCH", "BTF", "UNSUPPORTED"),
        [_row(node) for node in nodes],
        not no_headers,
    )
    if uses:
        sys.stdout.write("\n")
        columns = ("USER", "GADGETS", "AGENTS", "NODES", "AGE", "MAPS")
        print_table(columns, [_use_row(use) for use in uses], not no_headers)
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
    from kubectl_gadget.agents import deployments, node_status
    from kubectl_gadget.agents.node_status import status as ask

    nodes = await ask(api, options)
    pins = [one for node in nodes if node.hello for one in node.hello.pins]
    uses = [*await node_status.on_demand(api, options), *node_status.in_residents(nodes)]
    return nodes, await deployments.find(api), await deployments.exist(api, pins), uses


def _node(node: "NodeStatus", uses: "Sequence[AgentUse]") -> dict[str, object]:
    return {
        **node.to_json(),
        "costs": [cost._asdict() for cost in costs(node.hello)],
        "runs": [vars(use) for use in uses if node.node in use.nodes],
    }


def _use_row(use: "AgentUse") -> tuple[str, ...]:
    agents = "on demand" if use.run else "resident"
    maps = _UNKNOWN if use.map_bytes is None else f"{use.map_bytes / 1e6:.0f} MB"
    gadgets, nodes = ",".join(use.gadgets) or _UNKNOWN, ",".join(use.nodes) or _NONE
    return (use.user or _UNKNOWN, gadgets, agents, nodes, use.age, maps)


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
        say("no node has an image whose name says Python 3.9 or newer; kubelets report only their 50 largest images")
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
    for line in _explained(costs(node.hello)):
        say(f"{node.node}: {line}")
    for line in reports(node.node, node.hello.pins, exist):
        say(line)
    if node.hello.policies and node.hello.policies.former:
        names = ", ".join(node.hello.policies.former)
        say(f"{node.node}: its agent removed policies that are no longer installed: {names}")


# What unsupported features cost: gadgets and flags whose programs need them, by the sections of the built objects.

_SECTIONS = {
    "kprobe": ("kprobe", "kretprobe"),
    "uprobe": ("uprobe", "uretprobe"),
    "fentry": ("fentry", "fexit", "fmod_ret", "lsm"),
    "lsm": ("lsm",),
}
"""Sections of the programs that need a feature, without what follows the slash."""
_OF_POLICIES = "hooks that need it are attached in another way, or refused; policy check --all-nodes says which"
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMBOL_TABLE, _GLOBAL_FUNCTION = 2, 0x12


class Cost(NamedTuple):
    """The gadgets and flags that a node without a feature lacks."""

    feature: str
    what: str
    """a gadget's command, or "policies\""""
    flag: str
    """the flag that cannot be used; empty: it is not about one"""
    lacks: str
    """what is missing; empty: the gadget or flag does not work at all"""


def costs(hello: "Hello | None") -> tuple[Cost, ...]:
    """Returns what the features cost that the agent reports as unsupported. Without BTF or a ring buffer, nothing
    works, which HELLO has as a problem."""
    missing = tuple(name for name in _SECTIONS if hello and hello.can.get(name) is False)
    return _costs(missing, hello.architecture) if hello and missing else ()


@cache
def _costs(missing: tuple[str, ...], architecture: str) -> tuple[Cost, ...]:
    from kubectl_gadget.gadgets.schema import ARCHITECTURES

    architecture = architecture if architecture in ARCHITECTURES else ARCHITECTURES[0]
    found: list[Cost] = []
    for entry in load_index():
        gadget = load_gadget(entry.name)
        kinds = _kinds(object_bytes(entry.name, architecture))
        of_gadget: list[Cost] = []
        for choice in gadget.agent.programs:
            if feature := _needs(choice, kinds, missing):
                flag, value = choice.when or ("", "")
                flag = f"--{flag}" if value in ("", "true") else f"--{flag} {value}"
                lacks = (choice.purpose or f"runs without {choice.any_of[0][0]}") if choice.optional else ""
                of_gadget.append(Cost(feature, " ".join(entry.command), flag if choice.when else "", lacks))
        cannot_run = [cost for cost in of_gadget if not cost.flag and not cost.lacks]
        found += cannot_run or of_gadget
    return (*dict.fromkeys(found), *(Cost(name, "policies", "", _OF_POLICIES) for name in missing))


def _explained(found: "Sequence[Cost]") -> "Iterator[str]":
    """Yields costs as lines for people, one for each feature and effect."""
    effects: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cost in found:
        effects[cost.feature, cost.lacks].append(f"{cost.what} {cost.flag}".rstrip())
    for (feature, lacks), names in effects.items():
        yield f"without {feature}: {', '.join(names)}: {lacks or 'cannot run'}"


def _needs(choice: "ProgramChoice", kinds: Mapping[str, str], missing: "Sequence[str]") -> str:
    """Returns the missing features without which none of the sets can be loaded; empty if one can."""
    lacking: list[str] = []
    for programs in choice.any_of:
        of_set = [name for name in missing if any(kinds.get(program) in _SECTIONS[name] for program in programs)]
        if not of_set:
            return ""
        lacking += of_set[:1]
    return " and ".join(dict.fromkeys(lacking))


def _kinds(object: bytes) -> dict[str, str]:
    """Returns the sections of an object's programs, by program, up to the slash."""
    elf = ElfFile(MemorySource(object))
    kinds = {}
    for table in elf.sections:
        if table.kind != _SYMBOL_TABLE:
            continue
        names = elf.strings(table.link)
        for name, info, _, section, _, _ in _SYMBOL.iter_unpack(elf.source.read(table.offset, table.size)):
            if info == _GLOBAL_FUNCTION and section < len(elf.sections):
                text = elf.names.at(elf.sections[section].name).decode()
                kinds[names.at(name).decode()] = text.partition("/")[0].removesuffix(".s")
    return kinds
