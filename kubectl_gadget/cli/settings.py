"""Defaults for flags, from the environment and from a file: docs/configuration.md.

    the command line > the environment > the file's entry for the command > the file's `defaults` > built-in defaults

This runs at every start. Without a file no YAML is imported; an invalid file is an error in each command that
does something, but not in help or completion.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_type_hints

from kubectl_gadget.cli.arguments import Given, Spelling, parse
from kubectl_gadget.cli.flags import ClusterFlags, EngineFlags, Flag, ImageFlags, OutputFlags, StartFlags, read_value
from kubectl_gadget.cli.printing import say
from kubectl_gadget.cli.settings_places import FILE, PREFIX, file_path, nothing_is_set
from kubectl_gadget.errors import UsageError
from kubectl_gadget.wording import meant

_NO_FLAGS = frozenset({"CONFIG", "DEBUG", "RUN", "HOST", "CLIENT", "PINS", "CONTAINED", "CI"})
"""Names after PREFIX in variables that do not set flags."""
_OF_OTHERS = ("TEST_", "SERVICE_", "PORT")
"""Prefixes of further such names: for our tests, and those that a kubelet sets for a service named kubectl-gadget."""

_SHARED = (
    *((OutputFlags, name) for name in ("output", "color", "no_names", "no_headers", "quiet", "verbose", "strict")),
    *((EngineFlags, name) for name in ("no_sort", "sort_wait", "ring_bytes", "map_entries", "buffer_bytes")),
    *((ImageFlags, name) for name in ("image", "image_mirror", "image_pull_secret", "image_pull_policy")),
    (StartFlags, "start_timeout"),
    (ClusterFlags, "agent_namespace"),
)
"""The flags that the environment and `defaults` can set, in the order of `config view`."""

_GIVES_WAY: Mapping[str, tuple[str, ...]] = {
    "quiet": ("verbose",),
    "verbose": ("quiet",),
    "no_sort": ("sort_wait",),
    "sort_wait": ("no_sort",),
    "image": ("image_mirror",),
    "wait": ("timeout",),
    "recordings": ("timeout",),
    "check": ("format",),
    "tree": ("output",),
    "with_map": ("output",),
    "map_every": ("output",),
}
"""The settings that contradict a typed flag, by that flag."""


@dataclass(frozen=True)
class Setting:
    """A default for one flag, and where it was set."""

    key: str
    texts: tuple[str, ...]
    place: str
    """the name of the environment variable, or FILE:LINE:COLUMN"""

    @property
    def text(self) -> str:
        return ",".join(self.texts)

    @property
    def source(self) -> str:
        """The source for people: `env NAME`, or FILE:LINE."""
        return self.place.rpartition(":")[0] if ":" in self.place else f"env {self.place}"


@dataclass
class Settings:
    """All settings, by the key of the flag."""

    path: str = ""
    """the path of the file, even if it does not exist; "" if it is turned off"""
    exists: bool = False
    environment: dict[str, Setting] = field(default_factory=dict)
    defaults: dict[str, Setting] = field(default_factory=dict)
    commands: dict[str, dict[str, Setting]] = field(default_factory=dict)
    command_places: dict[str, str] = field(default_factory=dict)
    """FILE:LINE:COLUMN of each command's name"""

    def find(self, command: str, flag: Flag) -> Setting | None:
        """The setting of this flag for the command, ignoring the command line."""
        is_shared = flag.in_set and flag.name in shared_flags()
        own = self.commands.get(command, {}).get(flag.key)
        if not is_shared or flag.typed_only:
            return None if flag.typed_only else own
        found = [self.environment.get(flag.key), own, self.defaults.get(flag.key)]
        for setting in found:
            if setting is not None and (setting is own or _fits(flag, setting)):
                return setting
        return None


def load() -> Settings:
    """Reads the environment and the file. Raises UsageError if the file, or a shared value, is invalid."""
    found = Settings(file_path(), environment=_environment())
    if found.path and (os.environ.get(FILE) or os.path.exists(found.path)):
        from kubectl_gadget.cli.settings_file import read_file

        read_file(found)
    by_key = {flag.key: flag for flag in shared_flags().values()}
    for setting in (*found.environment.values(), *found.defaults.values()):
        _read(by_key[setting.key], setting)
    return found


def shared_flags() -> dict[str, Flag]:
    """The flags that the environment and `defaults` can set, by parameter."""
    if not _shared:
        hints = {kind: get_type_hints(kind, include_extras=True) for kind in dict.fromkeys(kind for kind, _ in _SHARED)}
        _shared.update((name, Flag(name, hints[kind][name], in_set=True)) for kind, name in _SHARED)
    return _shared


_shared: dict[str, Flag] = {}


def variable(flag: Flag) -> str:
    """The environment variable for a flag: --image-pull-policy is KUBECTL_GADGET_IMAGE_PULL_POLICY."""
    return PREFIX + flag.key.upper().replace("-", "_")


