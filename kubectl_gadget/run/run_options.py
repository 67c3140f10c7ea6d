"""The options of one run, after the command line has been parsed and before anything is started.

`cli` fills them in, live_run.py uses them. Values are already checked here (a duration is a number of seconds), so
that nothing is created in a cluster before a usage error is found.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from kubectl_gadget.gadgets.schema import PEERS, Gadget, is_peer
from kubectl_gadget.kube.cluster_options import AgentOptions, KubeOptions, Selection
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.run.live_tables import LiveTables

if TYPE_CHECKING:
    from kubectl_gadget.filters.filter import Filter
    from kubectl_gadget.kube.addresses import Addresses
    from kubectl_gadget.kube.informer import Follower
    from kubectl_gadget.output.sink import Sink, WholeSink
    from kubectl_gadget.output.terminal import Terminal
    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.recording.places import PathOrUrl
    from kubectl_gadget.rows.rows import Rows, RowTransform
    from kubectl_gadget.run.backlog import FrameSource
    from kubectl_gadget.run.coverage import Coverage
    from kubectl_gadget.run.node import NodeState
    from kubectl_gadget.run.services import Service


@dataclass(frozen=True)
class GadgetRun:
    """One gadget with the values of its parameters (only those that the user gave)."""

    gadget: Gadget
    parameters: dict[str, Any] = field(default_factory=dict)
    """by Parameter.name"""
    directory: Path | None = None
    """where a user's own gadget was built; None: a built-in gadget"""
    policies: "CompiledPolicies | None" = None
    """what the policy engine is to do, when this is its gadget"""
    installed: bool = False
    """events of policies that are already in force"""
    again_seconds: float = 0.0
    """of a snapshot: it is taken again after this time, and at the end; 0: it is taken once"""
    tables: LiveTables | None = None
    """the contents of its tables while it runs"""
    only: "Filter | None" = None
    """in a replay: selects its rows, for parameters that the recorded run did not have"""


@dataclass(frozen=True)
class Moment:
    """A wall time, or a time before the end of a recording."""

    absolute_ns: int | None = None
    ago_ns: int = 0


@dataclass(frozen=True)
class Replay:
    """Replays recordings instead of running on nodes."""

    files: "tuple[PathOrUrl, ...]"
    since: Moment | None = None
    until: Moment | None = None
    speed: float | None = None
    """1: at the original speed; None: as fast as possible"""
    step: str | None = None
    """only what happened in this step of a CI job"""


class RunRecorder(Protocol):
    """Records what a run's pipeline works on (recording/recorder.py)."""

    options: "RunOptions"
    """The run's options, with what the recording needs from the cluster."""
    has_ring: bool
    """True if it is written only when something happens."""
    has_failed: bool
    """True if the run shows nothing and its recording is not whole. Known after `close`."""
    problem: str
    """The error in the file. Known after `close`."""

    def create(self, failed: Callable[[str], object]) -> None:
        """Create the file, if it is written from the start. Raises UsageError."""

    def stop_with(self, stop: Callable[[], object]) -> None:
        """Call `stop`, from any thread, when a run that shows nothing has nothing more to record."""

    def frames(self, source: "FrameSource") -> "FrameSource":
        """Return a source of the same steps, which records them."""

    def wants(self, wants: Callable[[str, str], bool | None]) -> Callable[[str, str], bool | None]:
        """Return a function with the same answers, which records them."""

    def keep(self, why: str) -> None:
        """Write what is kept in memory. May be called from any thread."""

    def close(self, states: "Mapping[str, NodeState]", coverage: "Coverage") -> str:
        """End the recording, and return a message about it."""


class RunExport(Protocol):
    """Sends the rows that a run shows elsewhere (export/run.py). All calls come from the pipeline's thread."""

    takes_output: bool
    """True if standard output has the exported rows and nothing else."""

    def begin(self, warn: Callable[[str], object]) -> None:
        """Start to send. `warn` is called from any thread."""

    def write(self, shown: "Rows", everything: "Rows") -> None:
        """Take rows that are shown, and the rows of a table that --max-rows leaves out. Does not wait."""

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """Take the record of a time for which a node's rows are missing."""

    def tick(self, now_ns: int) -> None:
        """Take the time of an intake. Called for each."""

    def close(self) -> None:
        """Send what waits, for a few seconds."""

    @property
    def lost(self) -> int:
        """Return the number of rows that some target did not get. Known after `close`."""

    def summary(self) -> Iterable[str]:
        """Return a line for each target."""

    def losses(self) -> Iterable[str]:
        """Return a line for each target that did not get all rows."""


@dataclass(frozen=True)
class LiveView:
    """The options for showing the page of a run in progress."""

    browser: bool = True
    """in a browser that is opened here"""
    port: int = 0
    """of this machine; 0: any free one"""
    hosts: tuple[str, ...] = ()
    """HOST or HOST:PORT by which a proxy is asked for it"""
    names: bool = True
    """ask the API server for the names of addresses"""
    first: str = ""
    """the part that comes first"""


