"""Commands that run tools of others on nodes: `bcc TOOL [ARGS]`, or the user's own script, and `bpftrace PROGRAM`.

Words after the name of bcc's tool belong to the tool, so our own flags come before it.
"""

import base64
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_gadget.cli import values
from kubectl_gadget.cli.cluster import wait_for
from kubectl_gadget.cli.flags import (
    ENGINE,
    SHOW,
    WHERE,
    ClusterFlags,
    EngineFlags,
    FlagSet,
    ImageFlags,
    OutputFlags,
    ScopeFlags,
    Seconds,
    StartFlags,
    Switch,
    TargetFlags,
    Text,
    Texts,
    TypedOnly,
    flag,
    passed_on,
)
from kubectl_gadget.cli.printing import say
from kubectl_gadget.cli.run_flags import RunFlags, run_options
from kubectl_gadget.errors import UsageError
from kubectl_gadget.output import terminal
from kubectl_gadget.output.terminal import require_writable
from kubectl_gadget.run.progress import Progress

if TYPE_CHECKING:
    from kubectl_gadget.other_tools.run import Printed
    from kubectl_gadget.run.progress import Progress
    from kubectl_gadget.run.run_options import RunOptions


# `bcc`

Words = Annotated[tuple[str, ...], typer.Argument(metavar="TOOL"), passed_on]
List = Annotated[Switch, flag(SHOW, "--list", "List the tools that the selected nodes have"), TypedOnly.ACTION]
_MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class ToolOutputFlags(FlagSet):
    """The OutputFlags that make sense for the tool's own lines."""

    timeout: Annotated[
        Seconds, flag(SHOW, "--timeout TIME", "Stop the tool, as Ctrl-C does, after this time: 30s, 5m")
    ] = None
    color: Annotated[
        Text, flag(SHOW, "--color WHEN", "Color node names: auto, always or never", choices=values.COLORS)
    ] = None
    quiet: Annotated[Switch, flag(ENGINE, "--quiet, -q", "No progress on standard error")] = None
    verbose: Annotated[Switch, flag(ENGINE, "--verbose, -v", "More details on standard error")] = None


@dataclass(frozen=True)
class ToolFlags:
    """All flags of a run of a tool."""

    scope: ScopeFlags
    target: TargetFlags
    shown: ToolOutputFlags
    image: ImageFlags
    start: StartFlags
    cluster: ClusterFlags

    def options(self, pods: tuple[str, ...], declared: str) -> "RunOptions":
        """The options of the run; `declared` is the name that the agents' command gives to what runs."""
        output = OutputFlags(**vars(self.shown))
        flags = RunFlags(self.scope, self.target, output, EngineFlags(), self.image, self.start, self.cluster)
        options = run_options((), pods, flags)
        agent = replace(options.agent, image=bcc_image(self.image), bcc=True, bcc_tool=declared)
        return replace(options, agent=agent)


def bcc(words: Words, list_tools: List, flags: ToolFlags) -> int:
    """Checks what the nodes lack, then starts the tool on each of them."""
    request = None if list_tools else _request(words)
    scope, target = flags.scope, flags.target
    anywhere = not (scope.namespace or scope.selector or target.containers or target.nodes or target.node_selector)
    options = flags.options((), _declared(request))
    everywhere = anywhere or options.selection.all_namespaces
    options = replace(options, selection=replace(options.selection, all_namespaces=everywhere))
    return _list(options) if request is None else _run(options, request)


def bcc_image(flags: ImageFlags) -> str | None:
    """The value of --image; a setting for all commands counts only if it names a bcc image, since an image that runs
    gadgets need not have these tools."""
    return flags.image if "image" in flags.typed() or "bcc" in (flags.image or "") else None


def _declared(request: dict[str, object] | None) -> str:
    """The name that the agents' command gives to what runs; a script's name would mean nothing to others."""
    return "" if request is None else str(request.get("tool") or "own:script")


