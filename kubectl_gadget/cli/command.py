"""Commands and groups: functions that take flag sets become commands with kubectl's argument syntax and plain help.

    def status(scope: ScopeFlags, cluster: ClusterFlags, output: Annotated[str | None, …] = None) -> int: ...

typer makes an option from each parameter of a function, and a parameter cannot represent several options. So commands
are subclasses of its TyperCommand and TyperGroup that have none, and parse the words themselves (arguments.py). Values
are read here and not by typer, whose own readers import pydantic, which takes 90 ms at every start.
Everything here also runs for `--help` and completion, so it must be cheap.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Literal, TypeVar, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo

from kubectl_gadget.cli import arguments, pages, settings
from kubectl_gadget.cli.arguments import Given, Parsed, UnknownFlag
from kubectl_gadget.cli.flags import Flag, FlagSet, declared, passed_on, read_value, repeats
from kubectl_gadget.cli.help import ColumnText, CommandText, EntryText, ExampleText, FlagText, help_of, spellings
from kubectl_gadget.errors import UsageError
from kubectl_gadget.wording import nearest
from kubectl_gadget.yaml_files import own_data

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
    read: Callable[[typer.Context], dict[str, object]]
    """the function's arguments, from a parsed command line. Raises UsageError when a value cannot be read"""
    run: Callable[[typer.Context], int]
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
    flags = [*(Flag(name, hint) for name, hint in extras.items()), *_flags_in(None, names, hints)]

    def read(ctx: typer.Context) -> dict[str, object]:
        levels = levels_of(ctx)
        levels = (settings.presets(command_words(ctx), flags, levels), *levels)
        values = {name: _read(name, hints[name], levels, ctx.params) for name in names}
        if "extras" in parameters:
            found = {name: _flag_value(name, hint, levels) for name, hint in extras.items()}
            values["extras"] = {name: value for name, value in found.items() if value is not None}
        return values

    def run(ctx: typer.Context) -> int:
        settings.mention_ignored(command_words(ctx), flags, levels_of(ctx))
        return function(**read(ctx))

    arguments = {name: declared(hints[name]).metavar or "" for name in names if _is_argument(hints[name])}
    return Bound(flags, arguments, read, run, any(passed_on in get_args(hint) for hint in hints.values()))


def flags_of(hints: Hints) -> list[Flag]:
    """The flags of these sets."""
    return [*_flags_in(None, hints, hints)]


def collect(kind: Callable[..., Set], levels: tuple[Level, ...]) -> Set:
    """The flag set `kind` from all levels; the last value wins. Raises UsageError for a value that cannot be read.

    Of --namespace and --all-namespaces, the one at the later level wins, and at the same level the latter, as in
    kubectl.
    """
    hints = _hints(kind)
    values = {name: _read(name, hint, levels, {}) for name, hint in hints.items()}
    if values.get("namespace") is not None and values.get("all_namespaces"):
        last = [max(i for i, level in enumerate(levels) if _given(level, n)) for n in ("namespace", "all_namespaces")]
        values["all_namespaces" if last[0] > last[1] else "namespace"] = None
    found = kind(**values)
    if isinstance(found, FlagSet):
        found.remember_presets(item.name for level in levels for item in level if item.preset)
    return found


def levels_of(ctx: typer.Context) -> tuple[Level, ...]:
    """The flags given to a context and those above it, its own last."""
    above = levels_of(ctx.parent) if isinstance(ctx.parent, typer.Context) else ()
    return (*above, ctx.meta.get(_level_key(ctx), ()))


def own_level(ctx: typer.Context) -> Level:
    return levels_of(ctx)[-1]


def set_level(ctx: typer.Context, level: Iterable[Given]) -> None:
    ctx.meta[_level_key(ctx)] = tuple(level)


def _level_key(ctx: typer.Context) -> str:
    """The key under which a context keeps the flags of its level: click shares `meta` among all levels."""
    return f"kubectl_gadget.flags.{ctx.command_path}"


def command_words(ctx: typer.Context) -> tuple[str, ...]:
    """The names of a context's command and the groups above it, without the program's name: trace, open."""
    return (*command_words(ctx.parent), str(ctx.info_name)) if isinstance(ctx.parent, typer.Context) else ()


def _flags_in(kind: type | None, names: Iterable[str], hints: Hints) -> Iterator[Flag]:
    """All flags of these parameters or fields; `kind` is the set that the fields belong to."""
    for name in names:
        if isinstance(hint := hints[name], type) and is_dataclass(hint):
            inner = _hints(hint)
            yield from _flags_in(hint, inner, inner)
        elif not _is_argument(hint):
            yield Flag(name, hint, in_set=kind is not None and issubclass(kind, FlagSet))


