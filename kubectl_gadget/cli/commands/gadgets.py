"""`kubectl gadget trace open` and its like: one command per gadget of the catalogue, made from its description.

The trap: a gadget's own flags must not collide with the shared ones; gadget_command refuses that, and a test tries
every built-in gadget.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from kubectl_gadget.cli import values
from kubectl_gadget.cli.flags.arrangement_flags import arranged, arrangement_flags
from kubectl_gadget.cli.flags.flag_sets import flag
from kubectl_gadget.cli.flags.run_options import RunFlags, run_options
from kubectl_gadget.cli.framework.command import (
    Entry,
    GadgetGroup,
    GroupParts,
    make_command,
    make_group,
    named_like_command,
)
from kubectl_gadget.cli.help.gadget_index import index
from kubectl_gadget.cli.help.help_pages import Page
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import TABLES, Example, Gadget, Parameter
from kubectl_gadget.session.options import GadgetRun

_MOST_EXAMPLES = 3
"""in help; the page of docs/ has all"""

FunctionsAndPods = Annotated[tuple[str, ...], typer.Argument(metavar="POD"), values.functions_and_pods]
Pods = Annotated[tuple[str, ...], typer.Argument(metavar="POD"), values.pod_names]


def verb_group(verb: str, summary: str) -> Any:
    """`kubectl gadget trace`, with one sub-command per gadget."""
    entries = {
        entry.command[-1]: Entry(entry.summary, entry.group.capitalize(), gadget_loader(entry.name))
        for entry in index()
        if entry.command[0] == verb
    }
    page = Page(
        summary,
        usage="GADGET [POD|KIND/NAME...] [flags]",
        more=f"kubectl gadget {verb} GADGET --help explains a gadget.",
    )
    return make_group(_flags, verb, GroupParts(page, entries, noun="gadget", kind=VerbGroup))


class VerbGroup(GadgetGroup):
    """The gadgets of one verb, alone or several at once: `trace exec+open`."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Makes the command of a gadget, or of those that + joins; None when one of them does not exist."""
        names = cmd_name.split("+")
        if len(names) == 1:
            return super().get_command(ctx, cmd_name)
        from kubectl_gadget.catalogue import load_gadget

        known = {entry.command[-1]: entry.name for entry in index() if entry.command[0] == self.name}
        for name in names:
            if name not in known:
                raise self.unknown(name, ctx.command_path)
        return several_command([load_gadget(known[name]) for name in dict.fromkeys(names)], cmd_name)

    def joined(self, current: str) -> list[tuple[str, str]]:
        """`exec+op`: the streams behind the last +."""
        from kubectl_gadget.catalogue import load_gadget

        done, plus, _ = current.rpartition("+")
        if not plus:
            return []
        known = [entry for entry in index() if entry.command[0] == self.name]
        others = [entry for entry in known if entry.command[-1] not in done.split("+")]
        streams = [entry for entry in others if load_gadget(entry.name).kind == "stream"]
        return [(f"{done}+{entry.command[-1]}", entry.summary) for entry in streams]

    def misplaced(self, below: Any, words: Sequence[str]) -> UsageError | None:
        """`trace tcp udp` was meant to be `trace tcp+udp`."""
        from kubectl_gadget.catalogue import load_gadget

        known = {entry.command[-1]: entry.name for entry in index() if entry.command[0] == self.name}
        first = [name for name in below.info_name.split("+") if name in known]
        others = [word for word in words if word in known]
        if not others:
            return None
        path, all_names = below.parent.command_path, list(dict.fromkeys([*first, *others]))
        if all(load_gadget(known[name]).kind == "stream" for name in all_names):
            return named_like_command("gadget", others[0], f"{path} {'+'.join(all_names)}")
        return named_like_command("gadget", others[0], f"{path} {others[0]}, in a run of its own")


def gadget_command(gadget: Gadget, name: str, directory: Path | None = None) -> Any:
    """The command that runs `gadget`. Raises UsageError when one of its flags is taken already."""
    usage = "FILE:SYMBOL... [POD|KIND/NAME...]" if _of_functions(gadget) else "[POD|KIND/NAME...] [flags]"
    page = Page(gadget.summary + ".", gadget.examples[:_MOST_EXAMPLES], gadget.columns, usage=usage)
    return _command((gadget,), name, page, directory)


def several_command(gadgets: Sequence[Gadget], name: str) -> Any:
    """The command that runs several gadgets in one stream. A flag that several of them have is given to each."""
    if not_streams := [gadget for gadget in gadgets if gadget.kind != "stream"]:
        raise UsageError(f"{' '.join(not_streams[0].command)} is shown alone")
    summary = f"{', '.join(' '.join(gadget.command) for gadget in gadgets)}, in one stream in the order of time."
    examples = (Example(f"kubectl gadget {gadgets[0].command[0]} {name}", "with a column EVENT that says which it is"),)
    return _command(tuple(gadgets), name, Page(summary, examples, usage="[POD|KIND/NAME...] [flags]"), None)