def command_name(words: Sequence[str]) -> str:
    """The name of a command in the file. `demo` runs another command and uses that command's entry."""
    return " ".join(words[1:] if words[:1] == ("demo",) else words)


def presets(words: Sequence[str], flags: Sequence[Flag], levels: Sequence[Sequence[Given]]) -> tuple[Given, ...]:
    """The settings for a command, as flags that come before those on its command line. Raises UsageError."""
    if words[:1] == ("config",):
        return ()  # it must work with invalid settings
    settings, command = load(), command_name(words)
    check_entry(settings, command, flags)
    typed = {item.name: item for level in levels for item in level}
    gone = {*typed, *(name for item in typed for name in _GIVES_WAY.get(item, ()))}
    found: list[Given] = []
    for flag in flags:
        if flag.name not in gone and (setting := settings.find(command, flag)) is not None:
            found += _given(flag, setting)
    formats = {item.value for item in found if item.name == "output"}
    if formats - {"table", "wide"} or ("output" in typed and typed["output"].value != "table"):
        # Columns apply to tables: programs that read -o json get all members.
        found = [item for item in found if item.name != "columns"]
    return tuple(found)


def check_entry(settings: Settings, command: str, flags: Sequence[Flag]) -> None:
    """Raises UsageError for an error in the file's entry for this command."""
    by_key = {flag.key: flag for flag in flags}
    for key, setting in settings.commands.get(command, {}).items():
        if key not in by_key:
            near = meant(key, [flag.key for flag in flags if not flag.typed_only])
            raise UsageError(
                f"{setting.place}: {command} has no flag --{key}{near}", f"kubectl gadget {command} --help"
            )
        if why := by_key[key].typed_only:
            raise UsageError(f"{setting.place}: --{key} cannot be set here: {why}", "give it on the command line")
        _read(by_key[key], setting)


def mention_ignored(words: Sequence[str], flags: Sequence[Flag], levels: Sequence[Sequence[Given]]) -> None:
    """Reports environment variables that look like settings for this command but are not."""
    if words[:1] == ("config",) or any(item.name == "quiet" and item.value for level in levels for item in level):
        return
    for text in ignored_variables({flag.key: flag for flag in flags}):
        say(text)


def ignored_variables(flags: Mapping[str, Flag]) -> list[str]:
    """A line for each environment variable that looks like a setting but is not: misspelt, or for one of `flags` that
    cannot be set this way."""
    known = {variable(flag) for flag in shared_flags().values()}
    found = []
    for name in sorted(os.environ):
        rest = name.removeprefix(PREFIX)
        if rest == name or name in known or rest in _NO_FLAGS or rest.startswith(_OF_OTHERS):
            continue
        flag = flags.get(rest.lower().replace("_", "-"))
        if flag is not None and (why := flag.typed_only):
            found.append(f"{name} is not used: {why}, so only the command line sets --{flag.key}")
        elif flag is not None:
            where = "the configuration file sets it, below commands"
            found.append(f"{name} is not used: --{flag.key} belongs to the command; {where}")
        elif near := meant(name, known, most=1):
            found.append(f"{name} is not used{near}")
    return found


def effective(words: Sequence[str], read_flags: Callable[[], Sequence[Flag]]) -> dict[str, Setting]:
    """The settings of a command for help, by parameter, ignoring the command line. Empty if settings are invalid."""
    if nothing_is_set():
        return {}
    flags = read_flags()
    try:
        settings, command = load(), command_name(words)
        check_entry(settings, command, flags)
    except UsageError:
        return {}
    found = {flag.name: settings.find(command, flag) for flag in flags}
    return {name: setting for name, setting in found.items() if setting is not None}


def _environment() -> dict[str, Setting]:
    found = {}
    for flag in shared_flags().values():
        name = variable(flag)
        if text := os.environ.get(name):
            found[flag.key] = Setting(flag.key, (text,), name)
    return found


def _fits(flag: Flag, setting: Setting) -> bool:
    """True if a setting for all commands is valid for this command, which may take other values, such as formats."""
    try:
        _read(flag, setting)
    except UsageError:
        return False
    return True


def _read(flag: Flag, setting: Setting) -> object:
    """The setting's value as passed to the command. Raises UsageError."""
    found = [item.value for item in _given(flag, setting)]
    return read_value(flag.hint, found if flag.repeats else found[-1], f"{setting.place}: {flag.key}")


def _given(flag: Flag, setting: Setting) -> list[Given]:
    """The setting as if it had been typed. Raises UsageError."""
    place = f"{setting.place}: {flag.key}"
    if len(setting.texts) != 1 and not flag.repeats:
        raise UsageError(f"{place} takes one value, not a list")
    if not flag.is_switch:
        return [Given(flag.name, text, place, preset=True) for text in setting.texts]
    try:
        parsed = parse({"--switch": Spelling("", True)}, [f"--switch={setting.texts[0]}"])
    except UsageError:
        raise UsageError(f"{place} {setting.texts[0]!r}: must be true or false") from None
    return [Given(flag.name, parsed.given[0].value, place, preset=True)]
