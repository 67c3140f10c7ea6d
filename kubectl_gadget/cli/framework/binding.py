"""From a function that takes flag sets to a typer command, and from a command line back to flag sets.

    def status(cluster: ClusterFlags, output: Annotated[str | None, …] = None) -> int: ...

typer sees one option per field. Values are read here and not by typer, whose own readers import pydantic: 90 ms on
every start. The trap: readers run when the command does, so `--help` works beside a wrong value.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer
from typer.models import ArgumentInfo

from kubectl_gadget.cli.flags.arguments import Given
from kubectl_gadget.cli.flags.flag_sets import FlagSet
from kubectl_gadget.cli.flags.reading import read_value, repeats
from kubectl_gadget.cli.settings import defaults

Level = tuple[Given, ...]
"""The flags given at one level: after `kubectl gadget`, after `trace`, after `open`."""

Set = TypeVar("Set")


@dataclass(frozen=True)
class Bound:
    """What typer makes a command of."""

    run: Callable[..., int]
    """called with the parsed command line"""
    read: Callable[[typer.Context], dict[str, Any]]
    """reads that command line alone"""
    flags: Callable[[], list[defaults.Flag]]
    """all flags"""


def flattened(function: Callable[..., int], extras: Mapping[str, Any] | None = None) -> Bound:
    """`function` with each flag set replaced by its fields, as typer reads it.

    `extras` are further flags, by name; their values go to the function's parameter `extras`, those not given left out.
    """
    extras = extras or {}
    hints = get_type_hints(function, include_extras=True)
    names = [name for name in inspect.signature(function).parameters if name != "extras"]

    def flags() -> list[defaults.Flag]:
        return [*_flags(None, names, hints), *(defaults.Flag(name, hint) for name, hint in extras.items())]

    def read(ctx: typer.Context) -> dict[str, Any]:
        levels = levels_of(ctx)
        levels = (defaults.presets(command_words(ctx), flags(), levels), *levels)
        values = {name: _value(name, hints[name], levels, ctx.params) for name in names}
        if extras:
            found = {name: _flag_value(name, hint, levels) for name, hint in extras.items()}
            values["extras"] = {name: value for name, value in found.items() if value is not None}
        return values

    def run(ctx: typer.Context, **_: Any) -> int:
        defaults.mention_ignored(command_words(ctx), flags(), levels_of(ctx))
        return function(**read(ctx))

    run.__name__ = function.__name__
    options = [_option(name, hint) for name, hint in extras.items()]
    run = _with_options(run, options + [option for name in names for option in _options(name, hints[name])])
    return Bound(run, read, flags)


def _with_options(run: Callable[..., int], options: list[inspect.Parameter]) -> Callable[..., int]:
    """`run(ctx, **values)` with the signature that typer is to see."""
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    run.__signature__ = inspect.Signature([context, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in [context, *options]}
    return run


def collect(kind: type[Set], levels: tuple[Level, ...]) -> Set:
    """The flag set `kind` as given on all levels; the later wins. Raises UsageError for a value that cannot be read.

    Of --namespace and --all-namespaces the later level wins, and on one level the latter, as with kubectl.
    """
    hints = get_type_hints(kind, include_extras=True)
    values = {name: _value(name, hint, levels, {}) for name, hint in hints.items()}
    if values.get("namespace") is not None and values.get("all_namespaces"):
        last = [max(i for i, level in enumerate(levels) if _given(level, n)) for n in ("namespace", "all_namespaces")]
        values["all_namespaces" if last[0] > last[1] else "namespace"] = None
    found = kind(**values)
    if isinstance(found, FlagSet):
        found.remember_presets(item.name for level in levels for item in level if item.preset)
    return found


def _flags(kind: type | None, names: Iterable[str], hints: Mapping[str, Any]) -> Iterator[defaults.Flag]:
    """All flags of these parameters or fields; `kind` is the set that they are fields of."""
    for name in names:
        if isinstance(hint := hints[name], type) and is_dataclass(hint):
            inner = get_type_hints(hint, include_extras=True)
            yield from _flags(hint, inner, inner)
        elif not any(isinstance(item, ArgumentInfo) for item in get_args(hint)):
            yield defaults.Flag(name, hint, in_set=kind is not None and issubclass(kind, FlagSet))


def levels_of(ctx: Any) -> tuple[Level, ...]:
    """The flags that were given to a context and those above it, its own last."""
    above = levels_of(ctx.parent) if ctx.parent is not None else ()
    return (*above, ctx.meta.get(level_key(ctx), ()))


def level_key(ctx: Any) -> str:
    """Where a context keeps the flags of its level: click shares `meta` among all levels."""
    return f"kubectl_gadget.flags.{ctx.command_path}"


def command_words(ctx: Any) -> tuple[str, ...]:
    """The names of a context's command and of the groups above it, without the program's: trace, open."""
    return () if ctx.parent is None else (*command_words(ctx.parent), str(ctx.info_name))


def _given(level: Level, name: str) -> bool:
    return any(item.name == name for item in level)


def _value(name: str, hint: Any, levels: tuple[Level, ...], params: Mapping[str, Any]) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return collect(hint, levels)
    if any(isinstance(item, ArgumentInfo) for item in get_args(hint)):
        return read_value(hint, list(params.get(name) or ()), "")
    return _flag_value(name, hint, levels)


def _flag_value(name: str, hint: Any, levels: tuple[Level, ...]) -> Any:
    given = [item for level in levels for item in level if item.name == name]
    if not given:
        return None
    if repeats(hint):
        return read_value(hint, [item.value for item in given], given[-1].spelling)
    return read_value(hint, given[-1].value, given[-1].spelling)


def _options(name: str, hint: Any) -> Iterator[inspect.Parameter]:
    if is_dataclass(hint):
        for inner, inner_hint in get_type_hints(hint, include_extras=True).items():
            yield from _options(inner, inner_hint)
    else:
        yield _option(name, hint)


def _option(name: str, hint: Any) -> inspect.Parameter:
    """One option as typer sees it: a switch, a text, or a list of texts."""
    kind, declaration = get_args(hint)[:2]
    plain: Any = list[str] | None if repeats(hint) else bool | None if bool in (kind, *get_args(kind)) else str | None
    annotation = Annotated[plain, declaration]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
