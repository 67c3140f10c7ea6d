"""`kubectl gadget replay`: runs any command that shows rows on recordings instead of nodes.

The trap: files come before the command, so a file with the name of a command must be written as ./NAME.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

from kubectl_gadget.cli.flags.flag_declaration import SHOW, Text, TypedOnly, flag
from kubectl_gadget.cli.flags.run_flags import replaying
from kubectl_gadget.cli.framework.binding import own_level
from kubectl_gadget.cli.framework.command import Entry, GadgetGroup, GroupParts, make_group
from kubectl_gadget.cli.help.gadget_index import unknown_gadget
from kubectl_gadget.cli.help.help_pages import page_of
from kubectl_gadget.cli.values import amounts, word_lists
from kubectl_gadget.errors import UsageError
from kubectl_gadget.run.run_options import Moment, Replay

if TYPE_CHECKING:
    from typer._click.core import Context

T = TypeVar("T")

_NOT_HERE = ("demo", "behavior", "ci", "list", "bcc", "bpftrace", "policy", "replay", "record", "recording", "run")
_INSTEAD = {
    **{"ci": "kubectl gadget ci judge FILE", "behavior": "kubectl gadget behavior show FILE"},
    **{
        "policy": "kubectl gadget replay FILE observe",
        "recording": "kubectl gadget recording --help",
    },
}
_OWN = ("--since", "--until", "--speed", "--step")


Since = Annotated[
    Moment | None,
    flag(SHOW, "--since TIME", "Start at this time: 10m before its end, or 2026-05-01T10:00:00Z"),
    amounts.moment,
    TypedOnly.SELECTION,
]
Until = Annotated[Moment | None, flag(SHOW, "--until TIME", "End at this time"), amounts.moment, TypedOnly.SELECTION]
Speed = Annotated[
    float | None,
    flag(SHOW, "--speed N", "1: as fast as it happened, 10: ten times that (default: at once)"),
    amounts.factor,
    TypedOnly.SELECTION,
]
Step = Annotated[
    Text, flag(SHOW, "--step NAME", "Only this step of a CI run; recording info lists them"), TypedOnly.SELECTION
]


def replay_group(entries: Mapping[str, Entry]) -> GadgetGroup:
    """`kubectl gadget replay`, with those of the root's `entries` that show rows."""
    here = {name: entry for name, entry in entries.items() if entry.section == "Gadgets" and name not in _NOT_HERE}
    return make_group(
        {"since": Since, "until": Until, "speed": Speed, "step": Step},
        "replay",
        GroupParts(partial(page_of, "replay"), here, kind=ReplayGroup),
    )


class ReplayGroup(GadgetGroup):
    """Runs a sub-command on recordings; without one, the command that was recorded."""

    takes_files = True

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Accepts the group's own flags anywhere, including after the files."""
        own, rest = _own_flags(args)
        return super().parse_args(ctx, [*own, *rest])

    def invoke(self, ctx: "Context") -> int:
        files, words = self._files(ctx.args)
        if not files:
            if ctx.args or any(item.name in ("since", "until", "speed", "step") for item in own_level(ctx)):
                raise UsageError("no recording was given", "kubectl gadget replay FILE")
            return super().invoke(ctx)
        for word in files:
            if word in _NOT_HERE and not os.path.exists(word):
                raise UsageError(f"kubectl gadget {word} cannot be replayed", _INSTEAD.get(word))
        if not words or words[0].startswith("-"):
            words = [*_recorded_command(files[0]), *words]
        ctx.args = words
        given = {item.name: item.value for item in own_level(ctx)}
        from kubectl_gadget.recording.recording_places import places_of

        asked = Replay(
            tuple(places_of(files)),
            _read(amounts.moment, "--since", given.get("since")),
            _read(amounts.moment, "--until", given.get("until")),
            _read(amounts.factor, "--speed", given.get("speed")),
            _read(word_lists.some_text, "--step", given.get("step")),
        )
        with _replaying(asked):
            return super().invoke(ctx)

    def _files(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        known = self.entries
        for place, word in enumerate(words):
            if word in known or word.startswith("-"):
                return list(words[:place]), list(words[place:])
        return list(words), []

    def after_files(self, words: Sequence[str]) -> list[str]:
        return self._files(words)[1]

    def unknown(self, name: str, path: str) -> UsageError:
        """Suggests `replay FILE trace open` for `replay FILE open`."""
        return unknown_gadget(name, path) or super().unknown(name, path)


def _own_flags(args: Sequence[str]) -> tuple[list[str], list[str]]:
    own, rest = list[str](), list[str]()
    left = iter(args)
    for word in left:
        name, equals, _ = word.partition("=")
        if name not in _OWN:
            rest.append(word)
            continue
        own.append(word)
        if not equals:
            value = next(left, None)
            if value is None:  # otherwise it would take the first of `rest`, a file
                raise UsageError(f"flag {word} needs a value", "kubectl gadget replay --help")
            own.append(value)
    return own, rest


def _read(reader: Callable[[str], T], name: str, text: str | bool | None) -> T | None:
    if text is None:
        return None
    try:
        return reader(str(text))
    except ValueError as error:
        raise UsageError(f"{name} {text!r}: {error}") from None


def _recorded_command(file: str) -> Sequence[str]:
    from kubectl_gadget.recording.reader import RecordingReader
    from kubectl_gadget.recording.recorded_run import RecordedRun
    from kubectl_gadget.recording.recording_places import places_of

    with RecordingReader(places_of([file])[0]) as reader:
        return RecordedRun.from_meta(reader.meta, file).command


@contextmanager
def _replaying(asked: Replay) -> Iterator[None]:
    before = replaying.set(asked)
    try:
        yield
    finally:
        replaying.reset(before)