def _is_argument(hint: object) -> bool:
    return any(isinstance(item, ArgumentInfo) for item in get_args(hint))


def _given(level: Level, name: str) -> bool:
    return any(item.name == name for item in level)


def _read(name: str, hint: object, levels: tuple[Level, ...], params: Mapping[str, list[str]]) -> object:
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


# Commands, and groups whose sub-commands are made on demand

_ELSEWHERE = {
    **{"getevents": "observe", "tracingpolicy": "policy", "tp": "policy"},
    **{"add": "install", "apply": "install", "delete": "uninstall", "remove": "uninstall"},
}
"""Our names for commands of other tools."""


@dataclass(frozen=True)
class Entry:
    """One sub-command; only its name is loaded until it is needed."""

    section: str
    load: "Callable[[], Command]"
    """makes the command"""
    page: Callable[[], pages.Page]
    """has its summary, as `listed`"""

    @property
    def summary(self) -> str:
        return self.page().listed


class Described:
    """The texts of a command or a group in help and completion. `page` is its help apart from its flags."""

    page: Callable[[], pages.Page] = pages.Page
    flags: Sequence[Flag] = ()
    """in the order of help"""
    arguments: Mapping[str, str] = {}
    """the metavars of its arguments, by name"""

    @property
    def flag_texts(self) -> list[FlagText]:
        """Its flags, without their choices."""
        return [*map(_flag_text, self.flags)]

    def described(self, entries: Sequence[EntryText] | None) -> CommandText:
        """All of it, without the choices of flags; None: it is not a group."""
        page = self.page()
        return CommandText(
            *(page.summary, page.usage, page.named_only, page.silent, page.more),
            examples=[ExampleText(item.command, item.description) for item in page.examples],
            columns=[
                ColumnText(item.name, item.title, item.field, item.show, item.description) for item in page.columns
            ],
            flags=self.flag_texts,
            takes=[*self.arguments.values()],
            entries=entries,
        )

    def choices(self, name: str) -> list[str]:
        """The values of a flag that completion offers."""
        (flag,) = (flag for flag in self.flags if flag.name == name)
        return flag.option.autocompletion("") if flag.option.autocompletion else []


class GadgetCommand(Described, TyperCommand):
    """One command."""

    bound: Bound
    """the function, with its flags"""
    is_group = False

    @property
    def text(self) -> CommandText:
        return self.described(None)

    def parse(self, ctx: typer.Context, words: list[str]) -> None:
        """Parses `words` as kubectl does. Raises UsageError, which names this command's help."""
        parsed = _parse(self, ctx, words, subcommands=self.bound.passes_on)
        takes_words = [*self.arguments]
        if parsed.positionals and not takes_words:
            raise _with_hint(self._unexpected(parsed.positionals[0], ctx.command_path), ctx)
        if ctx.parent is not None and isinstance(group := ctx.parent.command, GadgetGroup):
            wrong = group.misplaced(ctx, parsed.positionals)
            if wrong is not None:
                raise wrong
        ctx.params = dict.fromkeys(takes_words, parsed.positionals)
        if len(takes_words) > 1:  # the words before and those after `--`
            at = len(parsed.positionals) if parsed.dashes_at is None else parsed.dashes_at
            ctx.params = dict(zip(takes_words, (parsed.positionals[:at], parsed.positionals[at:]), strict=True))
        ctx.args = []

    def _unexpected(self, word: str, path: str) -> UsageError:
        """The error for an argument of a command that takes none. It may be a file without its flag."""
        takes_files = any("--filename" in flag.spellings for flag in self.flags)
        return UsageError(f"{path} takes no argument {word!r}", f"{path} -f {quote(word)}" if takes_files else None)

    def execute(self, ctx: typer.Context) -> int:
        """Runs the command; returns its exit code."""
        try:
            return self.bound.run(ctx)
        except UsageError as error:
            raise _with_hint(error, ctx) from error.__cause__

    def check(self, ctx: typer.Context) -> None:
        """Raises UsageError if a flag's value cannot be read."""
        try:
            self.bound.read(ctx)
        except UsageError as error:
            raise _with_hint(error, ctx) from error.__cause__

    def help_page(self, ctx: typer.Context) -> str:
        return help_of(self.text, ctx.command_path, preset_texts(self, command_words(ctx)))


