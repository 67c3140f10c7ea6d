"""The summary of a run: how much was seen, on which nodes, and what was lost, by STATS of docs/protocol.md. A loss of 0
is reported too.

run/coverage.py says who was traced, and when. Counts start with each connection, so counts of lost
connections are added.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from kubectl_gadget.errors import AgentError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.run import coverage
from kubectl_gadget.run.coverage import Cause, Coverage
from kubectl_gadget.run.node import NodeState
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import RunExport, RunOptions
from kubectl_gadget.wire.agent_messages import GadgetStats, RequestCounts
from kubectl_gadget.wording import count

_REPORTED = {"denied": "overridden", "signalled": "signalled", "set": "set", "not set": "unset"}
"""The counts of a policy's hook that are reported, by their names in the report."""
_NODES_LISTED = 20
_LOSERS_LISTED = 5


def noun(gadget: Gadget) -> str:
    """Return the noun for counting the gadget's output."""
    return "row" if gadget.kind in ("snapshot", "top", "profile") else "event"


def enforces(options: RunOptions) -> bool:
    """Return whether the run denies anything or acts on it, rather than only watch."""
    return any(
        (run.policies is not None and any(hook.enforces or hook.reacting for hook in run.policies.hooks))
        or (run.tables is not None and run.policies is None and not run.parameters.get("dry-run"))
        for run in options.gadgets
    )


def doing(options: RunOptions) -> str:
    """Returns a phrase like "trace open", for the line that says that everything has started."""
    gadgets = options.gadgets
    if options.doing is not None:
        enforces = any(hook.enforces for run in gadgets if run.policies for hook in run.policies.hooks)
        return f"{'enforcing policies and ' if enforces else ''}{options.doing}"
    if any(run.tables and not run.policies for run in gadgets):
        dry = any(run.parameters.get("dry-run") for run in gadgets)
        return f"{'trying (dry run)' if dry else 'enforcing'} network policies"
    names = ", ".join(" ".join(run.gadget.command) for run in gadgets)
    return f"recording for {names}" if gadgets[0].gadget.kind == "recorder" else names


def _counts(*states: NodeState) -> Iterator[GadgetStats]:
    """Yield the counts of gadgets on these nodes, over all connections."""
    return (gadget for state in states for stats in state.connections for gadget in stats.gadgets)


def lost(state: NodeState) -> Counter[str]:
    """Returns a node's counters by cause."""
    total: Counter[str] = Counter()
    for gadget in _counts(state):
        total.update({cause: sum(per_cpu.values()) for cause, per_cpu in gadget.lost.items()})
    return total


def events(state: NodeState) -> int:
    """Returns how many events a node's programs have sent."""
    return sum(gadget.events for gadget in _counts(state))


def missing(states: Mapping[str, NodeState], unattributed: int) -> int:
    """Return the number of missing events, including events of containers that no agent could name."""
    return unattributed + sum(coverage.missing(lost(state)) for state in states.values())


def lines(
    covered: Coverage,
    states: Mapping[str, NodeState],
    shown: Counter[str],
    skew_ns: Mapping[str, int],
    noun: str = "event",
    late: int = 0,
) -> Iterator[str]:
    """Yields the lines of the summary. `shown` counts rows by node; a node's clock is ahead of ours by `skew_ns`. Rows
    that are not events may be sums over several nodes, so they are not counted by node. `late` rows came after a
    younger row had been shown."""
    yield coverage.first_line(covered, count(sum(shown.values()), noun))
    if late:
        said = "marked * or late, came too late to be sorted by time (try a longer --sort-wait)"
        yield f"  {count(late, noun)}, {said}"
    if lost_most := _losers(states).most_common(_LOSERS_LISTED):
        yield "  lost most: " + ", ".join(f"{number:,} of {loser}" for loser, number in lost_most)
    for hook, counts in sorted(_enforced(states).items()):
        yield f"  {hook}: " + ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)
    requests, reactions = _requests_and_reactions(states)
    for what, numbers in (("requests of policies", requests), ("by agents", reactions)):
        if numbers:
            yield f"  {what}: " + ", ".join(f"{number:,} {name}" for name, number in numbers.items())
    if len(covered.nodes) > 1:
        busiest = sorted(covered.traced, key=lambda node: (-shown[node.name], node.name))
        for node in busiest[:_NODES_LISTED]:
            own = f"{count(shown[node.name], noun)}; " if noun == "event" else ""
            yield f"  {node.name}: {own}lost: {coverage.lost_text(node.lost)}"
        if len(busiest) > _NODES_LISTED:
            yield f"  and {len(busiest) - _NODES_LISTED} more nodes"
    for name, ns in skew_ns.items():
        if abs(ns) >= 50_000_000:
            yield f"  {name}: its clock is {abs(ns) / 1e9:.2f} s {'ahead' if ns > 0 else 'behind'}; times are corrected"
    yield from coverage.node_lines(covered)


