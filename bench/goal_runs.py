"""Measures what bench/goal_list.py has goals for: each group of goals by the benchmark that it belongs to.

What a tracer adds to a loop is the difference to the same loop right before and after it, so a difference of a per cent
of the loop's own time is noise. What the kernel itself counts of the programs is not, but has less in it.
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bench import diagnose, export, pages, profile, tcp
from bench import exec as programs
from bench import open as opens
from bench.attach import attach
from bench.client import sinks_of
from bench.flows import client_of
from bench.goal_list import (
    COUNTED,
    DIAGNOSE_LOCAL,
    EXPORT_DOWN,
    EXPORTED,
    FIRST,
    LIVE_PAGE,
    LOCAL,
    MANY_PROGRAMS,
    MILLION,
    ON_DEMAND,
    RESIDENT,
    SIX,
    SPINNING,
    TEN_MINUTES,
)
from bench.overhead import LOOPS, NOTHING, SPINNER, Load, Result, Tracer, beside, measure
from bench.programs import counted_ns
from bench.rounds import NotMeasurableError, alternate_possible
from bench.start import double, shortest, stopwatch
from bench.versions import NOW, Version

_COMPILER = ("sh", "-c", f"while :; do cc -O2 -o /dev/null {LOOPS / 'tcp_loop.c'}; done")
_SECONDS = 150.0
"""A version that has not attached all nodes by then is not measured further."""
_ROOT = "it needs root"
CPUS = os.cpu_count() or 1


@dataclass
class Found:
    """What a group measured."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """by what, then by variant: a version, or another tool"""
    failed: dict[str, str] = field(default_factory=dict)
    """why a variant cannot be measured here"""

    def add(self, results: dict[str, list[dict[str, float]]], failed: dict[str, str]) -> None:
        self.failed |= failed
        for variant, rounds in results.items():
            for values in rounds:
                for what, value in values.items():
                    self.values.setdefault(what, {}).setdefault(variant, []).append(value)


@dataclass(frozen=True)
class Setting:
    """What a command line of bench.goals asked for."""

    versions: Sequence[Version]
    rounds: int
    flags: Sequence[str] = ()
    """of trace open on the cluster in $KUBECONFIG"""


def _alternate(setting: Setting, run: Callable[[Version], dict[str, float]], rounds: int | None = None) -> Found:
    found = Found()
    variants = {version.name: partial(run, version) for version in setting.versions}
    found.add(*alternate_possible(variants, rounds or setting.rounds))
    return found


def _require_root() -> None:
    if os.geteuid() != 0:
        raise NotMeasurableError(_ROOT)


def _loop(
    setting: Setting,
    load: Load,
    tracers: Sequence[Tracer],
    ours: str,
    values: Callable[[Result], dict[str, float]],
) -> Found:
    """A loop with `ours` of each version and with libbpf-tools' tool."""
    _require_root()
    variants = _of_versions(setting, tracers, ours)
    variants += [tracer for tracer in tracers if tracer.name.startswith("libbpf-tools'")][:1]
    results, failed = measure(load, variants, setting.rounds, load.count)
    del results[NOTHING]
    found = Found()
    found.add({name: [values(result) for result in rounds] for name, rounds in results.items()}, failed)
    return found


def _of_versions(setting: Setting, tracers: Sequence[Tracer], ours: str) -> list[Tracer]:
    of_here = next(tracer for tracer in tracers if tracer.name == f"kubectl gadget {ours}")
    words = of_here.command[of_here.command.index(ours.split(maxsplit=1)[0]) :]
    return [replace(of_here, name=one.name, command=tuple(one.command(*words))) for one in setting.versions]


def _added(what: str) -> Callable[[Result], dict[str, float]]:
    return lambda result: {what: result.added_ns / 1000}


def _connections(setting: Setting) -> Found:
    return _loop(setting, tcp.CONNECT, tcp.CONNECT_TRACERS, "flows", _added("`flows`, added per TCP connection"))


def _stream(setting: Setting) -> Found:
    longer = replace(tcp.STREAM, count=tcp.STREAM.count * 4)
    tracers = [tracer for tracer in tcp.STREAM_TRACERS if "tcptop" not in tracer.name]
    return _loop(setting, longer, tracers, "flows", _added("`flows`, added per 64 KiB of a stream"))


def _programs(setting: Setting) -> Found:
    found = _loop(
        setting, programs.LOAD, programs.TRACERS, "trace process", _added("`trace process`, added per program")
    )
    without_tools = [tracer for tracer in programs.TRACERS if tracer.ours]
    more = _loop(setting, programs.LOAD, without_tools, "trace exec", _added("`trace exec`, added per program"))
    counted = _counted(setting, programs.LOAD, programs.TRACERS, "trace process", COUNTED)
    return Found(found.values | more.values | counted.values, found.failed | more.failed | counted.failed)


