"""typer's commands and groups with kubectl's manners: its argument syntax, plain help, sub-commands made on demand.

The trap: everything here runs for `--help` and completion too, so it must stay cheap.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from kubectl_gadget.cli.flags import arguments
from kubectl_gadget.cli.flags.arguments import Parsed, Spelling, UnknownFlag
from kubectl_gadget.cli.framework.binding import command_words, flattened, level_key
from kubectl_gadget.cli.help import help_pages
from kubectl_gadget.cli.settings import defaults
from kubectl_gadget.cli.values import nearest
from kubectl_gadget.errors import UsageError

_ELSEWHERE = {
    **{"getevents": "observe", "tracingpolicy": "policy", "tp": "policy"},
    **{"add": "install", "apply": "install", "delete": "uninstall", "remove": "uninstall"},
}
"""What commands of other tools are called here."""


@dataclass(frozen=True)
class Entry:
    """One sub-command, known by name and summary until it is asked for."""

    summary: str
    section: str
    load: Callable[[], Any]
    """makes the command"""
    hidden: bool = False


class GadgetCommand(TyperCommand):
    """One command. `page` is what its help says beyond its flags."""

    page: help_pages.Page = help_pages.Page()
    passes_on: bool = False
    """all that follows the first word is for another program"""
    read: Callable[[Any], dict[str, Any]]
    """the values of a context's flags, by name. Raises UsageError when one cannot be read"""
    flags: Callable[[], list[defaults.Flag]]
    """as settings know them"""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads `args` as kubectl would. Raises UsageError that names this command's help."""
        parsed = _parse(self, ctx, args, subcommands=self.passes_on)
        takes_words = [item for item in self.params if item.param_type_name == "argument"]
        if parsed.positionals and not takes_words:
            raise _with_hint(UsageError(f"{ctx.command_path} takes no argument {parsed.positionals[0]!r}"), ctx)
        if ctx.parent is not None and (wrong := ctx.parent.command.misplaced(ctx, parsed.positionals)) is not None:
            raise wrong
        ctx.params = {item.name: None for item in self.params}
        for item in takes_words:
            ctx.params[item.name] = parsed.positionals
        ctx.args = []
        return []

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; its exit code."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise _with_hint(error, ctx) from error.__cause__

    def check(self, ctx: Any) -> None:
        """Raises UsageError when a flag's value cannot be read."""
        try:
            self.read(ctx)
        except UsageError as error:
            raise _with_hint(error, ctx) from error.__cause__

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Plain text, examples first."""
        formatter.write(help_pages.command_help(self, ctx.command_path, preset_texts(self, command_words(ctx))))


class GadgetGroup(TyperGroup):
    """A group whose sub-commands are made when asked for."""

    page: help_pages.Page = help_pages.Page()
    fixed: Mapping[str, Entry] = {}
    """sub-commands that are always there"""
    noun: str = "command"
    """what a sub-command is called in messages"""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All sub-commands, in the order of help."""
        return self.fixed

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of help."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Makes the sub-command; None when there is none of that name."""
        entry = self.fixed.get(cmd_name) or self.entries.get(cmd_name)
        return entry.load() if entry else None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the flags before the sub-command; the rest is kept for it."""
        parsed = _parse(self, ctx, args, subcommands=True)
        ctx.params = {item.name: None for item in self.params}
        ctx.args = parsed.positionals
        return ctx.args  # type: ignore[no-any-return]

    def invoke(self, ctx: Any) -> Any:
        """Runs the sub-command, or shows the help when none was named, as kubectl does."""
        if not ctx.args:
            typer.echo(self.get_help(ctx))
            return 0
        with self.below(ctx) as below:
            return below.command.invoke(below)

    @contextmanager
    def below(self, ctx: Any) -> Iterator[Any]:
        """The context of the sub-command that the first of `ctx.args` names. Raises UsageError when there is none, or
        its command line is wrong."""
        name, *rest = ctx.args
        try:
            command = self.get_command(ctx, name)
            if command is None:
                raise self.unknown(name, ctx.command_path)
        except UsageError as error:
            raise _with_hint(error, ctx) from error.__cause__
        with command.make_context(name, rest, parent=ctx) as below:
            yield below

    def unknown(self, name: str, path: str) -> UsageError:
        """The error for a sub-command of `path` that does not exist, with the nearest names."""
        meant = _ELSEWHERE.get(name)
        near = meant if meant in self.entries else nearest(name, self.entries)
        return UsageError(f"unknown {self.noun} {name!r}", near and f"{path} {near}")

    def joined(self, current: str) -> list[tuple[str, str]]:
        """For completion: names and summaries of sub-commands that can be joined to those in the unfinished word."""
        return []

    def misplaced(self, below: Any, words: Sequence[str]) -> UsageError | None:
        """The error where one of the `words` of a sub-command is the name of another one, and not of a pod; None where
        names of sub-commands and of pods are not mixed up. A pod of such a name is pod/NAME."""
        return None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Plain text, examples first, sub-commands by section."""
        formatter.write(help_pages.group_help(self, ctx.command_path))


