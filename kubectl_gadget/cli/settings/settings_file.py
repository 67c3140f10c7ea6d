"""The configuration file: YAML with `defaults` for flags that commands share, and `commands` with flags of each.

    defaults:
      output: wide
    commands:
      trace open:
        columns: [pod, comm, path]

The trap: values are kept as written, since a flag's own reader reads them; so `yes`, which is true in YAML, is rejected
as on the command line.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from kubectl_gadget.cli.framework.command import GadgetCommand, GadgetGroup
from kubectl_gadget.cli.settings.defaults import Setting, Settings, shared_flags
from kubectl_gadget.cli.values.word_lists import nearest
from kubectl_gadget.errors import UsageError
from kubectl_gadget.yaml_files import read_yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SECTIONS = ("defaults", "commands")


def read_file(into: Settings) -> None:
    """Adds the settings of the file at `into.path`. Raises UsageError with line and column."""
    root = read_yaml(Path(into.path), lambda text: yaml.compose(text, Loader=_LOADER))
    into.exists = True
    if root is None:
        return
    for key, key_place, node in _members(into.path, root, "the file"):
        if key == "defaults":
            into.defaults = {setting.key: setting for setting in _flags(into.path, node, key)}
            _check_shared(into)
        elif key == "commands":
            for name, place, members in _members(into.path, node, key):
                command = " ".join(name.split())
                check_command(command, place)
                if command in into.commands:
                    raise UsageError(f"{place}: {command!r} is defined twice")
                into.commands[command] = {setting.key: setting for setting in _flags(into.path, members, command)}
                into.command_places[command] = place
        else:
            raise UsageError(f"{key_place}: unknown key {key!r}{_meant(key, _SECTIONS)}")


def check_command(name: str, place: str) -> None:
    """Raises UsageError if there is no command `name`. A gadget's own flags are not checked."""
    find_command(name, place, load=False)


def find_command(name: str, place: str, *, load: bool = True) -> GadgetCommand | None:
    """The command `name`; with load=False only checks that it exists. Raises UsageError, whose message begins with
    `place`."""
    from kubectl_gadget.cli.root import PROGRAM, root

    words = name.split()
    group: GadgetGroup = root()
    path = PROGRAM
    if words[:1] in (["demo"], ["config"]):
        raise UsageError(
            f"{place}: {words[0]} has no settings" + "; it uses those of the command" * (words[0] == "demo")
        )
    while words:
        word, *words = words
        if word.startswith("-"):
            raise UsageError(f"{place}: {name!r} is not the name of a command", "write flags below it, without dashes")
        if path == f"{PROGRAM} run":
            own = group.get_command(None, " ".join([word, *words])) if load else None
            return own if isinstance(own, GadgetCommand) else None
        for part in word.split("+"):
            if part not in group.entries:
                error = group.unknown(part, path)
                meant = f"; did you mean {error.remedy.removeprefix(f'{PROGRAM} ')}?" if error.remedy else ""
                raise UsageError(f"{place}: {error}{meant}")
        if not words and not load and path != PROGRAM:
            return None
        command, path = group.get_command(None, word), f"{path} {word}"
        if isinstance(command, GadgetGroup):
            group = command
        elif words:
            known = [path.removeprefix(f"{PROGRAM} ")]
            raise UsageError(f"{place}: {name!r} is not the name of a command{_meant(name, known)}")
        else:
            return command
    first = next(iter(group.entries), "GADGET")
    raise UsageError(f"{place}: {name!r} is a group of commands; name each command, such as `{name} {first}`")


def _check_shared(settings: Settings) -> None:
    known = {flag.key for flag in shared_flags().values()}
    for key, setting in settings.defaults.items():
        if key not in known:
            near = nearest(key, known)
            meant = f"; did you mean {near}?" if near else "; write flags of one command below commands"
            raise UsageError(
                f"{setting.place}: --{key} is not a flag that defaults can set{meant}", "kubectl gadget config view"
            )


def _flags(file: str, node: yaml.Node, of: str) -> Iterator[Setting]:
    for key, place, value in _members(file, node, of):
        yield Setting(key.removeprefix("--"), tuple(_texts(file, value, key)), place)


def _texts(file: str, node: yaml.Node, key: str) -> Iterator[str]:
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    for item in items:
        is_null = item.tag == "tag:yaml.org,2002:null"
        if not isinstance(item, yaml.ScalarNode) or is_null:
            kind = "has no value" if is_null else "must be a string, a number, true, false, or a list of these"
            raise UsageError(f"{_place(file, item)}: {key} {kind}")
        yield item.value
    if not items:
        raise UsageError(f"{_place(file, node)}: {key} has an empty list")


def _members(file: str, node: yaml.Node, of: str) -> Iterator[tuple[str, str, yaml.Node]]:
    """Key, place of the key, and value. Raises UsageError if the node is not a mapping, or has a key twice."""
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{_place(file, node)}: {of} must be a mapping: lines of `key: value`")
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{_place(file, key)}: a key must be a string")
        if key.value in seen:
            raise UsageError(f"{_place(file, key)}: {key.value!r} is defined twice")
        seen.add(key.value)
        yield key.value, _place(file, key), value


def _place(file: str, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _meant(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else f"; known are {', '.join(known)}"