def _counted(setting: Setting, load: Load, tracers: Sequence[Tracer], ours: str, what: str) -> Found:
    """What the kernel counts of each version's programs, in µs per unit."""

    def run(tracer: Tracer) -> dict[str, float]:
        return {what: counted_ns(load, tracer, load.count) / 1000}

    found = Found()
    variants = {tracer.name: partial(run, tracer) for tracer in _of_versions(setting, tracers, ours)}
    found.add(*alternate_possible(variants, setting.rounds))
    return found


def _opens(setting: Setting, spinners: int) -> Found:
    begins = f"{spinners} spinners: `trace open`" if spinners else "`trace open`"

    def values(result: Result) -> dict[str, float]:
        found = {
            f"{begins}, added per open": result.added_ns / 1000,
            f"{begins}, delivered of 1,000,000": 100 * (result.delivered or 0.0),
        }
        return found if spinners else found | {f"{begins}, agent's CPU per open": (result.tracer_cpu_ns or 0.0) / 1000}

    with beside(SPINNER, spinners):
        return _loop(setting, opens.LOAD, opens.TRACERS, "trace open", values)


def _profile(setting: Setting, compilers: int) -> Found:
    begins = f"{compilers} compilers: `profile cpu`" if compilers else "`profile cpu`"

    def values(result: Result) -> dict[str, float]:
        return {
            f"{begins}, agent, of all CPUs": 100 * (result.tracer_share or 0.0) / CPUS,
            f"{begins}, agent's memory": result.tracer_mb or 0.0,
        }

    with beside(_COMPILER, compilers):
        return _loop(setting, profile.LOAD, profile.TRACERS, "profile cpu", values)


def _nodes(setting: Setting, nodes: int) -> Found:
    def run(version: Version) -> dict[str, float]:
        found = attach(version.tree, nodes, 20_000, _SECONDS)
        return {
            f"{nodes:,} nodes attached": found["seconds"],
            f"{nodes:,} nodes: the client's CPU per node": found["client_s"] / nodes * 1000,
            f"{nodes:,} nodes: the client's memory per node": found["memory_mb"] / nodes,
        }

    return _alternate(setting, run)