def _request(words: tuple[str, ...]) -> dict[str, object]:
    """The request to the agents. Raises UsageError."""
    if not words:
        raise UsageError("no tool or file was given", "kubectl gadget bcc --list")
    tool, *arguments = words
    if arguments[:1] == ["--"]:
        del arguments[0]
    if "/" not in tool and not tool.endswith((".py", ".c")):
        return {"tool": tool.removesuffix("-bpfcc"), "arguments": arguments}
    path = Path(tool)
    try:
        script = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{tool}: {error.strerror}") from None
    if len(script) > _MOST_BYTES:
        raise UsageError(f"{tool} has more than {_MOST_BYTES >> 20} MiB, so it is not a script")
    language = "c" if path.suffix == ".c" else "python"
    if language == "c" and arguments:
        raise UsageError(f"{tool} is a C file, which takes no arguments", "write a Python script that loads it")
    return {"script": base64.b64encode(script).decode(), "language": language, "arguments": arguments}


def _run(options: "RunOptions", request: dict[str, object]) -> int:
    from kubectl_gadget.other_tools import run as session

    return wait_for(session.run(options, request, *output(options)))


def output(options: "RunOptions") -> "tuple[Printed, Progress]":
    """The printers for the nodes' lines and for progress. Raises GadgetError if standard output is closed."""
    from kubectl_gadget.other_tools.run import Printed

    require_writable(sys.stdout)
    colors = terminal.wants_color(options.output.color, terminal.find_terminal(sys.stdout, os.environ))

    def paint(node: str) -> str:
        return terminal.paint(node, terminal.pod_color(node)) if colors else node

    shown = Printed(sys.stdout, sys.stderr, None if options.local else paint)
    return shown, Progress(sys.stderr, options.quiet, options.verbose)


def _list(options: "RunOptions") -> int:
    from kubectl_gadget.other_tools import run as session

    by_node = wait_for(session.list_tools(options, Progress(sys.stderr, options.quiet, options.verbose)))
    everything = sorted({tool for tools in by_node.values() for tool in tools})
    sys.stdout.writelines(f"{tool}\n" for tool in everything)
    sys.stdout.flush()
    for node, tools in by_node.items():
        if not tools:
            say(f"{node}: bcc is not installed (try: apt-get install bpfcc-tools python3-bpfcc)")
        elif missing := sorted(set(everything) - set(tools)):
            say(f"{node} lacks {', '.join(missing)}")
    return 0 if everything else 1


# `bpftrace`: the program is checked and rewritten first, so one that cannot be limited to pods starts nothing

_PROGRAM = "Program"
_MOST_PROGRAM_BYTES = 1 << 20
ProgramWords = Annotated[tuple[str, ...], typer.Argument(metavar="PROGRAM")]
File = Annotated[
    Text,
    flag(_PROGRAM, "--filename, -f FILE", "Read the program from this file; - is standard input"),
    TypedOnly.ACTION,
]
Pods = Annotated[
    Texts, flag(WHERE, "--pod POD", "These pods: xwing, deploy/web, svc/db; can be repeated"), values.pod_names
]


def bpftrace(words: ProgramWords, program_file: File, pod: Pods, flags: ToolFlags) -> int:
    """Rewrites the program, checks what the nodes lack, and starts it on each of them."""
    from kubectl_gadget.other_tools import run as session

    pods, scope, target = tuple(pod or ()), flags.scope, flags.target
    text, arguments, name = _program(words, program_file)
    whole_node = bool(target.host)
    if whole_node and (pods or target.containers or scope.namespace or scope.selector):
        raise UsageError("--host selects the whole node, so pods cannot be selected too", "use only one of them")
    script = session.script(text, arguments, whole_node, name)
    options = flags.options(pods, session.DECLARED)
    everywhere = whole_node or bool(scope.all_namespaces)
    options = replace(options, selection=replace(options.selection, all_namespaces=everywhere, host=whole_node))
    return wait_for(session.run_script(options, script, *output(options)))


def _program(words: tuple[str, ...], file: str | None) -> tuple[str, tuple[str, ...], str]:
    """The program's text, its positional parameters, and its name in errors. Raises UsageError."""
    if file is None:
        if not words:
            raise UsageError("bpftrace needs a program", "kubectl gadget bpftrace 'PROBE { ACTION }', or -f FILE")
        if "{" not in words[0] and Path(words[0]).is_file():
            raise UsageError(f"{words[0]} is a file", f"-f {words[0]}")
        return words[0], words[1:], "program"
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except UnicodeError:
        raise UsageError(f"{file} is not a program of bpftrace: it is not UTF-8") from None
    if len(text) > _MOST_PROGRAM_BYTES:
        raise UsageError(f"{file} has more than {_MOST_PROGRAM_BYTES >> 20} MiB, so it is not a program")
    return text, words, file
