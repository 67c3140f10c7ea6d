"""Commands of gadgets: one for each of the catalogue (`trace open`), the user's own (`run`), `list` and `options`.

A gadget's own flags must not collide with the shared ones; gadget_command rejects that, and a test tries every built-in
gadget.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from kubectl_gadget import gadgets
from kubectl_gadget.cli import values
from kubectl_gadget.cli.command import (
    Command,
    Entry,
    GadgetCommand,
    GadgetGroup,
    GroupParts,
    make_command,
    make_group,
    named_like_command,
    path_above,
    preset_texts,
)
from kubectl_gadget.cli.flags import ClusterFlags, Flag, NoHeaders, ScopeFlags, Text, format_flag
from kubectl_gadget.cli.gadget_flags import (
    INTERFACE,
    WRITE,
    arranged,
    arrangement_flags,
    functions_parameter,
    packet_file,
    packet_flags,
    parameter_flags,
    parameter_key,
    parameter_of_type,
    parameter_values,
    refuse_tcpdumps_meaning,
)
from kubectl_gadget.cli.help import flag_tables
from kubectl_gadget.cli.pages import Page, index, page_of, unknown_gadget
from kubectl_gadget.cli.printing import print_json, print_table
from kubectl_gadget.cli.run_flags import RunFlags, run_options
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import TABLES, Gadget
from kubectl_gadget.output.registry import LISTS
from kubectl_gadget.run.run_options import GadgetRun, with_peer_names
from kubectl_gadget.wording import meant
from kubectl_gadget.yaml_files import Example

if TYPE_CHECKING:
    from kubectl_gadget.gadgets import GadgetSummary

# Gadgets of the catalogue, one command for each

_MOST_EXAMPLES = 3
"""maximum number in help; the page in docs/ has all"""

FunctionsAndPods = Annotated[tuple[str, ...], typer.Argument(metavar="POD"), values.functions_and_pods]
Pods = Annotated[tuple[str, ...], typer.Argument(metavar="POD"), values.pod_names]
PodsAndExpression = Annotated[tuple[str, ...], typer.Argument(metavar="POD"), values.pods_and_expression]


def verb_group(verb: str, summary: str) -> GadgetGroup:
    """`kubectl gadget trace`, with one sub-command per gadget."""
    entries = {
        entry.command[-1]: Entry(
            entry.group.capitalize(), partial(built_in_command, entry.name), partial(Page, listed=entry.summary)
        )
        for entry in index()
        if entry.command[0] == verb
    }
    more = f"kubectl gadget {verb} GADGET --help explains a gadget."
    page = partial(Page, summary, usage="GADGET [POD|KIND/NAME...] [flags]", more=more)
    return make_group({"flags": RunFlags}, verb, GroupParts(page, entries, noun="gadget", kind=VerbGroup))


class VerbGroup(GadgetGroup):
    """The gadgets of one verb, alone or several together: `trace exec+open`."""

    def find(self, name: str, path: str = "") -> Command | None:
        """Makes the command of a gadget, or of several joined by +; None if one of them does not exist."""
        names = name.split("+")
        if len(names) == 1:
            return super().find(name, path)
        known = {entry.command[-1]: entry.name for entry in index() if entry.command[0] == self.name}
        for one in names:
            if one not in known:
                raise self.unknown(one, path or str(self.name))
        return several_command([gadgets.load_gadget(known[one]) for one in dict.fromkeys(names)], name)

    def joined(self, current: str) -> list[tuple[str, str]]:
        """Completes `exec+op`: streams for the part after the last +."""
        done, plus, _ = current.rpartition("+")
        if not plus:
            return []
        known = [entry for entry in index() if entry.command[0] == self.name]
        others = [entry for entry in known if entry.command[-1] not in done.split("+")]
        streams = [entry for entry in others if gadgets.load_gadget(entry.name).kind == "stream"]
        return [(f"{done}+{entry.command[-1]}", entry.summary) for entry in streams]

    def unknown(self, name: str, path: str) -> UsageError:
        """Suggests `profile cpu` for `trace cpu`, and `trace exec+tcp` for `trace exec,tcp`."""
        names, known = name.split(","), {entry.command[-1] for entry in index() if entry.command[0] == self.name}
        if len(names) > 1 and known.issuperset(names):
            return UsageError(f"unknown gadget {name!r}", f"{path} {'+'.join(names)}")
        return unknown_gadget(name, path.rpartition(" ")[0]) or super().unknown(name, path)

    def misplaced(self, below: typer.Context, words: Sequence[str]) -> UsageError | None:
        """Suggests `trace tcp+udp` for `trace tcp udp`."""
        known = {entry.command[-1]: entry.name for entry in index() if entry.command[0] == self.name}
        first = [name for name in str(below.info_name).split("+") if name in known]
        others = [word for word in words if word in known]
        if not others:
            return None
        path, all_names = path_above(below), list(dict.fromkeys([*first, *others]))
        if all(gadgets.load_gadget(known[name]).kind == "stream" for name in all_names):
            return named_like_command("gadget", others[0], f"{path} {'+'.join(all_names)}")
        return named_like_command("gadget", others[0], f"{path} {others[0]}, in a run of its own")


def gadget_command(gadget: Gadget, name: str, directory: Path | None = None) -> GadgetCommand:
    """The command that runs `gadget`. Raises UsageError if one of its flags collides with another."""
    usage = "FILE:SYMBOL... [POD|KIND/NAME...]" if functions_parameter(gadget) else "[POD|KIND/NAME...] [flags]"
    if parameter_of_type(gadget, "pcap"):
        usage = "[POD|KIND/NAME...] [EXPRESSION] [flags]"
    about = gadget.about
    page = partial(Page, about.summary + ".", about.examples[:_MOST_EXAMPLES], gadget.columns, usage=usage)
    return _command((gadget,), name, page, directory)


def several_command(gadgets: Sequence[Gadget], name: str) -> GadgetCommand:
    """The command that runs several gadgets in one stream. A flag that several of them have applies to each of
    these."""
    if not_streams := [gadget for gadget in gadgets if gadget.kind != "stream"]:
        raise UsageError(f"{' '.join(not_streams[0].command)} cannot be combined with other gadgets")
    summary = f"{', '.join(' '.join(gadget.command) for gadget in gadgets)}, in one stream in time order."
    examples = (Example(f"kubectl gadget {gadgets[0].command[0]} {name}", "the column EVENT names the gadget"),)
    page = partial(Page, summary, examples, usage="[POD|KIND/NAME...] [flags]")
    return _command(tuple(gadgets), name, page, None)


def _command(gadgets: tuple[Gadget, ...], name: str, page: Callable[[], Page], directory: Path | None) -> GadgetCommand:
    functions, packets = functions_parameter(gadgets[0]), parameter_of_type(gadgets[0], "pcap")

    def run(pods: Pods, flags: RunFlags, extras: dict[str, object]) -> int:
        return _run(gadgets, directory, pods, flags, extras)

    def run_functions(words: FunctionsAndPods, flags: RunFlags, extras: dict[str, object]) -> int:
        assert functions is not None
        key = parameter_key(functions)
        targets = ",".join([*(word for word in words if ":" in word), *filter(None, [str(extras.get(key, ""))])])
        if not targets and words:
            raise values.function_without_file(words[0])
        pods = tuple(word for word in words if ":" not in word)
        return _run(gadgets, directory, pods, flags, {**extras, key: targets})

    def run_packets(words: PodsAndExpression, flags: RunFlags, extras: dict[str, object]) -> int:
        from kubectl_gadget.filters.pcap_filter import split_words

        assert packets is not None
        refuse_tcpdumps_meaning(flags)
        written, expression = split_words(words)
        pods = tuple(pod.removeprefix("pod/") for pod in written)
        key, path = parameter_key(packets), extras.pop(WRITE, None)
        extras.pop(INTERFACE, None)
        if expression:
            given = extras.get(key)
            extras[key] = f"({given}) and ({expression})" if given else expression
        if path is None:
            return _run(gadgets, directory, pods, flags, extras)
        with packet_file(str(path), flags) as (file, with_format):
            return _run(gadgets, directory, pods, with_format, extras, file)

    extras = {**arrangement_flags(gadgets[0]), **(packet_flags() if packets else {})}
    for gadget in gadgets:
        extras |= {key: hint for key, hint in parameter_flags(gadget).items() if key not in extras}
    function = run_functions if functions else run_packets if packets else run
    command = make_command(function, name, page, extras)
    _refuse_collisions(gadgets, command)
    return command


def _run(
    gadgets: tuple[Gadget, ...],
    directory: Path | None,
    pods: tuple[str, ...],
    flags: RunFlags,
    extras: dict[str, object],
    stdout: TextIO | None = None,
) -> int:
    from kubectl_gadget.cli.run import run

    given = parameter_values(extras)
    if given.get("descendants") and given.get("pid") is None:
        raise UsageError("--descendants needs a process", "--pid N --descendants")
    options = run_options(tuple(_run_of(gadget, given, directory) for gadget in gadgets), pods, flags)
    if gadgets[0].kind in TABLES:
        options = arranged(options, extras)
    if not flags.output.no_names:
        options = with_peer_names(options)
    return run(options, stdout or sys.stdout, sys.stderr)


def _run_of(gadget: Gadget, given: Mapping[str, object], directory: Path | None) -> GadgetRun:
    """The gadget with the values of its parameters, and with the columns that these fill."""
    chosen = {item.name: given[item.name] for item in gadget.parameters if item.name in given}
    filled = {name for item in gadget.parameters if chosen.get(item.name) is True for name in item.shows}
    columns = tuple(replace(item, show="default") if item.name in filled else item for item in gadget.columns)
    return GadgetRun(replace(gadget, columns=columns) if filled else gadget, chosen, directory)


def built_in_command(name: str) -> GadgetCommand:
    """The command of a gadget of the catalogue."""
    gadget = gadgets.load_gadget(name)
    return gadget_command(gadget, gadget.command[-1])


def _refuse_collisions(gadgets: Sequence[Gadget], command: GadgetCommand) -> None:
    seen: set[str] = {"--help", "-h"}
    for flag in command.flag_texts:
        for spelling in [*flag.spellings, *flag.negations]:
            if spelling in seen:
                raise UsageError(
                    f"{'+'.join(gadget.name for gadget in gadgets)} has a parameter whose flag {spelling} is taken",
                    "rename the parameter in the gadget's YAML",
                )
            seen.add(spelling)


# `run FILE.bpf.c|DIR|FILE.yaml`: the user's own gadget


class OwnGadgets(GadgetGroup):
    """A group that takes the path of a gadget as a sub-command, so that everything after it is read as for a built-in
    gadget. The flags are known only after the C has been compiled, so even `run DIR --help` compiles."""

    def find(self, name: str, path: str = "") -> GadgetCommand:
        """Compiles the gadget at the path `name` and makes its command."""
        from kubectl_gadget.rows.members import check_readable

        gadget, directory = gadgets.load_own(Path(name))
        check_readable(gadget, name)
        return gadget_command(gadget, name, directory)


def run_group() -> GadgetGroup:
    """`kubectl gadget run`."""
    parts = GroupParts(partial(page_of, "run"), {}, noun="gadget", kind=OwnGadgets)
    return make_group({"flags": RunFlags}, "run", parts)


# `list`: every gadget with its description

Format = Annotated[Text, format_flag(LISTS)]


Words = Annotated[tuple[str, ...], typer.Argument(metavar="GROUP")]


def list_gadgets(
    words: Words, scope: ScopeFlags, cluster: ClusterFlags, output: Format = None, no_headers: NoHeaders = None
) -> int:
    entries = _entries_of(words)
    if output == "json":
        rows = [
            {
                "name": entry.name,
                "command": f"kubectl gadget {' '.join(entry.command)}",
                "group": entry.group,
                "description": entry.summary,
            }
            for entry in entries
        ]
        print_json(rows)
    elif output == "name":
        sys.stdout.writelines(entry.name + "\n" for entry in entries)
    else:
        table = [(entry.group, " ".join(entry.command), entry.summary) for entry in entries]
        print_table(("GROUP", "GADGET", "DESCRIPTION"), table, not no_headers)
    return 0


def _entries_of(words: Sequence[str]) -> "list[GadgetSummary]":
    """Return the gadgets of these groups and verbs, or all. Raises UsageError."""
    groups = {name: None for entry in index() for name in (entry.group, entry.command[0])}
    for word in words:
        if word not in groups:
            raise UsageError(f"{word!r} is not a group of gadgets{meant(word, groups)}", ", ".join(groups))
    return [entry for entry in index() if not words or {entry.group, entry.command[0]} & {*words}]


# `options`: the flags that all gadgets share, as `kubectl options` has kubectl's

TARGETS = """A gadget follows the pods that are named, or the pods of a workload or service as they come and go:
xwing  deploy/web  ds/agent  sts/db  rs/web-5d4f  job/import  cronjob/backup  svc/web  pod/xwing"""


def options(scope: ScopeFlags, cluster: ClusterFlags) -> int:
    sys.stdout.write("These flags work with every gadget, and the connection's with every command.\n\n")
    sys.stdout.write(f"{TARGETS}\n\n")
    command = options_command()
    sys.stdout.write(flag_tables(command.text, preset_texts(command, ())))
    return 0


def all_flags() -> list[Flag]:
    """The flags that gadgets share, as settings know them."""
    return [*options_command().flags]


def options_command() -> GadgetCommand:
    """A command with these flags, which is never run."""
    return make_command(_only_flags, "options", partial(page_of, "options"))


def _only_flags(flags: RunFlags) -> int:
    raise NotImplementedError("it only lends its flags")
