"""`kubectl gadget policy generate KIND`: prints a policy to be edited and applied."""

import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from kubectl_gadget.cli.flags.flag_declaration import SHOW, Names, Text, TypedOnly, flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ScopeFlags
from kubectl_gadget.cli.values import object_names
from kubectl_gadget.errors import UsageError

_KINDS = ("empty", "all-syscalls", "ftrace-list", "uprobes", "usdts")
Kind = Annotated[tuple[str, ...], typer.Argument(metavar="KIND")]
Name = Annotated[
    Text, flag(SHOW, "--name NAME", "The policy's name (default: the kind)"), object_names.object_name, TypedOnly.ACTION
]
Binary = Annotated[Text, flag(SHOW, "--binary PATH", "uprobes, usdts: the program or library"), TypedOnly.ACTION]
MatchBinary = Annotated[
    Names, flag(SHOW, "--match-binary PATH", "all-syscalls, ftrace-list: only of this program"), TypedOnly.ACTION
]
Regex = Annotated[Text, flag(SHOW, "--regex, -r REGEX", "ftrace-list: which functions"), TypedOnly.ACTION]


def generate(
    scope: ScopeFlags,
    cluster: ClusterFlags,
    kinds: Kind = (),
    name: Name = None,
    binary: Binary = None,
    match_binary: MatchBinary = None,
    regex: Regex = None,
) -> int:
    from kubectl_gadget.policies.report import generate as make

    if len(kinds) != 1 or kinds[0] not in _KINDS:
        what = f"unknown kind {' '.join(kinds)!r};" if kinds else "no kind was given;"
        raise UsageError(f"{what} expected one of {', '.join(_KINDS)}", f"kubectl gadget policy generate {_KINDS[0]}")
    (kind,) = kinds
    makers: Mapping[str, Callable[[], dict[str, object]]] = {
        "empty": make.empty,
        "all-syscalls": lambda: make.all_system_calls(match_binary or ()),
        "ftrace-list": lambda: make.ftrace_list(_need(regex, kind, "--regex '^vfs_'"), match_binary or ()),
        "uprobes": lambda: make.uprobes(_need(binary, kind, "--binary /usr/bin/app")),
        "usdts": lambda: make.usdts(_need(binary, kind, "--binary /usr/bin/app")),
    }
    sys.stdout.write(make.policy_text(name or kind, makers[kind]()))
    return 0


def _need(value: str | None, kind: str, example: str) -> str:
    if value is None:
        flag = example.partition(" ")[0]
        raise UsageError(f"{kind} needs {flag}", f"kubectl gadget policy generate {kind} {example}")
    return value
