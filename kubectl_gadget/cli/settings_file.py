"""The configuration file: YAML with `defaults` for flags that commands share, and `commands` with flags of each.

    defaults:
      output: wide
    commands:
      trace open:
        columns: [pod, comm, path]

Values are kept as written, since a flag's own reader reads them; so `yes`, which is true in YAML, is rejected
as on the command line.
"""

from pathlib import Path

from kubectl_gadget.cli.command import GadgetCommand, GadgetGroup
from kubectl_gadget.cli.root import root
from kubectl_gadget.cli.settings import Setting, Settings, shared_flags
from kubectl_gadget.cli.stored import PROGRAM
from kubectl_gadget.errors import UsageError
from kubectl_gadget.wording import did_you_mean, meant
from kubectl_gadget.yaml_files import SchemaField, read_yaml
from kubectl_gadget.yaml_reader import Part, read_mapping

_SETTINGS = SchemaField(
    "settings",
    "object",
    fields=(SchemaField("defaults", "map of values"), SchemaField("commands", "map of map of values")),
)


def read_file(into: Settings) -> None:
    """Adds the settings of the file at `into.path`. Raises UsageError with line and column."""
    whole = read_yaml(Path(into.path), lambda text: read_mapping(into.path, text, _SETTINGS))
    into.exists = True
    if shared := whole.part("defaults"):
        into.defaults = _flags(shared)
        _check_shared(into)
    if commands := whole.part("commands"):
        for name, part in whole.named_parts("commands").items():
            command, place = " ".join(name.split()), commands.at_key(name).position
            find_command(command, place, load=False)
            if command in into.commands:
                raise UsageError(f"{place}: {command!r} is defined twice")
            into.commands[command] = _flags(part)
            into.command_places[command] = place


def find_command(name: str, place: str, *, load: bool = True) -> GadgetCommand | None:
    """The command `name`; load=False only checks that it exists, apart from a gadget's own flags. Raises UsageError,
    whose message begins with `place`."""
    words = name.split()
    group: GadgetGroup = root()
    path = PROGRAM
    if words[:1] in (["demo"], ["config"]):
        raise UsageError(f"{place}: {words[0]} has no settings" + "; it uses the command's" * (words[0] == "demo"))
    while words:
        word, *words = words
        if word.startswith("-"):
            raise UsageError(f"{place}: {name!r} is not the name of a command", "write flags below it, without dashes")
        if path == f"{PROGRAM} run":
            own = group.find(" ".join([word, *words])) if load else None
            return own if isinstance(own, GadgetCommand) else None
        for part in word.split("+"):
            if part not in group.entries:
                error = group.unknown(part, path)
                near = f"; did you mean {error.remedy.removeprefix(f'{PROGRAM} ')}?" if error.remedy else ""
                raise UsageError(f"{place}: {error}{near}")
        if not words and not load and path != PROGRAM:
            return None
        command, path = group.find(word), f"{path} {word}"
        if isinstance(command, GadgetGroup):
            group = command
        elif words:
            known = [path.removeprefix(f"{PROGRAM} ")]
            raise UsageError(f"{place}: {name!r} is not the name of a command{did_you_mean(name, known)}")
        else:
            return command
    first = next(iter(group.entries), "GADGET")
    raise UsageError(f"{place}: {name!r} is a group of commands; name each command, such as `{name} {first}`")


def _check_shared(settings: Settings) -> None:
    known = {flag.key for flag in shared_flags().values()}
    for key, setting in settings.defaults.items():
        if key not in known:
            near = meant(key, known) or "; write flags of one command below commands"
            raise UsageError(
                f"{setting.place}: --{key} is not a flag that defaults can set{near}", "kubectl gadget config view"
            )


def _flags(part: Part) -> dict[str, Setting]:
    found = {}
    for name in part.names():
        texts = part.texts(name)
        if not texts:
            part.fail(name, "is an empty list")
        key = name.removeprefix("--")
        found[key] = Setting(key, texts, part.at_key(name).position)
    return found
