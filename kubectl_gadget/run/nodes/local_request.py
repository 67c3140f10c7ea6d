"""What this machine's agent is asked for; a plain run's request is sent before anything else of the run is imported.

The trap: nothing may be requested before all of the user's input was checked, which needs numpy in many runs; and this
is imported before asyncio and numpy, which take longer than reading the command line.
"""

import os
import sys

from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.output.registry import ROWS
from kubectl_gadget.run.nodes import local_agent
from kubectl_gadget.run.request import of_run
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.run.run_request import RunRequest
from kubectl_gadget.wire.client_messages import FilterSpec


def ask_early(options: RunOptions) -> None:
    """Sends the run's request to this machine's agent, if the run is there and early_request() has one. Raises
    UsageError."""
    if options.local and sys.platform == "linux" and (request := early_request(options)) is not None:
        local_agent.ask(request.frames(request.gadgets, local_filter(options.selection), os.uname().machine))


def early_request(options: RunOptions) -> RunRequest | None:
    """Returns the request of a run in which nothing but the request itself is to be checked. So agents may attach while
    numpy is imported. None: they have to wait (preparation.py). Raises UsageError."""
    output, arrangement = options.output, options.arrangement
    is_plain = (
        output.format in ROWS.plain
        and not output.columns
        and not any((arrangement.by, arrangement.sort, arrangement.tree, arrangement.diff, arrangement.flame_graph))
        and (options.filter, options.fail_on, options.expect) == (None, None, None)
        and (options.make_sink, options.transform, options.record, options.beforehand) == (None, None, None, None)
        and not options.services
        and all(map(_only_observes, options.gadgets))
    )
    return of_run(options, [{} for _ in options.gadgets]) if is_plain else None


def _only_observes(run: GadgetRun) -> bool:
    is_own = run.directory is not None
    return run.gadget.kind == "stream" and run.policies is None and not (run.installed or run.tables or is_own)


def local_filter(selection: Selection) -> FilterSpec:
    """Returns FILTER for one machine: without -n, every container, also those that Kubernetes did not create."""
    return FilterSpec(
        namespaces=(selection.namespace,) if selection.namespace and not selection.all_namespaces else None,
        pods=tuple(selection.pods) or None,
        containers=tuple(selection.containers) or None,
        host=selection.host,
        own_processes=selection.own_processes,
    )
