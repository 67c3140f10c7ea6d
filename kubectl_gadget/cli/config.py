"""`kubectl gadget config view`, `path` and `check`: the defaults of flags, and where each was set.

These commands must work with an invalid file, so no setting is applied to them.
"""

import re
import sys
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import typer

from kubectl_gadget.cli import settings, settings_places
from kubectl_gadget.cli.command import GadgetCommand
from kubectl_gadget.cli.flags import ClusterFlags, Flag, NoHeaders, ScopeFlags, Text, format_flag
from kubectl_gadget.cli.printing import print_json, print_table, say
from kubectl_gadget.cli.settings import Setting, Settings
from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.registry import SETTINGS
from kubectl_gadget.wording import count

_BUILT_IN = "flag default"
_DEFAULT = re.compile(r"\(default: ([^)]*)\)")
Format = Annotated[Text, format_flag(SETTINGS)]
Words = Annotated[tuple[str, ...], typer.Argument(metavar="COMMAND"), tuple]


class ShownDefault(NamedTuple):
    """One default."""

    command: str
    """"" for flags that commands share"""
    flag: Flag
    setting: Setting | None
    """None: the built-in default"""

    @property
    def value(self) -> str:
        """The value as it would be typed; "" if the flag has no default."""
        if self.setting is not None:
            return self.setting.text
        if found := _DEFAULT.search(self.flag.option.help or ""):
            return found[1]
        return str(self.flag.option.show_default or ("false" if self.flag.is_switch else ""))

    @property
    def source(self) -> str:
        return _BUILT_IN if self.setting is None else self.setting.source


def view(
    scope: ScopeFlags, cluster: ClusterFlags, words: Words = (), output: Format = None, no_headers: NoHeaders = None
) -> int:
    found = settings.load()
    rows = list(_rows_of(found, " ".join(words)) if words else _rows(found))
    if output in ("json", "yaml"):
        document = {"file": found.path, "exists": found.exists, "settings": [_as_json(row) for row in rows]}
        print_json(document) if output == "json" else sys.stdout.write(_yaml(document))
        return 0
    with_command = any(row.command for row in rows)
    titles = ("COMMAND",) * with_command + ("FLAG", "DEFAULT", "FROM")
    cells = [(row.command or "-",) * with_command + (f"--{row.flag.key}", row.value or "-", row.source) for row in rows]
    print_table(titles, cells, not no_headers)
    sys.stdout.flush()
    if not found.path:
        say(f"no file is read: {settings_places.FILE} is off")
    elif not found.exists:
        say(f"there is no file {found.path}")
    _say_ignored()
    return 0


def check(scope: ScopeFlags, cluster: ClusterFlags) -> int:
    found = settings.load()
    problems = []
    for command in found.commands:
        try:
            settings.check_entry(found, command, _command(command, found.command_places[command]).flags)
        except UsageError as error:
            problems.append(str(error))
    for problem in problems:
        say(problem)
    ignored = _say_ignored()
    if problems:
        raise UsageError(f"{found.path} is wrong", "kubectl gadget COMMAND --help shows a command's flags")
    number = len(found.defaults) + sum(map(len, found.commands.values()))
    if found.exists:
        say(f"{found.path}: {count(number, 'setting')}, no errors")
    else:
        say(f"there is no file {found.path}" if found.path else f"no file is read: {settings_places.FILE} is off")
    return 2 if ignored else 0


def path(scope: ScopeFlags, cluster: ClusterFlags) -> int:
    found = settings_places.file_path()
    if not found:
        raise UsageError(f"no file is read: {settings_places.FILE} is off")
    sys.stdout.write(f"{found}\n")
    return 0


def _rows(found: Settings) -> Iterator[ShownDefault]:
    for one in settings.shared_flags().values():
        yield ShownDefault("", one, found.environment.get(one.key) or found.defaults.get(one.key))
    for command, entry in found.commands.items():
        flags = _command(command, found.command_places[command]).flags
        settings.check_entry(found, command, flags)
        for one in flags:
            if (own := entry.get(one.key)) is not None:
                # The environment may override the file.
                yield ShownDefault(command, one, found.find(command, one) or own)


def _rows_of(found: Settings, command: str) -> Iterator[ShownDefault]:
    flags = _command(command, "config view").flags
    settings.check_entry(found, command, flags)
    for one in flags:
        if one.typed_only is None:
            yield ShownDefault("", one, found.find(command, one))


def _command(name: str, place: str) -> GadgetCommand:
    from kubectl_gadget.cli.settings_file import find_command

    command = find_command(name, place)
    assert command is not None  # load is on
    return command


def _say_ignored() -> bool:
    from kubectl_gadget.cli.gadgets import all_flags

    lines = settings.ignored_variables({flag.key: flag for flag in all_flags()})
    for line in lines:
        say(line)
    return bool(lines)


def _as_json(row: ShownDefault) -> dict[str, object]:
    place = row.setting.place if row.setting else ""
    return {
        "command": row.command or None,
        "flag": row.flag.key,
        "value": row.value or None,
        "source": "built-in" if not place else "file" if ":" in place else "environment",
        "from": row.source,
    }


def _yaml(document: object) -> str:
    import yaml

    return yaml.safe_dump(document, sort_keys=False)
