"""Reads the flags and arguments of a function that takes flag sets, and converts a parsed command line to flag sets.

    def status(scope: ScopeFlags, cluster: ClusterFlags, output: Annotated[str | None, …] = None) -> int: ...

typer makes an option from each parameter of a function, and a parameter cannot represent several options. So it makes
none here, which would also take time at each start: our commands parse the words themselves (command.py). Values are
read here and not by typer, whose own readers import pydantic, which takes 90 ms at every start. The trap: readers run
only when the command runs, so `--help` works even with an invalid value.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar, get_args, get_type_hints

from typer.models import ArgumentInfo

from kubectl_gadget.cli.flags.arguments import Given
from kubectl_gadget.cli.flags.flag_declaration import Flag, FlagSet, declared, passed_on, read_value, repeats
from kubectl_gadget.cli.settings import defaults

if TYPE_CHECKING:
    from typer._click.core import Context  # typer names it nowhere else

Level = tuple[Given, ...]
"""The flags given at one level: after `kubectl gadget`, after `trace`, after `open`."""
Hints = Mapping[str, object]
"""Annotated types by parameter."""

Set = TypeVar("Set")


@dataclass(frozen=True)
class Bound:
    """A function with its flags, for GadgetCommand."""

    flags: Sequence[Flag]
    """all flags, in the order of help"""
    arguments: Mapping[str, str]
    """the metavars of its arguments, by name"""
    read: Callable[["Context"], dict[str, object]]
    """the function's arguments, from a parsed command line. Raises UsageError when a value cannot be read"""
    run: Callable[["Context"], int]
    """calls the function with these arguments; returns the exit code"""
    passes_on: bool
    """all words after the first are for another program"""


def bind(function: Callable[..., int], extras: Hints | None = None) -> Bound:
    """Finds the flags in the flag sets of `function`.

    `extras` are further flags, by name; their values are passed in the function's parameter `extras`, without those
    that were not given.
    """
    hints = get_type_hints(function, include_extras=True)
    extras = extras or {}
    parameters = inspect.signature(function).parameters
    names = [name for name in parameters if name != "extras"]
    flags = [*(Flag(name, hint) for name, hint in extras.items()), *_flags(None, names, hints)]

    def read(ctx: "Context") -> dict[str, object]:
        levels = levels_of(ctx)
        levels = (defaults.presets(command_words(ctx), flags, levels), *levels)
        values = {name: _value(name, hints[name], levels, ctx.params) for name in names}
        if "extras" in parameters:
            found = {name: _flag_value(name, hint, levels) for name, hint in extras.items()}
            values["extras"] = {name: value for name, value in found.items() if value is not None}
        return values

    def run(ctx: "Context") -> int:
        defaults.mention_ignored(command_words(ctx), flags, levels_of(ctx))
        return function(**read(ctx))

    arguments = {name: declared(hints[name]).metavar or "" for name in names if _is_argument(hints[name])}
    return Bound(flags, arguments, read, run, any(passed_on in get_args(hint) for hint in hints.values()))


def flags_of(hints: Hints) -> list[Flag]:
    """The flags of these sets."""
    return [*_flags(None, hints, hints)]


def collect(kind: Callable[..., Set], levels: tuple[Level, ...]) -> Set:
    """The flag set `kind` from all levels; the last value wins. Raises UsageError for a value that cannot be read.

    Of --namespace and --all-namespaces, the one at the later level wins, and at the same level the latter, as in
    kubectl.
    """
    hints = _hints(kind)
    values = {name: _value(name, hint, levels, {}) for name, hint in hints.items()}
    if values.get("namespace") is not None and values.get("all_namespaces"):
        last = [max(i for i, level in enumerate(levels) if _given(level, n)) for n in ("namespace", "all_namespaces")]
        values["all_namespaces" if last[0] > last[1] else "namespace"] = None
    found = kind(**values)
    if isinstance(found, FlagSet):
        found.remember_presets(item.name for level in levels for item in level if item.preset)
    return found


def levels_of(ctx: "Context") -> tuple[Level, ...]:
    """The flags given to a context and those above it, its own last."""
    above = levels_of(ctx.parent) if ctx.parent is not None else ()
    return (*above, ctx.meta.get(_level_key(ctx), ()))


def own_level(ctx: "Context") -> Level:
    return levels_of(ctx)[-1]


def set_level(ctx: "Context", level: Iterable[Given]) -> None:
    ctx.meta[_level_key(ctx)] = tuple(level)


def _level_key(ctx: "Context") -> str:
    """The key under which a context keeps the flags of its level: click shares `meta` among all levels."""
    return f"kubectl_gadget.flags.{ctx.command_path}"


def command_words(ctx: "Context") -> tuple[str, ...]:
    """The names of a context's command and the groups above it, without the program's name: trace, open."""
    return () if ctx.parent is None else (*command_words(ctx.parent), str(ctx.info_name))


def _flags(kind: type | None, names: Iterable[str], hints: Hints) -> Iterator[Flag]:
    """All flags of these parameters or fields; `kind` is the set that the fields belong to."""
    for name in names:
        if isinstance(hint := hints[name], type) and is_dataclass(hint):
            inner = _hints(hint)
            yield from _flags(hint, inner, inner)
        elif not _is_argument(hint):
            yield Flag(name, hint, in_set=kind is not None and issubclass(kind, FlagSet))


def _is_argument(hint: object) -> bool:
    return any(isinstance(item, ArgumentInfo) for item in get_args(hint))


def _given(level: Level, name: str) -> bool:
    return any(item.name == name for item in level)


def _value(name: str, hint: object, levels: tuple[Level, ...], params: Mapping[str, list[str]]) -> object:
    if isinstance(hint, type) and is_dataclass(hint):
        return collect(hint, levels)
    if _is_argument(hint):
        return read_value(hint, list(params.get(name) or ()), "")
    return _flag_value(name, hint, levels)


def _flag_value(name: str, hint: object, levels: tuple[Level, ...]) -> object:
    given = [item for level in levels for item in level if item.name == name]
    if not given:
        return None
    if repeats(hint):
        return read_value(hint, [item.value for item in given], given[-1].spelling)
    return read_value(hint, given[-1].value, given[-1].spelling)


@cache
def _hints(kind: Callable[..., object]) -> Hints:
    """The fields of a flag set, which several groups and commands have."""
    return get_type_hints(kind, include_extras=True)
