"""Pages: what help shows of a command apart from its flags; and the index of the built-in gadgets.

The pages of gadgets are made of their descriptions; all others are in pages.yaml, which a run does not read. Rarely
needed flags are only named in help (`NAMED_ONLY`) and explained by `kubectl gadget options`; otherwise no gadget's
help would fit.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from kubectl_gadget import gadgets
from kubectl_gadget.cli.flags import CLUSTER, ENGINE, WHERE
from kubectl_gadget.errors import UsageError
from kubectl_gadget.yaml_files import Example, own_data

if TYPE_CHECKING:
    from kubectl_gadget.gadgets import GadgetSummary
    from kubectl_gadget.gadgets.schema import Column


NAMED_ONLY = (ENGINE, CLUSTER)
PANELS = {"where": WHERE, "cluster": CLUSTER}
"""Groups of flags as pages.yaml names them; others are written as they are shown."""


@dataclass(frozen=True)
class Page:
    """A command's help apart from its flags."""

    summary: str = ""
    examples: tuple[Example, ...] = ()
    columns: "tuple[Column, ...]" = ()
    usage: str = ""
    """the usage line after the command"""
    named_only: tuple[str, ...] = NAMED_ONLY
    """groups of flags that are named but not explained"""
    silent: tuple[str, ...] = ()
    """groups of flags that are accepted but not mentioned"""
    more: str = ""
    """a last paragraph"""
    listed: str = ""
    """the summary in the list of commands"""


class _Written(TypedDict, total=False):
    """A page in pages.yaml; examples are descriptions by command."""

    summary: str
    listed: str
    examples: dict[str, str]
    usage: str
    more: str
    named_only: list[str]
    silent: list[str]


@cache
def written() -> dict[str, _Written]:
    """All pages of pages.yaml, by the words of their commands."""
    found: dict[str, _Written] = own_data(Path(__file__).with_name("pages.yaml"))
    return found


def page_of(words: str) -> Page:
    """The page of a command that is not a gadget, by its words after `kubectl gadget`."""
    page = written()[words]
    return Page(
        page["summary"],
        tuple(Example(*example) for example in page.get("examples", {}).items()),
        usage=page.get("usage", ""),
        named_only=tuple(PANELS.get(name, name) for name in page.get("named_only", NAMED_ONLY)),
        silent=tuple(PANELS.get(name, name) for name in page.get("silent", ())),
        more=page.get("more", ""),
        listed=page.get("listed") or page["summary"].rstrip("."),
    )


# The index of gadgets. A gadget's own file is larger, so it is read only for the gadget that was requested


def index() -> "list[GadgetSummary]":
    """The built-in gadgets: name, command, group and summary of each."""
    return gadgets.load_index()


def unknown_gadget(name: str, path: str) -> UsageError | None:
    """The error for a gadget that was named without its verb after `path`; None if there is no such gadget."""
    for entry in index():
        if name in (entry.name, entry.command[-1], "-".join(entry.command)):
            return UsageError(f"unknown command {name!r}", f"{path} {' '.join(entry.command)}")
    return None
