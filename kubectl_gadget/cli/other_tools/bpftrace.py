"""`kubectl gadget bpftrace PROGRAM`: runs a bpftrace program on all nodes, for the selected pods.

The trap: the program is checked and rewritten before anything is started, so a program that cannot be limited to pods
fails at once.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kubectl_gadget.cli.flags.connect import wait_for
from kubectl_gadget.cli.flags.flag_declaration import WHERE, Text, Texts, TypedOnly, flag
from kubectl_gadget.cli.other_tools.bcc import ToolFlags, output
from kubectl_gadget.cli.values import object_names
from kubectl_gadget.errors import UsageError

_PROGRAM = "Program"
_MOST_BYTES = 1 << 20
Words = Annotated[tuple[str, ...], typer.Argument(metavar="PROGRAM")]
File = Annotated[
    Text,
    flag(_PROGRAM, "--filename, -f FILE", "Read the program from this file; - is standard input"),
    TypedOnly.ACTION,
]
Pods = Annotated[
    Texts, flag(WHERE, "--pod POD", "These pods: xwing, deploy/web, svc/db; can be repeated"), object_names.pod_names
]


def bpftrace(words: Words, program_file: File, pod: Pods, flags: ToolFlags) -> int:
    """Rewrites the program, checks what the nodes lack, and starts it on each of them."""
    from kubectl_gadget.other_tools import bpftrace_run as session

    pods, scope, target = tuple(pod or ()), flags.scope, flags.target
    text, arguments, name = _program(words, program_file)
    whole_node = bool(target.host)
    if whole_node and (pods or target.containers or scope.namespace or scope.selector):
        raise UsageError("--host selects the whole node, so pods cannot be selected too", "use only one of them")
    script = session.script(text, arguments, whole_node, name)
    options = flags.options(pods, session.DECLARED)
    everywhere = whole_node or bool(scope.all_namespaces)
    options = replace(options, selection=replace(options.selection, all_namespaces=everywhere, host=whole_node))
    return wait_for(session.run(options, script, *output(options)))


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
    if len(text) > _MOST_BYTES:
        raise UsageError(f"{file} has more than {_MOST_BYTES >> 20} MiB, so it is not a program")
    return text, words, file