def _local(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        found = {}
        for what, gadget in ((LOCAL, "open"), (MANY_PROGRAMS, "file")):
            took = stopwatch(version.command("trace", gadget, "--local", "--host", "-o", "json"), {})
            found[f"{what}: Enter to attached"] = took["attached"]
            found[f"{what}: Ctrl-C to the end"] = took["end"]
            found[f"{what}: CPU of client and agent"] = took["cpu"]
        return found

    _require_root()
    return _alternate(setting, run)


def _help(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        found = {}
        page = version.command("trace", "open", "--help")
        tab = version.command("trace", "op", program="kubectl_complete-gadget")
        for what, words in (("`--help`", page), ("TAB", tab)):
            found[what], found[f"{what}, of CPU"] = shortest(words)
        return found

    return _alternate(setting, run)


def _cluster(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        found = {}
        for what, nodes, deploy in ((RESIDENT, 2, True), (SIX, 6, True), (ON_DEMAND, 2, False)):
            with tempfile.TemporaryDirectory() as name, double(nodes, Path(name), deploy, version.tree) as environment:
                command = version.command("trace", "open", "-A", "--host", "-o", "json")
                first = took = stopwatch(command, environment)
                for _ in range(2 if deploy else 0):  # modules are compiled after the first one, so during the second
                    took = stopwatch(command, environment)
            found[f"fake cluster, {what}: Enter to attached"] = took["attached"]
            if what == RESIDENT:
                found[f"fake cluster, {what}, {FIRST}: Enter to attached"] = first["attached"]
                found[f"fake cluster, {what}: Ctrl-C to the end"] = took["end"]
        return found

    _require_root()
    return _alternate(setting, run)


def _real_cluster(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        took = stopwatch(version.command("trace", "open", "-A", "--host", "-o", "json", *setting.flags), {})
        return {f"{begins}: Enter to attached": took["attached"], f"{begins}: Ctrl-C to the end": took["end"]}

    begins = "cluster of $KUBECONFIG"
    if not os.environ.get("KUBECONFIG"):
        raise NotMeasurableError("$KUBECONFIG is not set")
    return _alternate(setting, run)


def _flows_client(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        found = client_of("json", version.tree / "bench" / "flows.py", nodes=100, flows=100)
        begins = "`flows`, client on one core"
        return {
            f"{begins}: rows/s, three per connection": 3 * found["flows_per_s"],
            f"{begins}: memory": found["memory_mb"],
        }

    return _alternate(setting, run)


def _diagnose(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        found = diagnose.measure(nodes=100, pods=10, client=version.tree)
        begins = "`diagnose -A` for 30 s, 1,000 pods on 100 nodes"
        return {f"{begins}: the client's CPU": found["cpu_s"], f"{begins}: the client's memory": found["memory_mb"]}

    return _alternate(setting, run)


def _diagnose_agent(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        found = diagnose.measure_agent(version.tree)
        return {
            f"{SPINNING}: the agent, of all CPUs": found["agent_%"],
            f"{SPINNING}: the agent's memory": found["agent_mb"],
            f"{SPINNING}: events/s, whatever the program calls": found["events_s"],
        }

    return _alternate(setting, run)


def _diagnose_start(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        took = diagnose.measure_start(version.command("diagnose"), version.command("trace", "open"))
        return {
            DIAGNOSE_LOCAL: took["attached_s"],
            f"{DIAGNOSE_LOCAL}, times {LOCAL} right before": took["ratio"],
        }

    _require_root()
    return _alternate(setting, run)


def _page(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        _require_now(version)
        large, usual = pages.reported(100, 10_000), pages.reported(600, 200)
        return {
            MILLION: large["seconds"],
            f"{MILLION}: memory": large["memory_mb"],
            f"{MILLION}: its size": large["file_mb"],
            f"{TEN_MINUTES}: its size": usual["file_mb"],
        }

    return _alternate(setting, run)


def _live_page(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        _require_now(version)
        found = pages.live(60, 10_000)
        return {
            f"{LIVE_PAGE}: longest task of its main thread": found["longest_ms"],
            f"{LIVE_PAGE}: frames of more than 100 ms": found["frames_over"],
            f"{LIVE_PAGE}: most memory of its scripts": found["most_heap_mb"],
        }

    return _alternate(setting, run)


def _require_now(version: Version) -> None:
    """What is measured are functions of this version, so no other one can be measured."""
    if version.name != NOW:
        raise NotMeasurableError("only this version is measured")


def _formats(setting: Setting) -> Found:
    wanted = {
        "decode, name, filter, count": "decode, name, filter, count",
        "-o json": "JSON",
        "-o csv": "CSV",
        "-o yaml": "YAML",
    }

    def run(version: Version) -> dict[str, float]:
        found = sinks_of(version.tree, 200_000)
        return {f"client on one core: {what}, rows/s": found[sink] for sink, what in wanted.items()}

    return _alternate(setting, run)


def _export(setting: Setting) -> Found:
    def run(version: Version) -> dict[str, float]:
        _require_now(version)
        encoded = export.encoders(200_000, 1)
        down = export.stream(10, 20_000, 60, 1, None, True)
        return {
            f"{EXPORTED}: OTLP log records, rows/s": encoded[export.LOGS][0],
            f"{EXPORTED}: OTLP spans, rows/s": encoded[export.SPANS][0],
            EXPORT_DOWN: down["memory_mb"],
        }

    return _alternate(setting, run)


def _size(setting: Setting) -> Found:
    wanted = {"trace_open": "an open", "trace_exec": "an exec", "trace_tcp": "a TCP connection's row"}

    def run(version: Version) -> dict[str, float]:
        installed = version.installed()
        found = {
            "installed packages": installed["install"],
            "installed packages, number": installed["packages"],
            "wheel": installed["wheel"],
        }
        # Earlier versions counted what all programs of the machine did.
        if os.geteuid() == 0 and version.name == NOW:
            with tempfile.NamedTemporaryFile() as file:
                version.module("bench.size", "--json", file.name)
                wire = json.load(file)["results"]["wire"]
            found |= {f"{wanted[name]} on the wire": one["bytes"] / one["events"] for name, one in wire.items()}
        return found

    return _alternate(setting, run, 1)


GROUPS: dict[str, Callable[[Setting], Found]] = {
    "nodes": partial(_nodes, nodes=1000),
    "many-nodes": partial(_nodes, nodes=5000),
    "connections": _connections,
    "stream": _stream,
    "programs": _programs,
    "open": partial(_opens, spinners=0),
    "busy-open": partial(_opens, spinners=4),
    "local": _local,
    "help": _help,
    "cluster": _cluster,
    "real-cluster": _real_cluster,
    "flows-client": _flows_client,
    "diagnose": _diagnose,
    "diagnose-agent": _diagnose_agent,
    "diagnose-start": _diagnose_start,
    "page": _page,
    "live-page": _live_page,
    "formats": _formats,
    "export": _export,
    "profile": partial(_profile, compilers=0),
    "busy-profile": partial(_profile, compilers=2),
    "size": _size,
}