def say_exported(export: RunExport | None, progress: Progress) -> None:
    """Say what became of the rows that were exported. What is missing is said even when quiet."""
    if export is not None:
        for line in export.summary():
            progress.say(line)
        for line in export.losses():
            progress.warn(line)


def none_ran(covered: Coverage) -> AgentError:
    """Returns one error for all nodes; a reason that several nodes share is stated once."""
    by_text: dict[str, list[str]] = {}
    for node in covered.nodes:
        by_text.setdefault(node.why, []).append(node.name)
    remedy = next((node.remedy for node in covered.nodes if node.remedy), None)
    if remedy is None and any(node.cause == Cause.NOT_IN_TIME for node in covered.nodes):
        remedy = "--start-timeout with a longer time"
    if len(by_text) == 1:
        ((text, names),) = by_text.items()
        where = names[0] if len(names) == 1 else f"all {len(names)} nodes"
        return AgentError(f"{where}: {text}", remedy)
    text = "\n".join(f"  {coverage.listed(names)}: {text}" for text, names in by_text.items())
    return AgentError(f"no node could be traced\n{text}", remedy)


def why_nothing(selection: Selection) -> str:
    """Explains an empty result without a cluster, where nothing else reports that a selected object is missing."""
    if selection.namespace or selection.pods or selection.containers:
        return "no container on this machine matches (try: kubectl gadget snapshot process -A --local)"
    return "this machine has no containers (try: --host, for its own processes)"


def _losers(states: Mapping[str, NodeState]) -> Counter[str]:
    """Events that did not fit into the ring or a map, by NAMESPACE/POD/CONTAINER, or a container's name."""
    total: Counter[str] = Counter()
    for loser in (loser for gadget in _counts(*states.values()) for loser in gadget.lost_by):
        names = filter(None, (loser.namespace, loser.pod, loser.container))
        total["/".join(names) or "the host"] += loser.lost
    return total


def _enforced(states: Mapping[str, NodeState]) -> dict[str, Counter[str]]:
    """Calls denied and processes signalled, by a policy's hook and the way to it."""
    total: dict[str, Counter[str]] = {}
    for hook, counts in (item for gadget in _counts(*states.values()) for item in gadget.hooks.items()):
        found = {name: counts.get(count, 0) for name, count in _REPORTED.items()}
        if any(found.values()):
            total.setdefault(hook, Counter()).update(found)
    return total


def _requests_and_reactions(states: Mapping[str, NodeState]) -> tuple[Counter[str], Counter[str]]:
    """Requests that agents made for policies; processes that agents killed, and those that had already ended."""
    requests: Counter[str] = Counter()
    reactions: Counter[str] = Counter()
    for gadget in _counts(*states.values()):
        counts = gadget.requests or RequestCounts()
        requests.update({"answered": counts.answered, "failed": counts.failed, "left out": counts.left_out})
        reactions.update({"killed": gadget.killed, "had ended already": gadget.gone})
    return +requests, +reactions
