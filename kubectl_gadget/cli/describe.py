"""`python -m kubectl_gadget.cli.describe`: stores the text of every command for help and completion (help/stored.py).

Run it after the gadgets are built. The commands below `replay` and `demo` are the root's again, and `run` makes
commands of any file, so these are not stored.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from kubectl_gadget.cli.command import Command, GadgetGroup
from kubectl_gadget.cli.help import CommandText
from kubectl_gadget.cli.root import root
from kubectl_gadget.cli.stored import FOLDER, NAME, is_current, title

_LEFT_OUT = ("replay", "demo")


def commands(group: GadgetGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    """All commands that are stored, by their words."""
    yield path, group
    for name in group.entries:
        below = group.find(name)
        if name not in _LEFT_OUT and isinstance(below, GadgetGroup):
            yield from commands(below, (*path, name))
        elif name not in _LEFT_OUT and below is not None:
            yield (*path, name), below


def text_of(command: Command) -> CommandText:
    """The text of a command, with the choices of its flags."""
    flags = [flag._replace(choices=command.choices(flag.name)) for flag in command.text.flags]
    return command.text._replace(flags=flags)


def store(folder: Path = FOLDER) -> None:
    """Writes the file anew, and removes all others from its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {title(path): text_of(command) for path, command in commands(root())}
    shared = _shared(found.values())
    lines = ["[" + ", ".join(shared) + "]"]
    for name, text in found.items():
        flags = [shared.get(json.dumps(flag), flag) for flag in text.flags]
        lines.append(name + "\t" + json.dumps(text._asdict() | {"flags": flags}))
    for name in os.listdir(folder):
        if name != NAME:
            os.unlink(folder / name)
    (folder / NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shared(texts: Iterable[CommandText]) -> dict[str, int]:
    """The JSON of each flag that several commands have, with its place."""
    counts = Counter(json.dumps(flag) for text in texts for flag in text.flags)
    return {flag: place for place, flag in enumerate(flag for flag, count in counts.items() if count > 1)}


def store_if_changed() -> None:
    """Does nothing when no module has changed."""
    if not is_current():
        store()


if __name__ == "__main__":
    store_if_changed()
