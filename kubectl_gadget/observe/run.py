"""A run of `observe` or `enforce`: the options of its lines, its gadgets, and how their rows become a story.

The command line imports this at each TAB, so what needs numpy or asyncio is imported in functions. What
closes at the end of a process has to be reported before that end when both use the same hook, so the process gadget
comes after the ones of files and connections.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kubectl_gadget import gadgets
from kubectl_gadget.run.run_options import GadgetRun, RunOptions

if TYPE_CHECKING:
    from kubectl_gadget.kube.informer import Follower
    from kubectl_gadget.observe.formats import StoryOutput
    from kubectl_gadget.observe.happening import Decoder
    from kubectl_gadget.observe.messages import PodDetails
    from kubectl_gadget.observe.story import Choice
    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.policies.labels import PolicyLabels
    from kubectl_gadget.policies.reactions import Reaction

EVENT_TYPES = (
    "exec",
    "exit",
    "kprobe",
    "tracepoint",
    "uprobe",
    "usdt",
    "lsm",
    "loader",
    "file",
    "connect",
    "accept",
    "close",
    "dns",
)
"""As in JSON after `process_`."""
SHOWN = ("pid", "parent", "node", "container", "uid", "policy", "exec-id", "file-id", "flow-id", "admin")
"""Details that lines can show in addition to their shape."""


@dataclass(frozen=True)
class LineOptions:
    """Options of lines."""

    timestamps: bool = False
    shown: frozenset[str] = frozenset()
    """members of SHOWN"""
    stacks: bool = True
    color: bool = False


# The gadgets, and how their rows become a story.


@dataclass(frozen=True)
class StoryGadgets:
    """The gadgets and policies to trace."""

    file_paths: str | None = None
    """what happens to these files is traced; None: no files"""
    connections: bool = False
    installed: bool = False
    """events of installed policies"""
    silent: GadgetRun | None = None
    """runs as well, but its rows are not part of the story"""
    policies: "CompiledPolicies | None" = None

    def command(self) -> tuple[str, ...]:
        """Returns the words that a replay of a recording starts with."""
        files = () if self.file_paths is None else ("--files", self.file_paths)
        installed = ("--installed",) if self.installed else ()
        return ("observe", *files, *(("--flows",) if self.connections else ()), *installed)

    def shown(self) -> "dict[str, Decoder]":
        """Returns decoders of the gadgets that a story knows, of those that are shown."""
        from kubectl_gadget.observe.story import CONNECTIONS, DECODERS, FILES, NAMES, PROCESSES

        wanted = {PROCESSES} | ({CONNECTIONS, NAMES} if self.connections else set())
        return {name: DECODERS[name] for name in (wanted if self.file_paths is None else wanted | {FILES})}

    def runs(self) -> tuple[GadgetRun, ...]:
        """Returns the gadgets, in the order in which agents are asked for them; the gadget of policies is the last."""
        runs = [GadgetRun(gadgets.load_gadget(name)) for name in ("trace_tcp", "trace_dns") if self.connections]
        if self.file_paths is not None:
            runs.append(GadgetRun(gadgets.load_gadget("trace_fileuse"), {"path": self.file_paths}))
        runs.append(GadgetRun(gadgets.load_gadget("trace_process")))
        if self.installed:
            from kubectl_gadget.observe.decoders import INSTALLED

            runs.append(GadgetRun(INSTALLED, installed=True))
        if self.silent:
            runs.append(self.silent)
        if self.policies:
            from kubectl_gadget.observe.decoders import GADGET

            runs.append(GadgetRun(GADGET, policies=self.policies))
        return tuple(runs)


@dataclass(frozen=True)
class StoryRecipe:
    """Options for making a story of rows."""

    gadgets: StoryGadgets
    choice: "Choice"
    output: "StoryOutput"
    reaction: "Reaction | None" = None
    """what acts on events of policies; None: nothing"""
    labels: "PolicyLabels | None" = None
    """labels of pods; None: no policy selects by labels"""
    details: "PodDetails | None" = None
    """what the output says about pods; None: only what agents report"""

    def applied(self, options: RunOptions, follows: bool) -> RunOptions:
        """Returns the options for running the gadgets, with their rows turned into a story. `follows`: labels and
        details are kept up to date with the cluster, or with a recording."""
        from kubectl_gadget.observe.story import Story

        output = self.output
        needs_columns = output.is_flat or any((options.filter, options.fail_on, options.expect, options.export))
        story = Story(
            self._decoders(),
            self.choice,
            needs_columns=needs_columns,
            on_event=self.reaction.on_event if self.reaction else None,
        )
        return replace(
            options,
            gadgets=self.labels.attached_to(options.gadgets) if self.labels else options.gadgets,
            services=(*options.services, *(self.reaction.services if self.reaction else ())),
            followers=(*options.followers, *self._followers()) if follows else (),
            transform=story,
            doing="tracing processes",
            command=self.gadgets.command(),
            make_sink=None if output.is_flat else lambda _, stream, terminal: output.sink(stream, terminal),
        )

    def _followers(self) -> "Iterator[Follower]":
        from kubectl_gadget.observe import messages
        from kubectl_gadget.policies import labels

        if self.labels is not None:
            yield labels.followed(self.labels)
        if self.details is not None:
            yield messages.followed(self.details)

    def _decoders(self) -> "dict[str, Decoder]":
        """Returns decoders for gadgets that a story does not know by itself."""
        from kubectl_gadget.observe.decoders import INSTALLED, NAME, decoder, installed_events

        found: dict[str, Decoder] = {}
        if self.gadgets.silent:
            found[self.gadgets.silent.gadget.name] = lambda batch: [()] * len(batch)
        if self.gadgets.installed:
            found[INSTALLED.name] = installed_events
        if self.gadgets.policies:
            found[NAME] = decoder(self.gadgets.policies.hooks, self.labels.is_for if self.labels else None)
        return found
