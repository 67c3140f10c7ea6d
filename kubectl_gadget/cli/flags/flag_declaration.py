"""Declares flags: typer's declaration, the readers of the value, and whether settings may set it.

    max_events: Annotated[int | None, flag(SHOW, "--max-events N", "Stop after …"), amounts.count, TypedOnly.END] = None

typer takes every value as text. Readers run only when the command runs, so that `--help` works even with an invalid
value. The trap: an error names the value as written and its place, so a reader's message must continue a sentence.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_args, get_origin, get_type_hints

import typer

from kubectl_gadget.cli.values import amounts, word_lists
from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.registry import Formats

if TYPE_CHECKING:
    from typer.models import OptionInfo

WHERE = "Which containers"
SHOW = "Output"
ENGINE = "More"
CLUSTER = "Connection to the cluster, with kubectl's flags"


class TypedOnly(StrEnum):
    """Why a flag can be set only on the command line, and not by settings."""

    RIGHTS = "it decides about rights or enforcement"
    SELECTION = "it selects what is traced or shown"
    ACTION = "it selects what is run or done"
    FILES = "it names files that are read or written"
    END = "it decides when a run ends or with which exit code"
    CONNECTION = "the kubeconfig holds it (kubectl config set-context)"


_TYPED_ONLY_PANELS = {WHERE: TypedOnly.SELECTION, CLUSTER: TypedOnly.CONNECTION}
_OF_FILES = ("FILE", "DIR", "FOLDER")
"""Metavars of files and directories end with one of these."""


Switch = bool | None
Text = str | None
Texts = tuple[str, ...] | None
Names = Annotated[Texts, word_lists.commas]
Seconds = Annotated[float | None, amounts.duration_above_zero]
Count = Annotated[int | None, amounts.count]
"""Types of flags, some with their reader; None: the flag was not given."""


def flag(
    panel: str,
    shown: str,
    help: str,
    choices: Sequence[str] | Callable[[], Sequence[str]] = (),
    default: str = "",
    reader: Callable[[str], str] | None = None,
) -> "OptionInfo":
    """Declares a flag, `shown` as in help: "--selector, -l LABELS". Without a name for its value it is a switch, which
    --no-… turns off. `choices`, or a function that returns them, are the candidates for completion, and without another
    reader the only values; `default` is what `config view` shows if the help does not mention it."""
    names, _, metavar = shown.replace(", ", ",").partition(" ")

    def offered(incomplete: str) -> list[str]:
        known = choices() if callable(choices) else choices
        return [choice for choice in known if choice.startswith(incomplete)]

    option: OptionInfo = typer.Option(
        *(names.split(",") if metavar else map(_with_negative, names.split(","))),
        metavar=metavar or None,
        help=help,
        rich_help_panel=panel,
        autocompletion=offered if choices else None,
        show_default=default or False,
        parser=reader or (None if callable(choices) or not choices else word_lists.one_of(*choices)),
    )
    return option


def _with_negative(switch: str) -> str:
    """`--host/--no-host` for --host; -h, --no-sort and pairs are as they are."""
    is_positive = switch.startswith("--") and not switch.startswith("--no-") and "/" not in switch
    return f"{switch}/--no-{switch[2:]}" if is_positive else switch


def format_flag(formats: Formats, help: str = "", default: str = "") -> "OptionInfo":
    """Declares -o for commands with these formats."""
    reader = word_lists.format_of(formats)
    return flag(SHOW, "--output, -o FORMAT", help or formats.words, formats.choices, default, reader)


class Flag(NamedTuple):
    """One flag of a command."""

    name: str
    """the name of the parameter or field"""
    hint: object
    """its Annotated type"""
    in_set: bool = False
    """whether it is a field of a FlagSet"""

    @property
    def option(self) -> "OptionInfo":
        return declared(self.hint)

    @property
    def spellings(self) -> list[str]:
        """`--host`, `--no-host`; the first long one is its name in settings."""
        return [
            text for part in (str(self.option.default), *(self.option.param_decls or ())) for text in part.split("/")
        ]

    @property
    def key(self) -> str:
        """Its name in settings: the long spelling without the dashes."""
        return next(text for text in self.spellings if text.startswith("--"))[2:]

    @property
    def is_switch(self) -> bool:
        return self.option.metavar is None

    @property
    def repeats(self) -> bool:
        """Whether it may be given more than once."""
        return repeats(self.hint)

    @property
    def typed_only(self) -> str | None:
        """Why it can be set only on the command line; None: settings can set it."""
        declared = [item for item in get_args(self.hint) if isinstance(item, TypedOnly)]
        names_files = TypedOnly.FILES if (self.option.metavar or "").endswith(_OF_FILES) else None
        return declared[0] if declared else _TYPED_ONLY_PANELS.get(str(self.option.rich_help_panel), names_files)


class FlagSet:
    """Base class of flag sets. A value from the environment or the configuration file is a default: if it does not fit
    the command, it is ignored and not an error."""

    __slots__ = ("_presets",)

    def remember_presets(self, names: Iterable[str]) -> None:
        """Remembers which fields were not typed."""
        object.__setattr__(self, "_presets", frozenset(names))

    def typed(self) -> dict[str, object]:
        """The flags that were given on the command line, by field."""
        presets: frozenset[str] = getattr(self, "_presets", frozenset())
        return {name: value for name, value in vars(self).items() if value is not None and name not in presets}


def read_value(hint: object, value: object, spelling: str) -> object:
    """Applies the readers of `hint` to a value that was given as `spelling`: without any, a list becomes a tuple, and a
    text must not be blank. Raises UsageError."""
    readers = [item for item in get_args(hint)[1:] if callable(item)]
    place = [spelling] * bool(spelling)
    if not readers and (usual := declared(hint).parser) is not None:
        readers = [usual]
    if not readers and not isinstance(value, bool):
        readers = [tuple if isinstance(value, list) else word_lists.some_text]
    for reader in readers:
        try:
            value = reader(value)
        except ValueError as error:
            what = " ".join(place + [repr(value)] * isinstance(value, str))
            raise UsageError(": ".join([what] * bool(what) + [str(error)])) from None
        except UsageError as error:
            raise UsageError(": ".join([*place, str(error)]), error.remedy) from None
    return value


def passed_on(words: Sequence[str]) -> tuple[str, ...]:
    """The reader of an argument whose words after the first, flags included, are for another program."""
    return tuple(words)


def declared(hint: object) -> "OptionInfo":
    """typer's declaration of a flag or an argument."""
    found: OptionInfo = next(item for item in get_args(hint) if hasattr(item, "rich_help_panel"))
    return found


def repeats(hint: object) -> bool:
    """Whether a flag or an argument may be given more than once."""
    return any(get_origin(item) in (tuple, list) for item in (hint, *get_args(hint), *get_args(get_args(hint)[0])))


def spelling(kind: type, name: str) -> str:
    """The long spelling of the flag in field `name` of the set `kind`."""
    return Flag(name, get_type_hints(kind, include_extras=True)[name]).spellings[0]
