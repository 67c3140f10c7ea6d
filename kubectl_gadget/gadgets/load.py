"""Loads the results of the build: the index for lists and completion, a gadget, an object.

    BUILT/gadgets/index.json              one line per gadget
    BUILT/gadgets/NAME.json               events.schema.Gadget
    BUILT/objects/ARCHITECTURE/NAME.bpf.o

BUILT is kubectl_gadget/built, or the folder `built` of a user's own gadget. The index is read each time TAB
is pressed, so this module imports nothing that takes time.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kubectl_gadget.errors import GadgetError, UsageError

if TYPE_CHECKING:
    from kubectl_gadget.gadgets.schema import Gadget


BUILT = Path(__file__).parent.parent / "built"
ARCHITECTURES = ("x86_64", "aarch64")
"""As `uname -m` names them."""


class GadgetSummary(NamedTuple):
    """A gadget as shown in lists."""

    name: str
    command: tuple[str, ...]
    group: str
    summary: str


def load_index(built: Path = BUILT) -> list[GadgetSummary]:
    """All built-in gadgets, by group. Raises GadgetError when none was built."""
    entries = _read_json(built / "gadgets" / "index.json")
    return [
        GadgetSummary(entry["name"], tuple(entry["command"]), entry["group"], entry["summary"]) for entry in entries
    ]


def load_gadget(name: str, built: Path = BUILT) -> "Gadget":
    """The built-in gadget `name`. Raises UsageError, which suggests similar names, when there is none."""
    names = [entry.name for entry in load_index(built)]
    if name not in names:
        from difflib import get_close_matches

        nearest = get_close_matches(name, names, 3) or names
        raise UsageError(f"there is no gadget {name!r}", " or ".join(nearest))
    return read_gadget(built / "gadgets" / f"{name}.json")


def read_gadget(path: Path) -> "Gadget":
    """The gadget that the build wrote to `path`. Raises GadgetError when another version built it, or it is damaged."""
    from kubectl_gadget.gadgets.schema import Gadget, check

    try:
        gadget = Gadget.from_json(_read_json(path))
    except TypeError as error:
        raise GadgetError(f"{path} was built by another version, or is damaged: {error}", "build it again") from None
    check(gadget, str(path))
    return gadget


def object_bytes(name: str, architecture: str, directory: Path | None = None) -> bytes:
    """The BPF object of a gadget for `architecture` (`x86_64`, `aarch64`).

    `directory` is where a user's own gadget was built; None: built in. Raises GadgetError when there is no object.
    """
    objects = (directory or BUILT) / "objects"
    path = objects / architecture / f"{name}.bpf.o"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        there = sorted(path.parent.name for path in objects.glob(f"*/{name}.bpf.o"))
        raise GadgetError(
            f"gadget {name} was not built for {architecture}, only for {', '.join(there) or 'nothing'}",
            "build it where clang is installed: python -m kubectl_gadget.gadgets.build",
        ) from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise GadgetError(
            f"the gadgets were not built: there is no {path}", "make setup, or python -m kubectl_gadget.gadgets.build"
        ) from None
    except (RecursionError, ValueError) as error:
        raise GadgetError(f"{path} is not JSON: {error}", "build it again") from None
