"""What one run was asked to do, after the command line has been read and before anything is started.

`cli` fills it, `session.run` takes it. The trap: values are already checked here (a duration is a number of seconds),
so that nothing is created in a cluster before a usage error is found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kubectl_gadget.cluster.options import AgentOptions, KubeOptions, Selection
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.output.options import OutputOptions
from kubectl_gadget.session.tables import LiveTables
from kubectl_gadget.views.tables.arrangement import Arrangement

if TYPE_CHECKING:  # what needs numpy, or a cluster
    from kubectl_gadget.cluster.informer import Informer
    from kubectl_gadget.events.collector import RowTransform
    from kubectl_gadget.output.sink import Sink
    from kubectl_gadget.output.terminal import Terminal
    from kubectl_gadget.policies.engine.engine import Engine
    from kubectl_gadget.session.services import Service


@dataclass(frozen=True)
class GadgetRun:
    """One gadget with the values of its parameters (only those that the user gave)."""

    gadget: Gadget
    parameters: dict[str, Any] = field(default_factory=dict)
    """by Parameter.name"""
    directory: Path | None = None
    """where a user's own gadget was built; None: built in"""
    policies: "Engine | None" = None
    """what the engine of policies is to do, when this is it"""
    installed: bool = False
    """events of policies that are in force already"""
    tables: LiveTables | None = None
    """what its tables are to hold while it runs"""


@dataclass(frozen=True)
class Moment:
    """A wall time, or a time before the end of a recording."""

    absolute_ns: int | None = None
    ago_ns: int = 0


@dataclass(frozen=True)
class Replay:
    """Recordings in the place of nodes."""

    files: tuple[Path, ...]
    since: Moment | None = None
    until: Moment | None = None
    speed: float | None = None
    """1: as fast as it happened; None: as fast as it goes"""


@dataclass(frozen=True)
class RunOptions:
    """One run, whole."""

    gadgets: tuple[GadgetRun, ...]
    selection: Selection = field(default_factory=Selection)
    kube: KubeOptions = field(default_factory=KubeOptions)
    agent: AgentOptions = field(default_factory=AgentOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    local: bool = False
    """this machine, and no cluster"""
    followers: "tuple[Callable[[Informer], object], ...]" = ()
    """each subscribes to the cluster's objects that something of the run needs; not called without a cluster"""
    services: "tuple[Service, ...]" = ()
    """what works in the run's event loop from before its first node until its last row"""
    beforehand: Callable[[], object] | None = None
    """with `local`: called once all has been checked, and before the agent gets its orders; may block"""
    local_by_default: bool = False
    """`local`, since there is no kubeconfig"""
    make_sink: "Callable[[Sequence[Gadget], TextIO, Terminal | None], Sink] | None" = None
    """who takes rows, for commands that tell more than that; None: as in `output`. The terminal: None for a pipe"""
    transform: "RowTransform | None" = None
    """makes other rows of those of all gadgets; output, filters and conditions are then about its rows"""
    command: tuple[str, ...] = ()
    """the words that a replay of its recording begins with; empty: the gadgets' own"""
    record: Path | None = None
    """the file for a recording of the run"""
    replay: Replay | None = None
    """no run, but recordings of some"""
    doing: str | None = None
    """as "tracing processes", where the names of the gadgets do not say it"""
    arrangement: Arrangement = field(default_factory=Arrangement)
    """of gadgets that are no streams"""
    filter: str | None = None
    fail_on: str | None = None
    expect: str | None = None
    timeout: float | None = None
    """seconds"""
    max_events: int | None = None
    sort: bool = True
    sort_wait: float = 0.2
    """seconds that a row may be held back for rows of other nodes"""
    ring_bytes: int = 4 << 20
    """a power of two"""
    map_entries: int | None = None
    """of hashes that pair the beginning of something with its end; None: as each gadget has it"""
    buffer_bytes: int = 256 << 20
    """undecoded batches that the client may hold, in all"""
    strict: bool = False
    verbose: bool = False
    quiet: bool = False
    """no progress and no summary on stderr"""
