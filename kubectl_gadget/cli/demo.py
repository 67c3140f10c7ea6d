"""`kubectl gadget demo`: a gadget on three small pods that are started on this machine, and removed at the end.

The trap: the pods are started only after everything that the user can have typed wrong was looked at.
"""

import sys
from dataclasses import replace
from typing import Annotated

import typer

from kubectl_gadget.cli import connect, observe
from kubectl_gadget.cli.flags import (
    CLUSTER,
    ClusterFlags,
    EngineFlags,
    ImageFlags,
    OutputFlags,
    ScopeFlags,
    StartFlags,
    TargetFlags,
)
from kubectl_gadget.cli.gadget_index import find_gadget
from kubectl_gadget.cli.help import Page
from kubectl_gadget.cli.run_options import RunFlags, run_options
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import Example
from kubectl_gadget.session.options import GadgetRun

SECONDS = 10.0
_DEFAULT, _OBSERVE, _PROCESSES = ("trace", "open"), ("observe",), ("trace", "process")
PAGE = Page(
    "Run a gadget on three small pods on this machine; needs Linux and root, and no cluster.",
    (
        Example("sudo kubectl gadget demo", "files that the pods open, for 10 s"),
        Example("sudo kubectl gadget demo trace exec --timeout 30s", "programs that they start, for 30 s"),
        Example("sudo kubectl gadget demo observe", "the life of their processes"),
    ),
    usage="[GADGET] [flags]",
    silent=(CLUSTER,),
)
Words = Annotated[tuple[str, ...], typer.Argument(metavar="GADGET"), tuple]


def demo(
    words: Words,
    scope: ScopeFlags,
    target: TargetFlags,
    output: OutputFlags,
    engine: EngineFlags,
    cluster: ClusterFlags,
) -> int:
    """Starts the pods, runs the gadget, and says what to try next."""
    from kubectl_gadget.demo import demo_pods
    from kubectl_gadget.session.run import run

    if target.local is False:
        raise UsageError("the demo runs on this machine; --local=false makes no sense with it")
    tells_story = words == _OBSERVE
    gadget = find_gadget(_PROCESSES if tells_story else words or _DEFAULT)
    output = replace(output, timeout=output.timeout or SECONDS)
    flags = RunFlags(scope, replace(target, local=True), output, engine, ImageFlags(), StartFlags(), ClusterFlags())
    options = run_options((GadgetRun(gadget),), (), flags)
    if tells_story:
        options = observe.told(options, output, observe.StoryFlags())
    tell = _silent if options.quiet else connect.say
    tell("starting three pods on this machine: default/xwing, default/tiefighter and empire/deathstar")
    with demo_pods():
        code = run(options, sys.stdout, sys.stderr)
    tell(_next(_OBSERVE if tells_story else gadget.command))
    return code


def _next(words: tuple[str, ...]) -> str:
    command = " ".join(words)
    other = "observe" if words == _DEFAULT else "trace open"
    return (
        "the pods are gone again; next, try\n"
        f"  sudo kubectl gadget demo {other}\n"
        f"  kubectl gadget {command} -A        in your cluster, on all nodes\n"
        f"  kubectl gadget {command} --help    flags, filters and output formats"
    )


def _silent(text: str) -> None:
    """Takes the place of say() with --quiet."""
