"""Converts the flags of a run to RunOptions, with checks that involve several flags.

It rejects contradictions before anything is started.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from kubectl_gadget.cli.flags import (
    ClusterFlags,
    EngineFlags,
    ImageFlags,
    OutputFlags,
    ScopeFlags,
    StartFlags,
    TargetFlags,
    spelling,
)
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.cluster_options import Selection, workloads
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.run.run_options import GadgetRun, LiveView, Replay, RunOptions

replaying: ContextVar[Replay | None] = ContextVar("replaying", default=None)
"""RunOptions.replay for runs of `replay`, which wraps other commands"""
beforehand: ContextVar[Callable[[], object] | None] = ContextVar("beforehand", default=None)
"""RunOptions.beforehand for runs of a command that wraps another one, which then need not pass it on"""


@dataclass(frozen=True)
class RunFlags:
    """All flags that a run shares with other runs."""

    scope: ScopeFlags
    target: TargetFlags
    output: OutputFlags
    engine: EngineFlags
    image: ImageFlags
    start: StartFlags
    cluster: ClusterFlags

    def validate(self, pods: tuple[str, ...]) -> None:
        """Raises UsageError if flags contradict each other, or the names of pods."""
        output, engine = self.output, self.engine
        if pods and self.scope.selector:
            raise UsageError("pods are selected by name or by -l, not both")
        if self.scope.all_namespaces and (chosen := workloads(pods)):
            kind, name = chosen[0]
            raise UsageError(f"{kind}/{name} is in one namespace, but -A selects all", f"{kind}/{name} -n NAMESPACE")
        if not output.ui and (given := output.typed().keys() & _OF_PAGES):
            raise UsageError(f"{spelling(OutputFlags, min(given))} is for a live page", "--ui")
        for flag, value in (("--export-tls", output.export_tls), ("--export-header", output.export_headers)):
            if value and not output.exports:
                raise UsageError(f"{flag} is only for --export")
        if output.output and any(text == "jsonl=-" for text in output.exports or ()):
            raise UsageError("--export jsonl=- writes to standard output, so -o has no place there", "one of the two")
        if output.quiet and output.verbose:
            raise UsageError("--quiet and --verbose cannot be used together")
        if engine.no_sort and engine.sort_wait is not None:
            raise UsageError("--sort-wait and --no-sort cannot be used together")
        if output.expect and output.timeout is None and output.max_events is None:
            raise UsageError("--expect needs a limit for the run", "--timeout 30s, or --max-events N")


@dataclass(frozen=True)
class SilentRunFlags:
    """The flags of a run that shows no rows: RunFlags without output."""

    scope: ScopeFlags
    target: TargetFlags
    engine: EngineFlags
    image: ImageFlags
    start: StartFlags
    cluster: ClusterFlags

    def with_output(self, output: OutputFlags) -> RunFlags:
        """All flags of the run; `output` has what the command decides, such as --timeout."""
        return RunFlags(self.scope, self.target, output, self.engine, self.image, self.start, self.cluster)


def run_options(gadgets: tuple[GadgetRun, ...], pods: tuple[str, ...], flags: RunFlags) -> RunOptions:
    """The options of one run. Raises UsageError if flags contradict each other."""
    flags.validate(pods)
    chosen = workloads(pods)
    kube = flags.cluster.options()
    replay = replaying.get()
    by_default = False
    if flags.target.local is None:
        from kubectl_gadget.kube.kubeconfig import has_kubeconfig

        by_default = not has_kubeconfig(kube)
    local = replay is not None or by_default or bool(flags.target.local)
    if replay is not None:
        _check_replay(flags, chosen)
    elif local:
        _check_local(flags, chosen)
    output, engine = flags.output, flags.engine
    defaults, selection = RunOptions(gadgets), _selection(gadgets, pods, flags)
    return RunOptions(
        gadgets=gadgets,
        selection=selection,
        kube=kube,
        agent=flags.cluster.agents(flags.image, flags.start),
        output=OutputOptions(
            format=output.output or "table",
            no_headers=bool(output.no_headers),
            color=output.color or "auto",
            columns=output.columns or (),
            selection=selection.described(local),
        ),
        local=local,
        local_by_default=by_default,
        beforehand=beforehand.get(),
        **_recording(output.record),
        **_export(output),
        page=output.report,
        ui=_view(output) if output.ui else None,
        replay=replay,
        filter=output.filter,
        fail_on=output.fail_on,
        expect=output.expect,
        timeout=output.timeout,
        max_events=output.max_events,
        sort=not engine.no_sort,
        sort_wait=defaults.sort_wait if engine.sort_wait is None else engine.sort_wait,
        ring_bytes=engine.ring_bytes or defaults.ring_bytes,
        map_entries=engine.map_entries,
        buffer_bytes=engine.buffer_bytes or defaults.buffer_bytes,
        strict=bool(output.strict),
        verbose=bool(output.verbose),
        quiet=bool(output.quiet),
    )


def _view(output: OutputFlags) -> LiveView:
    return LiveView(output.browser != "none", output.web_port or 0, output.allow_host or (), not output.no_names)


_OF_PAGES = frozenset({"browser", "web_port", "allow_host"})


def recorded_options(pods: tuple[str, ...], scope: ScopeFlags, target: TargetFlags) -> RunOptions:
    """The options that select from recordings, for facts. Raises UsageError for what a recording does not know."""
    if target.node_selector is not None:
        raise UsageError("recordings have no labels of nodes, so you cannot select by them", "--node NAME")
    if scope.selector is not None or workloads(pods):
        raise UsageError(
            "recordings have no pod labels or owners, so you cannot select by them",
            "names of pods, -n, -c and --node",
        )
    selection = Selection(
        namespace=scope.namespace,
        all_namespaces=bool(scope.all_namespaces),
        pods=pods,
        containers=target.containers or (),
        nodes=target.nodes or (),
    )
    return RunOptions((), selection=selection)


def _export(output: OutputFlags) -> dict[str, Any]:
    """Return the options that make the export of a run."""
    if not output.exports:
        return {}
    from kubectl_gadget.export.run import Export
    from kubectl_gadget.export.sending import Serving
    from kubectl_gadget.export.targets import ExportOptions, Tls, headers, target, tls

    options = ExportOptions(
        tuple(map(target, output.exports)),
        tls(output.export_tls) if output.export_tls else Tls(),
        tuple(pair for text in output.export_headers or () for pair in headers(text)),
    )
    if not options.serves:
        return {"export": partial(Export, options)}
    serving = Serving()
    return {"export": partial(Export, options, serving=serving), "services": (serving.serve,)}


def _recording(text: str | None) -> dict[str, Any]:
    """Return the options that say where a run is recorded."""
    if text is None:
        return {}
    from kubectl_gadget.recording.places import place_of
    from kubectl_gadget.recording.recorder import Recorder, RecordingOptions

    place = place_of(text)
    return {"record": partial(Recorder, RecordingOptions(place)), "recorded_in": place}


def _selection(gadgets: tuple[GadgetRun, ...], pods: tuple[str, ...], flags: RunFlags) -> Selection:
    scope, target = flags.scope, flags.target
    chosen = pods or scope.namespace or scope.selector or target.containers or target.host is not None
    everything = not chosen and all(run.gadget.whole_nodes for run in gadgets)
    return Selection(
        namespace=scope.namespace,
        all_namespaces=bool(scope.all_namespaces) or everything,
        pods=tuple(target for target in pods if "/" not in target),
        workloads=workloads(pods),
        selector=scope.selector,
        containers=target.containers or (),
        nodes=target.nodes or (),
        node_selector=target.node_selector,
        host=bool(target.host) or everything,
        own_processes=bool(target.own_processes),
    )


def _check_replay(flags: RunFlags, chosen: tuple[tuple[str, str], ...]) -> None:
    """Rejects flags and targets that control tracing, or that need the cluster."""
    remedy = "pods by name, -n, -c, --node or --filter"
    if chosen:
        kind, name = chosen[0]
        raise UsageError(f"{kind}/{name}: a recording does not say which pods belong to it", remedy)
    if flags.output.record is not None:
        raise UsageError("--record cannot be used in a replay: the recording already exists")
    for given in (flags.scope, flags.target, flags.engine, flags.image, flags.start, flags.cluster):
        for name in sorted(given.typed().keys() - _REPLAYED_TOO):
            what = f"{spelling(type(given), name)} has no effect on a replay, which shows what was traced"
            raise UsageError(what, remedy)


_REPLAYED_TOO = frozenset({"namespace", "all_namespaces", "containers", "nodes", "host", "no_sort", "sort_wait"})


def _check_local(flags: RunFlags, chosen: tuple[tuple[str, str], ...]) -> None:
    """Rejects flags and targets that are meaningful only in a cluster."""
    for kind, name in chosen:
        if flags.target.local:
            raise UsageError(f"{kind}/{name} cannot be used with --local: it needs a cluster", "the names of pods")
        remedy = "set KUBECONFIG or --kubeconfig"
        raise UsageError(f"{kind}/{name} needs a cluster, and no kubeconfig was found", remedy)
    for given in (flags.scope, flags.target, flags.image, flags.cluster):
        for name in sorted(given.typed().keys() - _LOCAL_TOO):
            flag = spelling(type(given), name)
            if flags.target.local:
                raise UsageError(f"{flag} cannot be used with --local: it needs a cluster")
            raise UsageError(f"{flag} needs a cluster, and no kubeconfig was found", "set KUBECONFIG or --kubeconfig")


_LOCAL_TOO = frozenset({"namespace", "all_namespaces", "containers", "host", "local", "own_processes"})