def _command(gadgets: tuple[Gadget, ...], name: str, page: Page, directory: Path | None) -> Any:
    def run(pods: Pods, flags: RunFlags, extras: dict[str, Any] = {}) -> int:  # noqa: B006
        from kubectl_gadget.session.run import run as run_session

        given_values = {
            spelling.removeprefix(_PREFIX).replace("_", "-"): value
            for spelling, value in extras.items()
            if spelling.startswith(_PREFIX)
        }
        if given := _of_functions(gadgets[0]):
            targets = [word for word in pods if ":" in word]
            given_values[given.name] = ",".join([*targets, *filter(None, [given_values.get(given.name)])])
            if not given_values[given.name] and pods:
                raise values.function_without_file(pods[0])
            pods = tuple(word for word in pods if ":" not in word)
        if given_values.get("descendants") and given_values.get("pid") is None:
            raise UsageError("--descendants are those of a process", "--pid N --descendants")
        runs = tuple(_run_of(gadget, given_values, directory) for gadget in gadgets)
        options = run_options(runs, pods, flags)
        if gadgets[0].kind in TABLES:
            options = arranged(options, extras)
        return run_session(options, sys.stdout, sys.stderr)

    extras: dict[str, Any] = arrangement_flags(gadgets[0])
    for gadget in gadgets:
        title = f"Flags of {' '.join(gadget.command)}"
        for item in gadget.parameters:
            extras.setdefault(_PREFIX + item.name.replace("-", "_"), _parameter_flag(item, gadget, title))
    if _of_functions(gadgets[0]):
        run.__annotations__["pods"] = FunctionsAndPods
    command = make_command(run, name, page, extras)
    _refuse_collisions(gadgets, command)
    return command


def _run_of(gadget: Gadget, given: Mapping[str, Any], directory: Path | None) -> GadgetRun:
    """The gadget with its parameters' values, and with the columns that these fill."""
    chosen = {item.name: given[item.name] for item in gadget.parameters if item.name in given}
    filled = {name for item in gadget.parameters if chosen.get(item.name) is True for name in item.shows}
    columns = tuple(replace(item, show="default") if item.name in filled else item for item in gadget.columns)
    return GadgetRun(replace(gadget, columns=columns) if filled else gadget, chosen, directory)


_PREFIX = "parameter_"


def _of_functions(gadget: Gadget) -> Parameter | None:
    """The parameter that says which functions are followed."""
    return next((item for item in gadget.parameters if item.type == "functions"), None)


def _flags(flags: RunFlags) -> int:
    raise NotImplementedError("a group only lends its flags")


def gadget_loader(name: str) -> Callable[[], Any]:
    """What makes the command of the gadget `name` when it is asked for."""

    def load() -> Any:
        from kubectl_gadget.catalogue import load_gadget

        gadget = load_gadget(name)
        return gadget_command(gadget, gadget.command[-1])

    return load


def _parameter_flag(parameter: Parameter, gadget: Gadget, panel: str) -> Any:
    help = parameter.description
    default = parameter.default
    if default not in (None, False, ""):
        shown = values.duration_text(int(default), parameter.unit) if parameter.unit else default
        help += f" (default: {shown})"
    if parameter.type == "bool":
        return Annotated[
            bool | None, flag(panel, f"--{parameter.name}/--no-{parameter.name}", help=help), lambda value: value
        ]
    if parameter.type == "syscalls":
        return Annotated[str | None, flag(panel, f"--{parameter.name}", metavar="LIST", help=help), values.syscalls]
    if parameter.type == "functions":
        return Annotated[str | None, flag(panel, f"--{parameter.name}", metavar="LIST", help=help), values.functions]
    if parameter.type == "address":
        return Annotated[str | None, flag(panel, f"--{parameter.name}", metavar="IP", help=help), values.ip]
    if parameter.type == "pcap":
        return Annotated[str | None, flag(panel, f"--{parameter.name}", metavar="EXPRESSION", help=help), values.pcap]
    if parameter.type == "paths":
        return Annotated[str | None, flag(panel, f"--{parameter.name}", metavar="PATHS", help=help), values.paths]
    metavar = {"int": "N", "duration": "TIME"}.get(parameter.type, "TEXT")
    place = gadget.globals.get(parameter.variable)
    if parameter.words:
        return Annotated[
            str | None,
            flag(panel, f"--{parameter.name}", metavar="WORDS", help=help, choices=("all", *parameter.words)),
            values.words_of(parameter.words),
        ]
    if parameter.choices:
        reader: Any = values.one_of(*parameter.choices)
        return Annotated[
            str | None, flag(panel, f"--{parameter.name}", metavar="WORD", help=help, choices=parameter.choices), reader
        ]
    choices: Sequence[str] | Callable[[], Sequence[str]] = ()
    words = [choice.when[1] for choice in gadget.programs if choice.when and choice.when[0] == parameter.name]
    if words:
        metavar, choices = "NAMES", ("all", *words)
        reader = values.words_of(words)
    elif parameter.names:
        metavar, choices = "NAME", partial(values.names_of, parameter.names)
        reader = values.number_of(parameter.names)
    elif parameter.type == "duration":
        reader = values.duration_in(parameter.unit, place.size if place else 4)
    elif parameter.type == "int":
        reader = values.integer_of(place.size, signed=place.signed) if place else values.integer_of(8)
    else:
        reader = values.text_of(place.size if place else 256)
    return Annotated[
        str | None, flag(panel, f"--{parameter.name}", metavar=metavar, help=help, choices=choices), reader
    ]


def _refuse_collisions(gadgets: Sequence[Gadget], command: Any) -> None:
    seen: set[str] = {"--help", "-h"}
    for item in command.params:
        for spelling in [*item.opts, *item.secondary_opts]:
            if spelling in seen and item.param_type_name == "option":
                raise UsageError(
                    f"{'+'.join(gadget.name for gadget in gadgets)} has a parameter whose flag {spelling} is taken",
                    "name the parameter otherwise in the gadget's YAML",
                )
            seen.add(spelling)
