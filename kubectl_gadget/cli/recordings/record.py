"""`kubectl gadget record`: records a good set of gadgets, at once or as what came before something happened.

The trap: nothing is shown, so what a replay will want must be in the set: flows and processes have the parameters with
which `replay FILE flows` and `observe` run them.
"""

import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Count, FlagSet, Seconds, Text, TypedOnly, flag
from kubectl_gadget.cli.flags.flag_sets import OnlyWarnings, OutputFlags, Verbose
from kubectl_gadget.cli.flags.run_flags import SilentRunFlags, run_options
from kubectl_gadget.cli.values import amounts
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubectl_gadget.gadgets.schema import Gadget
    from kubectl_gadget.output.sink import TakingSink
    from kubectl_gadget.rows.rows import Rows
    from kubectl_gadget.run.run_options import GadgetRun, RecordingOptions, Trigger

_SETS = {
    "incident": ("trace_oomkill", "trace_mount", "trace_privilege", "trace_tcpretrans", "trace_fsslower"),
    "security": (
        "trace_privilege",
        "trace_bpf",
        "trace_modules",
        "trace_mount",
        "trace_fdpass",
        "trace_bind",
        "trace_sni",
    ),
    "network": ("trace_tcpretrans", "trace_bind", "trace_sni"),
    "files": ("trace_open", "trace_file", "trace_mount", "trace_fsslower"),
    "performance": ("trace_oomkill", "trace_fsslower", "trace_tcpretrans"),
}
"""Gadgets beside those of processes, which every set has."""
_BEHAVIOR = "behavior"
"""what `behavior` makes facts of, and nothing else"""
_WITH_FLOWS = ("incident", "security", "network")
"""sets that have all of `flows`; others have DNS alone, for its delays"""
_SYSCALLS = "behavior-syscalls"
"""the same with system calls, for `advise seccomp`"""
_PURPOSES = (*_SETS, _BEHAVIOR, _SYSCALLS)
_PARAMETERS = {"trace_open": {"failed": True}}
"""of the incident's opens: what was missing or forbidden"""
_MEMORY = 256 << 20
_AFTER_SECONDS = 5.0
_FILES = 10
_SMALLEST_FILE = 1 << 20


def _file_size(text: str) -> int:
    size = amounts.size(text)
    if size < _SMALLEST_FILE:
        raise ValueError("must be at least 1Mi")
    return size


@dataclass(frozen=True)
class RecordFlags(FlagSet):
    """Flags for what is recorded, and where it goes."""

    output: Annotated[
        Text, flag(SHOW, "--output, -o FILE", "A file, or s3://, gs:// or az:// (default: recording-TIME.kgr)")
    ] = None
    purpose: Annotated[
        Text, flag(SHOW, "--for PURPOSE", f"{', '.join(_PURPOSES)} (default: incident)", choices=_PURPOSES)
    ] = None
    keep: Annotated[
        Seconds, flag(SHOW, "--keep TIME", "Keep the last 5m in memory, and write them when something happens")
    ] = None
    keep_size: Annotated[
        int | None, flag(SHOW, "--keep-size SIZE", "Memory for --keep (default: 256Mi)"), _file_size
    ] = None
    on_match: Annotated[
        Text, flag(SHOW, "--on-match EXPR", "With --keep: write when a row matches this expression (CEL)")
    ] = None
    rotate_size: Annotated[
        int | None, flag(SHOW, "--rotate-size SIZE", "Begin a new file before this size: 100Mi"), _file_size
    ] = None
    rotate_every: Annotated[Seconds, flag(SHOW, "--rotate-every TIME", "Begin a new file after this time: 1h")] = None
    files: Annotated[
        Count, flag(SHOW, "--files N", "Keep the last N files; with --keep, the first N (default: 10)")
    ] = None
    timeout: Annotated[
        Seconds, flag(SHOW, "--timeout TIME", "Stop after this time: 30m, 24h (default: at Ctrl-C)"), TypedOnly.END
    ] = None
    quiet: OnlyWarnings = None
    verbose: Verbose = None


