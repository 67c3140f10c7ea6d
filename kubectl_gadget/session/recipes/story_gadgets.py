"""The gadgets behind `observe` and `enforce`, and how their rows become a story.

The trap: what closes at the end of a process has to be reported before that end when both use the same hook, so the
process gadget comes after those of files and connections.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

from kubectl_gadget import catalogue
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.session.run_options import GadgetRun, RunOptions

if TYPE_CHECKING:  # modules that need numpy
    from kubectl_gadget.observe.choice import Choice
    from kubectl_gadget.observe.decoders.policy_records import IsFor
    from kubectl_gadget.observe.happening import Decoder
    from kubectl_gadget.observe.printing.story_formats import StoryOutput
    from kubectl_gadget.observe.story import StoryEvent
    from kubectl_gadget.output.sink import Sink
    from kubectl_gadget.output.terminal import Terminal
    from kubectl_gadget.policies.engine.compiled_policies import Engine


@dataclass(frozen=True)
class StoryGadgets:
    """What is traced."""

    file_paths: str | None = None
    """what happens to these files is traced; None: no files"""
    connections: bool = False
    installed: bool = False
    """events of installed policies"""
    silent: GadgetRun | None = None
    """runs as well, but its rows are not part of the story"""
    policies: "Engine | None" = None

    def command(self) -> tuple[str, ...]:
        """Returns the words that a replay of a recording starts with."""
        files = () if self.file_paths is None else ("--files", self.file_paths)
        installed = ("--installed",) if self.installed else ()
        return ("observe", *files, *(("--flows",) if self.connections else ()), *installed)

    def runs(self) -> tuple[GadgetRun, ...]:
        """Returns the gadgets, in the order in which agents are asked for them; that of policies is the last."""
        runs = [GadgetRun(catalogue.load_gadget(name)) for name in ("trace_tcp", "trace_dns") if self.connections]
        if self.file_paths is not None:
            runs.append(GadgetRun(catalogue.load_gadget("trace_fileuse"), {"path": self.file_paths}))
        runs.append(GadgetRun(catalogue.load_gadget("trace_process")))
        if self.installed:
            from kubectl_gadget.observe.decoders.policy_records import INSTALLED

            runs.append(GadgetRun(INSTALLED, installed=True))
        if self.silent:
            runs.append(self.silent)
        if self.policies:
            from kubectl_gadget.observe.decoders.policy_records import GADGET

            runs.append(GadgetRun(GADGET, policies=self.policies))
        return tuple(runs)


@dataclass(frozen=True)
class StoryRecipe:
    """How rows become a story."""

    gadgets: StoryGadgets
    choice: "Choice"
    output: "StoryOutput"
    is_for: "IsFor | None" = None
    """whether scopes of policies match a pod's labels; None: no policy selects by labels"""
    on_told: "Callable[[StoryEvent], None] | None" = None
    """called for each event of the story, also for those not shown"""

    def applied(self, options: RunOptions) -> RunOptions:
        """Returns the options for running the gadgets, with their rows turned into a story."""
        from kubectl_gadget.observe.story import Story

        needs_columns = self.output.is_flat or any((options.filter, options.fail_on, options.expect))
        story = Story(self._decoders(), self.choice, needs_columns=needs_columns, on_told=self.on_told)
        make_sink = None if self.output.is_flat else self._make_sink
        return replace(
            options,
            transform=story,
            doing="tracing processes",
            command=self.gadgets.command(),
            make_sink=make_sink,
        )

    def _make_sink(self, _: Sequence[Gadget], stream: TextIO, terminal: "Terminal | None") -> "Sink":
        return self.output.sink(stream, terminal)

    def _decoders(self) -> "dict[str, Decoder]":
        """Returns decoders for gadgets that a story does not know by itself."""
        from kubectl_gadget.observe.decoders.policy_records import INSTALLED, NAME, decoder, installed_events

        found: dict[str, Decoder] = {}
        if self.gadgets.silent:
            found[self.gadgets.silent.gadget.name] = lambda batch: [()] * len(batch)
        if self.gadgets.installed:
            found[INSTALLED.name] = installed_events
        if self.gadgets.policies:
            found[NAME] = decoder(self.gadgets.policies.hooks, self.is_for)
        return found