@dataclass(frozen=True)
class RunOptions:
    """All options of one run."""

    gadgets: tuple[GadgetRun, ...]
    selection: Selection = field(default_factory=Selection)
    kube: KubeOptions = field(default_factory=KubeOptions)
    agent: AgentOptions = field(default_factory=AgentOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    local: bool = False
    """run on this machine, without a cluster"""
    followers: "tuple[Follower, ...]" = ()
    """take cluster objects that some part of the run needs: from the cluster if there is one, or from a recording"""
    services: "tuple[Service, ...]" = ()
    """work in the run's event loop from before its first node until its last row"""
    beforehand: Callable[[], object] | None = None
    """with `local`: called after everything was checked, and before the agent gets its requests; may block"""
    on_signal: Callable[[int], bool] | None = None
    """gets signals first, from the run's event loop; with True the run goes on"""
    local_by_default: bool = False
    """`local` was chosen because there is no kubeconfig"""
    make_sink: "Callable[[Sequence[Gadget], TextIO, Terminal | None], Sink] | None" = None
    """makes the sink, if it shows something other than rows; None: as in `output`. The terminal: None for a pipe"""
    addresses: "Callable[[], Addresses] | None" = None
    """returns the cluster's present view of addresses, by which rows name the other ends of connections"""
    transform: "RowTransform | None" = None
    """replaces the rows of all gadgets by others; output, filters and conditions then apply to its rows"""
    command: tuple[str, ...] = ()
    """the words that a replay of its recording starts with; empty: the gadgets' words"""
    typed: tuple[str, ...] = ()
    """the command that its pages name; empty: `command`"""
    record: "Callable[[RunOptions], RunRecorder] | None" = None
    """makes the recorder of the run; None: it is not recorded"""
    beside: "WholeSink | None" = None
    """also gets the rows of all gadgets, before a transform makes others of them"""
    export: "Callable[[Sequence[Gadget]], RunExport] | None" = None
    """makes what sends the rows that are shown elsewhere (--export), given their gadgets; None: nothing does"""
    ui: LiveView | None = None
    """show the run as a page while it goes on (--ui)"""
    recorded_in: "PathOrUrl | None" = None
    """where `record` writes, if the user chose a place"""
    page: str | None = None
    """the file of the page that is made of the run at its end (--report html=FILE); None: there is none"""
    replay: Replay | None = None
    """show recordings instead of a run"""
    ending: "Callable[[Coverage], Mapping[str, object]] | None" = None
    """what the recording's end also holds, made when all nodes are detached"""
    doing: str | None = None
    """such as "tracing processes", where the names of the gadgets do not say it"""
    arrangement: Arrangement = field(default_factory=Arrangement)
    """for gadgets that are not streams"""
    filter: str | None = None
    fail_on: str | None = None
    expect: str | None = None
    timeout: float | None = None
    """seconds"""
    max_events: int | None = None
    sort: bool = True
    sort_wait: float = 0.2
    """seconds that a row may be held back to sort it among rows of other nodes"""
    rest_ms: int = 50
    """milliseconds between two looks of an agent for events while nothing happens, 20 to 400"""
    ring_bytes: int = 4 << 20
    """a power of two"""
    map_entries: int | None = None
    """of hashes that pair starts with ends; None: as each gadget declares"""
    buffer_bytes: int = 256 << 20
    """undecoded batches that the client may hold, over all nodes"""
    is_part: bool = False
    """another run needs it, and gets the signals"""
    strict: bool = False
    verbose: bool = False
    quiet: bool = False
    """no progress and no summary on stderr"""


# Names of the other ends of connections, in rows with their addresses.

_WAIT_SECONDS = 5.0
"""Seconds that a run waits for the cluster's objects if its result depends on the names."""
_NAMES = re.compile(rf"\b(?:{'|'.join(PEERS)})_(?:kind|node|namespace|pod|service)\b")


def with_peer_names(options: RunOptions) -> RunOptions:
    """Return the options of a run whose rows name the other ends of connections, if it shows any. Most runs do not wait
    for the names: the API server lists its objects while agents attach."""
    if (options.local and options.replay is None) or not _shows_peers(options):
        return options
    from kubectl_gadget.kube.addresses import ClusterView, followed

    view = ClusterView()
    decides = any(text and _NAMES.search(text) for text in (options.filter, options.fail_on, options.expect))
    is_snapshot = options.gadgets[0].gadget.kind == "snapshot"
    wait = _WAIT_SECONDS if decides or is_snapshot else 0.0
    follower = followed(view.take, wait, "some addresses have no names")
    return replace(options, followers=(*options.followers, follower), addresses=view.get)


def _shows_peers(options: RunOptions) -> bool:
    chosen = {name for name in options.output.columns if name[:1] not in ("+", "-")}
    return any(
        is_peer(field)
        and (
            not chosen
            or options.export is not None
            or not chosen.isdisjoint((column.name, column.title, column.title.lower()))
        )
        for run in options.gadgets
        for field in run.gadget.record.fields
        for column in run.gadget.columns
        if column.field == field.name
    )