class OneAtATime(GadgetGroup):
    """A group whose sub-commands are about pods, and are not run together."""

    def misplaced(self, below: Any, words: Sequence[str]) -> UsageError | None:
        """`advise seccomp capabilities`: the second one is not a pod."""
        word = next((word for word in words if word in self.entries), None)
        if word is None:
            return None
        return named_like_command(self.noun, word, f"{below.parent.command_path} {word}, in a run of its own")


def named_like_command(noun: str, word: str, meant: str) -> UsageError:
    """For a word that stands where pods do."""
    article = "an" if noun[0] in "aeiou" else "a"
    return UsageError(
        f"{word!r} is {article} {noun}, and here is the place of pods", f"{meant}; a pod of this name is pod/{word}"
    )


def make_command(
    function: Callable[..., int], name: str, page: help_pages.Page, extras: Mapping[str, Any] | None = None
) -> Any:
    """A command from a function that takes flag sets, and `extras` (see binding.flattened)."""
    app = _app()
    bound = flattened(function, extras)
    app.command(name, cls=GadgetCommand)(bound.run)
    command: Any = typer.main.get_command(app)
    command.read, command.flags = bound.read, bound.flags
    command.page = page
    command.passes_on = page.passes_on
    return command


@dataclass(frozen=True)
class GroupParts:
    """What a group is made of, beside its flags."""

    page: help_pages.Page
    entries: Mapping[str, Entry]
    noun: str = "command"
    kind: type[GadgetGroup] = GadgetGroup


def make_group(function: Callable[..., int], name: str, parts: GroupParts) -> Any:
    """A group whose own flags are those of `function`, which is never called."""
    app = _app()
    app.callback(cls=parts.kind)(flattened(function).run)
    group: Any = typer.main.get_command(app)
    group.name = name
    group.page, group.noun, group.fixed = parts.page, parts.noun, parts.entries
    return group


def lazily(target: str, name: str) -> Callable[[], Any]:
    """Makes the command `name` from "module:function:PAGE" when called; a fourth part names its further flags."""
    module_name, function_name, page_name, *extras_name = target.split(":")

    def load() -> Any:
        module = import_module(module_name)
        extras = getattr(module, extras_name[0]) if extras_name else None
        return make_command(getattr(module, function_name), name, getattr(module, page_name), extras)

    return load


def preset_texts(command: GadgetCommand, words: tuple[str, ...]) -> dict[str, str]:
    """By flag, the default that the environment or the configuration file sets, for help."""
    found = defaults.effective(words, command.flags)
    return {name: f"(default: {setting.text}, from {setting.source})" for name, setting in found.items()}


def spellings(command: Any) -> dict[str, Spelling]:
    """Every spelling of every flag of a command, with -h and --help."""
    result = {"--help": Spelling("help", True), "-h": Spelling("help", True)}
    for item in command.params:
        if item.param_type_name == "option":
            result |= {text: Spelling(item.name, True if item.is_flag else None) for text in item.opts}
            result |= {text: Spelling(item.name, False) for text in item.secondary_opts}
    return result


def _app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _parse(command: Any, ctx: Any, args: list[str], subcommands: bool = False) -> Parsed:
    try:
        parsed = arguments.parse(spellings(command), args, subcommands=subcommands)
    except UsageError as error:
        if _asks_for_help(args):
            typer.echo(command.get_help(ctx))
            raise typer.Exit() from None
        if isinstance(error, UnknownFlag):
            from kubectl_gadget.cli.help.other_tools import instead_of_flag

            goes_on = any(item.name == "timeout" for item in command.params)
            error.remedy = instead_of_flag(command.name, error.flag, goes_on) or error.remedy
        raise _with_hint(error, ctx) from None
    if any(item.name == "help" and item.value for item in parsed.given):
        typer.echo(command.get_help(ctx))
        raise typer.Exit()
    if parsed.pending:
        raise _with_hint(UsageError(f"flag {parsed.pending} needs a value"), ctx)
    ctx.meta[level_key(ctx)] = tuple(parsed.given)
    return parsed


def _asks_for_help(args: list[str]) -> bool:
    return "--help" in args or "-h" in args


def _with_hint(error: UsageError, ctx: Any) -> UsageError:
    if error.remedy is None:
        error.remedy = f"{ctx.command_path} --help"
    return error
