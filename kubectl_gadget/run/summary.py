"""The summary of a run: how much was seen, on which nodes, and what was lost, by STATS of docs/protocol.md. A loss of 0
is reported too.

The traps: truncated strings and events of unknown containers are in the output, so they are listed but do not count as
lost; and counts start with each connection, so those of lost connections are added.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from kubectl_gadget.counts import count
from kubectl_gadget.errors import AgentError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.run.nodes.node_state import NodeState
from kubectl_gadget.run.run_options import RunOptions
from kubectl_gadget.wire.agent_messages import GadgetStats, RequestCounts

EXPECTATION_FAILED = 4
"""The exit code of --fail-on and --expect."""
CAUSES = {
    "ring_full": "ring buffer full",
    "map_full": "map full",
    "unexamined": "parts of a call not examined",
    "recursion": "a program already running",
    "detached": "programs stopped by others",
    "cut_strings": "strings cut",
    "unattributed": "of unknown containers",
}
"""Names of the counters in messages. Truncated strings and unknown containers are in the output; the rest is lost."""

_REPORTED = {"denied": "overridden", "signalled": "signalled", "set": "set", "not set": "unset"}
"""The counts of a policy's hook that are reported, by their names in the report."""
_NODES_LISTED = 20
_LOSERS_LISTED = 5


def noun(gadget: Gadget) -> str:
    """What the gadget's output is counted in."""
    return "row" if gadget.kind in ("snapshot", "top", "profile") else "event"


def doing(options: RunOptions) -> str:
    """Returns a phrase like "tracing trace open", for the line that says that everything has started."""
    gadgets = options.gadgets
    if options.doing is not None:
        enforces = any(hook.enforces for run in gadgets if run.policies for hook in run.policies.hooks)
        return f"{'enforcing policies and ' if enforces else ''}{options.doing}"
    if any(run.tables and not run.policies for run in gadgets):
        dry = any(run.parameters.get("dry-run") for run in gadgets)
        return f"{'trying (dry run)' if dry else 'enforcing'} network policies"
    names = ", ".join(" ".join(run.gadget.command) for run in gadgets)
    return f"{'recording for' if gadgets[0].gadget.kind == 'recorder' else 'tracing'} {names}"


def _counts(*states: NodeState) -> Iterator[GadgetStats]:
    """What gadgets on these nodes have counted, over all connections."""
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


def is_complete(states: Mapping[str, NodeState], unattributed: int) -> bool:
    """Whether nothing is missing, as --strict requires."""
    return unattributed == 0 and all(
        state.error is None and state.gaps == 0 and not _missing(lost(state)) for state in states.values()
    )


def missing(states: Mapping[str, NodeState], unattributed: int) -> int:
    """Returns how many events are missing, including those of containers that no agent could name."""
    return unattributed + sum(_missing(lost(state)) for state in states.values())


def lines(
    states: Mapping[str, NodeState],
    shown: Counter[str],
    unattributed: int,
    skew_ns: Mapping[str, int],
    seconds: float,
    noun: str = "event",
    late: int = 0,
) -> Iterator[str]:
    """Yields the lines of the summary. `shown` counts rows by node; `skew_ns` is how far a node's clock is ahead of
    ours. Rows that are not events may be sums over several nodes, so they are not counted by node. `late` rows came
    after a younger row had been shown."""
    total: Counter[str] = Counter(unattributed=unattributed)
    for state in states.values():
        total += lost(state)
    yield (
        f"{count(sum(shown.values()), noun)} in {seconds:.1f} s from {count(len(states), 'node')}; "
        f"lost: {_causes(total)}"
    )
    if late:
        yield f"  {count(late, noun)} came too late to be sorted by time (try a longer --sort-wait)"
    if lost_most := _losers(states).most_common(_LOSERS_LISTED):
        yield "  lost most: " + ", ".join(f"{number:,} of {loser}" for loser, number in lost_most)
    for hook, counts in sorted(_enforced(states).items()):
        yield f"  {hook}: " + ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)
    requests, reactions = _requests_and_reactions(states)
    for what, numbers in (("requests of policies", requests), ("by agents", reactions)):
        if numbers:
            yield f"  {what}: " + ", ".join(f"{number:,} {name}" for name, number in numbers.items())
    if len(states) > 1:
        busiest = sorted(states.values(), key=lambda state: (-shown[state.name], state.name))
        for state in busiest[:_NODES_LISTED]:
            own = f"{count(shown[state.name], noun)}; " if noun == "event" else ""
            yield f"  {state.name}: {own}lost: {_causes(lost(state))}"
        if len(busiest) > _NODES_LISTED:
            yield f"  and {len(busiest) - _NODES_LISTED} more nodes"
    for name, state in states.items():
        if state.gaps:
            times = "once" if state.gaps == 1 else f"{state.gaps} times"
            yield f"  {name}: the connection was lost {times}, {state.gap_seconds:.1f} s are missing"
        if abs(skew_ns.get(name, 0)) >= 50_000_000:
            skew = skew_ns[name] / 1e9
            yield f"  {name}: its clock is {abs(skew):.2f} s {'ahead' if skew > 0 else 'behind'}; times are corrected"
    for name, state in states.items():
        if state.error is not None:
            yield f"failed: {name}: {state.error}"
            if state.error.remedy:
                yield f"  try: {state.error.remedy}"


def none_ran(states: Mapping[str, NodeState]) -> AgentError:
    """Returns one error for all nodes; a reason that several nodes share is stated once."""
    errors = [(name, state.error) for name, state in states.items() if state.error is not None]
    by_text: dict[str, list[str]] = {}
    for name, error in errors:
        by_text.setdefault(str(error), []).append(name)
    remedy = next((error.remedy for _, error in errors if error.remedy), None)
    if len(by_text) == 1:
        ((text, names),) = by_text.items()
        where = names[0] if len(names) == 1 else f"all {len(names)} nodes"
        return AgentError(f"{where}: {text}", remedy)
    text = "\n".join(f"  {', '.join(names)}: {text}" for text, names in by_text.items())
    return AgentError(f"no node could be traced\n{text}", remedy)


def why_nothing(selection: Selection) -> str:
    """Explains an empty result without a cluster, where nothing else reports that a selected object is missing."""
    if selection.namespace or selection.pods or selection.containers:
        return "none of this machine's containers was selected (try: kubectl gadget snapshot process -A --local)"
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


def _missing(causes: Mapping[str, Any]) -> int:
    return sum(count for cause, count in causes.items() if cause != "cut_strings")


def _causes(causes: Counter[str]) -> str:
    lost_events = _missing({cause: n for cause, n in causes.items() if cause not in ("unattributed", "detached")})
    # How many events a program would have seen is not known.
    at_least = "at least " if causes["detached"] else ""
    named = [f"{CAUSES.get(cause, cause)} {count:,}" for cause, count in sorted(causes.items()) if count]
    return f"{at_least}{lost_events:,}" + (f" ({', '.join(named)})" if named else "")