class GadgetGroup(Described, TyperGroup):
    """A group whose sub-commands are made on demand."""

    fixed: Mapping[str, Entry] = {}
    """sub-commands that always exist"""
    noun: str = "command"
    """the word for a sub-command in messages"""
    takes_files: bool = False
    """file names may come before a sub-command"""
    is_group = True

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All sub-commands, in the order of help."""
        return self.fixed

    @property
    def text(self) -> CommandText:
        return self.described([EntryText(entry.section, name, entry.summary) for name, entry in self.entries.items()])

    def find(self, name: str, path: str = "") -> "Command | None":
        """Makes the sub-command; None if there is none with this name. `path`, for messages, is the command line above
        it."""
        entry = self.fixed.get(name) or self.entries.get(name)
        return entry.load() if entry else None

    def parse(self, ctx: typer.Context, words: list[str]) -> None:
        """Parses the flags before the sub-command; the rest is kept for it."""
        ctx.args = _parse(self, ctx, words, subcommands=True).positionals

    def execute(self, ctx: typer.Context) -> int:
        """Runs the sub-command, or shows the help if none was named, as kubectl does."""
        if not ctx.args:
            sys.stdout.write(self.help_page(ctx))
            return 0
        with self.below(ctx) as (command, below):
            return command.execute(below)

    @contextmanager
    def below(self, ctx: typer.Context) -> "Iterator[tuple[Command, typer.Context]]":
        """The sub-command named by the first of `ctx.args`, and its context. Raises UsageError if there is none, or if
        its command line is wrong."""
        name, *rest = ctx.args
        try:
            command = self.find(name, ctx.command_path)
            if command is None:
                raise self.unknown(name, ctx.command_path)
        except UsageError as error:
            raise _with_hint(error, ctx) from error.__cause__
        below = open_context(command, name, rest, ctx)
        with below:
            yield command, below

    def unknown(self, name: str, path: str) -> UsageError:
        """The error for a sub-command of `path` that does not exist, with the nearest names."""
        meant = _ELSEWHERE.get(name)
        near = meant if meant in self.entries else nearest(name, self.entries)
        return UsageError(f"unknown {self.noun} {name!r}", near and f"{path} {near}")

    def after_files(self, words: Sequence[str]) -> list[str]:
        """The words from the name of the sub-command on; a group that takes files skips these."""
        return list(words)

    def joined(self, current: str) -> list[tuple[str, str]]:
        """Return, for completion, names and summaries of sub-commands that can be joined to the ones in the unfinished
        word."""
        return []

    def misplaced(self, below: typer.Context, words: Sequence[str]) -> UsageError | None:
        """The error if one of the `words` of a sub-command is the name of another sub-command and not of a pod; None if
        the two cannot be confused. A pod with such a name is written as pod/NAME."""
        return None

    def help_page(self, ctx: typer.Context) -> str:
        """Help as plain text, sub-commands by section."""
        return help_of(self.text, ctx.command_path)


class OneAtATime(GadgetGroup):
    """A group whose sub-commands take pods and cannot be run together."""

    def misplaced(self, below: typer.Context, words: Sequence[str]) -> UsageError | None:
        """`advise seccomp capabilities`: the second one is not a pod."""
        word = next((word for word in words if word in self.entries), None)
        if word is None:
            return None
        return named_like_command(self.noun, word, f"{path_above(below)} {word}, in a run of its own")


def named_like_command(noun: str, word: str, meant: str) -> UsageError:
    """The error for a name of a command in place of a pod."""
    article = "an" if noun[0] in "aeiou" else "a"
    return UsageError(f"{word!r} is {article} {noun}, not a pod", f"{meant}; a pod of this name is pod/{word}")


def path_above(below: typer.Context) -> str:
    """The command line above a sub-command's context: `kubectl gadget trace`."""
    return below.parent.command_path if below.parent else ""


Command = GadgetCommand | GadgetGroup


def open_context(command: Command, name: str, words: list[str], parent: typer.Context | None = None) -> typer.Context:
    """Return the context of a command or group, called `name`, after it has parsed `words`. Raises UsageError."""
    ctx = typer.Context(command, parent, name)
    command.parse(ctx, words)
    return ctx


def make_command(
    function: Callable[..., int], name: str, page: Callable[[], pages.Page], extras: Hints | None = None
) -> GadgetCommand:
    """Makes a command from a function that takes flag sets and `extras` (see bind)."""
    bound = bind(function, extras)
    command = GadgetCommand(name)
    command.bound, command.page = bound, page
    command.flags, command.arguments = bound.flags, bound.arguments
    return command