def record(pods: Pods, flags: SilentRunFlags, what: RecordFlags) -> int:
    from kubectl_gadget.run.run import run
    from kubectl_gadget.run.run_options import Trigger

    _check(what)
    purpose, trigger = what.purpose or "incident", Trigger()
    output = OutputFlags(timeout=what.timeout, quiet=what.quiet, verbose=what.verbose)
    runs, command = _gadgets(purpose)
    options = run_options(runs, pods, flags.with_output(output))

    def make_sink(gadgets: "Sequence[Gadget]", *_: object) -> "TakingSink":
        from kubectl_gadget.filters.filter import compile_filter
        from kubectl_gadget.output.sink import TakingSink

        wanted = None if what.on_match is None else compile_filter(what.on_match, gadgets, "--on-match")

        def look(rows: "Rows") -> None:
            if wanted is not None and len(rows) and rows.mask(wanted.mask).any():
                trigger(f"a row matched {wanted.text}")

        return TakingSink(look)

    options = replace(
        options, record=_recording(what, trigger), make_sink=make_sink, doing=f"recording ({purpose})", command=command
    )
    return run(options, sys.stdout, sys.stderr)


def _check(what: RecordFlags) -> None:
    rotates = what.rotate_size is not None or what.rotate_every is not None
    if what.keep is None and (what.on_match is not None or what.keep_size is not None):
        raise UsageError("--on-match and --keep-size need --keep", "--keep 5m")
    if what.keep is not None and rotates:
        raise UsageError("--keep and --rotate-… cannot be used together: --keep writes a file for each match")
    if what.files is not None and not (rotates or what.keep):
        raise UsageError("--files needs several files", "--rotate-size 100Mi, --rotate-every 1h, or --keep 5m")


def _recording(what: RecordFlags, trigger: "Trigger") -> "RecordingOptions":
    from kubectl_gadget.recording.outputs import Ring, Rotation
    from kubectl_gadget.recording.recording_places import place_of
    from kubectl_gadget.run.run_options import RecordingOptions

    path = place_of(what.output or f"recording-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.kgr")
    if what.keep is not None:
        ring = Ring(what.keep, what.keep_size or _MEMORY, _AFTER_SECONDS, what.files or _FILES)
        return RecordingOptions(path, ring=ring, trigger=trigger, is_all=True)
    rotates = what.rotate_size is not None or what.rotate_every is not None
    rotation = Rotation(what.rotate_size, what.rotate_every, what.files) if rotates else None
    return RecordingOptions(path, rotation, is_all=True)


def _gadgets(purpose: str) -> "tuple[tuple[GadgetRun, ...], tuple[str, ...]]":
    """The gadgets of a set, and the command that shows its recording."""
    from kubectl_gadget.flows.run import FlowGadgets
    from kubectl_gadget.gadgets import load_gadget
    from kubectl_gadget.run.run_options import GadgetRun

    if purpose in (_BEHAVIOR, _SYSCALLS):
        from kubectl_gadget.behavior.run import behavior_runs

        found = behavior_runs(purpose == _SYSCALLS)
        return found, ("trace", "+".join(run.gadget.command[-1] for run in found))
    runs = [GadgetRun(load_gadget(name)) for name in _SETS[purpose]]
    if purpose == "incident":
        runs += [GadgetRun(load_gadget(name), dict(values)) for name, values in _PARAMETERS.items()]
    # Processes are the last of these: what closes at the end of a process comes before that end.
    flows = FlowGadgets(drops=purpose != "security", processes=True).runs()
    if purpose not in _WITH_FLOWS:
        flows = tuple(run for run in flows if run.gadget.name in ("trace_dns", "trace_process"))
    known = {run.gadget.name: run for run in (*runs, *flows)}
    names = "+".join(run.gadget.command[-1] for run in known.values())
    return tuple(known.values()), ("flows",) if purpose == "network" else ("trace", names)