@dataclass(frozen=True)
class GroupParts:
    """The parts of a group, apart from its flags."""

    page: Callable[[], pages.Page]
    entries: Mapping[str, Entry]
    noun: str = "command"
    kind: type[GadgetGroup] = GadgetGroup


def make_group(flags: Hints, name: str, parts: GroupParts) -> GadgetGroup:
    """Makes a group with these flags and flag sets of its own."""
    group = parts.kind(name=name)
    group.page, group.noun, group.fixed, group.flags = parts.page, parts.noun, parts.entries, flags_of(flags)
    return group


def entry_of(words: str, section: str, target: str, entries: Callable[[], Mapping[str, Entry]] | None = None) -> Entry:
    """The entry of the command with these `words` after `kubectl gadget`, made by "module:function"; a third part
    names further flags. A function `…_group` makes a whole group, from these `entries` if they are given."""
    module_name, function_name, *extras = target.split(":")
    page = partial(pages.page_of, words)

    def load() -> Command:
        module = import_module(module_name)
        function = getattr(module, function_name)
        if function_name.endswith("_group"):
            group: GadgetGroup = function(*([entries()] if entries else []))
            return group
        return make_command(function, words.rpartition(" ")[2], page, *(getattr(module, name) for name in extras))

    return Entry(section, load, page)


def preset_texts(command: GadgetCommand, words: tuple[str, ...]) -> dict[str, str]:
    """The defaults set by the environment or the configuration file, by flag, for help."""
    found = settings.effective(words, lambda: command.flags)
    return {name: f"(default: {setting.text}, from {setting.source})" for name, setting in found.items()}


def _flag_text(flag: Flag) -> FlagText:
    option = flag.option
    names = [text.partition("/") for text in (str(option.default), *(option.param_decls or ()))]
    spellings, negations = [name for name, _, _ in names], [negation for _, _, negation in names if negation]
    panel = option.rich_help_panel or "Flags"
    return FlagText(flag.name, spellings, negations, option.metavar, option.help or "", panel)


def _parse(command: Command, ctx: typer.Context, args: list[str], subcommands: bool = False) -> Parsed:
    try:
        parsed = arguments.parse(spellings(command.flag_texts), args, subcommands=subcommands)
    except UsageError as error:
        if "--help" in args or "-h" in args:
            sys.stdout.write(command.help_page(ctx))
            raise typer.Exit() from None
        if isinstance(error, UnknownFlag):
            goes_on = any(flag.name == "timeout" for flag in command.flags)
            error.remedy = instead_of_flag(ctx.command_path, error.flag, goes_on) or error.remedy
        raise _with_hint(error, ctx) from None
    if any(item.name == "help" and item.value for item in parsed.given):
        sys.stdout.write(command.help_page(ctx))
        raise typer.Exit()
    if parsed.pending:
        metavar = next(flag.metavar for flag in command.flag_texts if parsed.pending in flag.spellings)
        raise UsageError(f"flag {parsed.pending} needs a value", f"{parsed.pending} {metavar}")
    set_level(ctx, parsed.given)
    return parsed


def _with_hint(error: UsageError, ctx: typer.Context) -> UsageError:
    if error.remedy is None:
        error.remedy = f"{ctx.command_path} --help"
    return error


# Equivalents for commands and flags of other tools: bcc, kubectl, strace, tcpdump. They are used only for names that do
# not exist here, so equivalents.yaml must contain none of our names; a test checks this.

WATCH = ("-w", "--watch", "-f", "--follow")
"""Flags that make other commands run on; gadget commands do so anyway."""


@cache
def equivalents(kind: Literal["commands", "flags"]) -> Mapping[str, str]:
    """Our equivalents, by name."""
    found: Mapping[str, str] = own_data(Path(__file__).with_name("equivalents.yaml"))[kind]
    return found


def instead_of_flag(path: str, flag: str, goes_on: bool) -> str | None:
    """The advice for an unknown flag of the command `path`; None if no other tool has it. `goes_on`: the command runs
    until it is stopped."""
    flags = equivalents("flags")
    if found := flags.get(f"{path.rpartition(' ')[2]} {flag}") or flags.get(flag):
        return found.replace("PATH", path)
    if flag not in WATCH:
        return None
    if goes_on:
        return f"without {flag}: it goes on until Ctrl-C, or for --timeout 30s"
    return "kubectl gadget trace open, which goes on until Ctrl-C" if path == "kubectl gadget" else None
