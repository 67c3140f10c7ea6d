"""Messages of the agent, HELLO to END of docs/protocol.md, as objects; and what its commands print.

Clients also use older agents, so a member that was added later needs a default. The module is long because it
describes every member of every message.
"""

from collections.abc import Mapping

from kubectl_gadget.wire.frames import Frame, FrameType, encode
from kubectl_gadget.wire.message import MOST_VALUES, NONE, Line, Lines, Message, Name, Time, read


class _FromAgent(Message):
    WHOLE = True


class Problem(_FromAgent):
    """Something that cannot work on a node, or that ended a session."""

    what: Lines = ""
    """what does not work"""
    why: Lines = ""
    """the reason"""
    try_: Line = ""
    """what to do; empty: no remedy is known"""


class PolicyHookState(_FromAgent):
    """A hook by which an installed policy is in force."""

    hook: Line
    """as the policy names it"""
    by: Line
    """where the program is attached, as `lsm/file_open`"""
    method: Line
    """what it can do there: observes, denies, signals, …"""


class PolicyState(_FromAgent):
    """One installed policy on a node."""

    name: Line
    """of the policy"""
    namespace: Line | None = None
    """null: a cluster-wide policy"""
    enforces: bool = False
    """True if it does more than observe"""
    state: Line = ""
    """`enabled` or `load_error`"""
    error: Lines = ""
    """why it is not in force"""
    hooks: tuple[PolicyHookState, ...] = ()
    """where it is in force"""
    events: int = 0
    """events so far"""


class PoliciesState(_FromAgent):
    """Installed policies on a node (STATE)."""

    digest: str = ""
    """of the installed set; empty: nothing is installed"""
    running: bool = False
    """True if the process that keeps them in force runs"""
    pinned: bool = False
    """True if they stay in force without that process"""
    not_pinned: Line = ""
    """why not"""
    problem: Line = ""
    """why the policies in force differ from the file"""
    lost: int = 0
    """events that did not fit into the ring"""
    policies: tuple[PolicyState, ...] = ()
    """each policy of the set"""
    former: tuple[Line, ...] = ()
    """policies that were found pinned, and taken out of force because they are not installed any more"""


class OwnedPins(_FromAgent):
    """Policies that are pinned on a node, by the deployment that they belong to."""

    namespace: Line = ""
    """of the deployment"""
    uid: str = ""
    """of that namespace; empty: unknown"""
    sets: int = 0
    """number of sets"""
    held: bool = False
    """True if an agent that runs has them"""
    policies: tuple[Line, ...] = ()
    """NAME or NAMESPACE/NAME of each; empty: the agent cannot read them"""


class ReleasedPins(_FromAgent):
    """The output of the agent's command `release`. The keys of both objects are the command's arguments."""

    removed: Mapping[str, int] = NONE
    """number of sets that were taken out of force"""
    kept: Mapping[str, Lines] = NONE
    """why the others stay in force"""


class RunningSession(_FromAgent):
    """Another session in the same pod."""

    gadgets: tuple[str, ...] = ()
    """as its command declares them; contained agents do not say"""
    enforces: bool = False
    """True if its command declares that it may enforce"""
    seconds: int = 0
    """since it started"""
    map_bytes: int | None = None
    """memory of its BPF maps, with what unwinds call stacks; null: unknown; contained agents do not say"""


class Hello(_FromAgent):
    """HELLO: what the agent and its node are and can do."""

    protocol: int = 1
    """version of the frames"""
    agent: Line = ""
    """version of the agent"""
    node: Line = ""
    """the node's name"""
    addresses: tuple[str, ...] = ()
    """the node's own IP addresses, without loopback and link-local ones; in any notation"""
    architecture: str = ""
    """the machine, such as `x86_64`"""
    kernel: Line = ""
    """the kernel's release"""
    kinds: tuple[str, ...] = ("stream",)
    """of gadgets that the agent can run"""
    boot_id: str | None = None
    """identifies this boot of the machine; null or empty: unknown"""
    boot_ns: Time | None = None
    """CLOCK_BOOTTIME, in ns"""
    realtime_ns: Time | None = None
    """CLOCK_REALTIME at the same moment, in ns"""
    cgroup_root: str = ""
    """where the cgroup file system is mounted; empty: nowhere"""
    can: Mapping[str, bool | None] = NONE
    """kernel features by name; null: unknown"""
    problems: tuple[Problem, ...] = ()
    """what will keep gadgets from running"""
    policies: PoliciesState | None = None
    """installed policies; null: this pod has never had any"""
    pins: tuple[OwnedPins, ...] = ()
    """pinned policies, without those that this agent's deployment has in force; contained agents list none"""
    contained: bool = False
    """True if it runs contained sessions only"""
    sessions: tuple[RunningSession, ...] = ()
    """other sessions that run in this pod, without those that only ask for this"""


class Skipped(_FromAgent):
    """A program that was not loaded."""

    program: Line = ""
    """its name, or the way to a policy's hook"""
    why: Lines = ""
    """the kernel's reason"""


class StartedPrograms(_FromAgent):
    """The loaded programs of one entry of RUN's `programs`, or of one hook of policies."""

    chosen: tuple[Line, ...] = ()
    """names of the programs, without those that another gadget runs for this one, too"""
    hooks: tuple[Line, ...] = ()
    """where they are attached"""
    skipped: tuple[Skipped, ...] = ()
    """what was tried before"""
    method: Line = "observes"
    """of a policy's hook: what it can do there"""


class StartedGadget(_FromAgent):
    """One gadget that runs."""

    name: Line = ""
    """as in RUN"""
    programs: tuple[StartedPrograms, ...] = ()
    """as in RUN, in its order"""


class Started(_FromAgent):
    """STARTED: all gadgets of RUN are attached."""

    gadgets: tuple[StartedGadget, ...] = ()
    """as in RUN, in its order"""
    boot_ns: Time | None = None
    """CLOCK_BOOTTIME, in ns; events from then on are seen"""
    realtime_ns: Time | None = None
    """CLOCK_REALTIME at the same moment, in ns"""


class ContainerNames(_FromAgent):
    """A container (CONTAINER)."""

    id: Name
    """64 hexadecimal digits, or the runtime's name for it"""
    cgroup: int = 0
    """id of its cgroup"""
    namespace: Name = ""
    """of its pod; empty for containers not created by Kubernetes (Docker, Podman, runc)"""
    pod: Name = ""
    """name of its pod; empty as above"""
    pod_uid: Name = ""
    """UID of its pod"""
    container: Name = ""
    """its name"""
    image: Name = ""
    """as the runtime names it"""
    runtime: Name = ""
    """such as `containerd`"""
    kind: Name = "container"
    """`container` or `sandbox`"""
    earlier: bool = False
    """True if it existed when the session began"""


class ContainerChanges(_FromAgent):
    """CONTAINERS: changes of containers and cgroups."""

    containers: tuple[ContainerNames, ...] = ()
    """containers whose names are known now"""
    cgroups: Mapping[int, Name | None] = NONE
    """by id, the container that owns it; null: the host. Cgroups below a container are left out, but for some that it
    made before the kernel knew of it"""
    removed: tuple[int, ...] = ()
    """cgroups that are gone, by id"""


class Loser(_FromAgent):
    """A container, or the host, whose events did not fit into the ring. Names that do not exist are left out."""

    namespace: Line = ""
    """of its pod"""
    pod: Line = ""
    """its pod"""
    container: Line = ""
    """the container's name"""
    host: bool = False
    """True if it is the host"""
    lost: int
    """events, since the start"""


class RequestCounts(_FromAgent):
    """Requests that policies made the agent send."""

    answered: int = 0
    """requests that were answered"""
    failed: int = 0
    """requests that failed"""
    left_out: int = 0
    """requests that did not fit into the queue"""


class GadgetStats(_FromAgent):
    """The counts of one gadget since the start."""

    events: int = 0
    """records in the ring"""
    bytes: int = 0
    """of these records"""
    lost: Mapping[Line, Mapping[Line, int]] = NONE
    """by cause (`ring_full`, `map_full`, `unexamined`, `recursion`), by CPU or `all`; without zeros. `detached` has 1
    for each program that another process of the node has stopped"""
    cut_strings: int = 0
    """texts that were cut to fit"""
    lost_by: tuple[Loser, ...] = ()
    """those that lost most by `ring_full`, or by `map_full` in maps with shares, at most 20"""
    hooks: Mapping[Line, Mapping[Line, int]] = NONE
    """of policies: by hook, counts by name"""
    killed: int = 0
    """of policies: processes that the agent killed"""
    gone: int = 0
    """of policies: events whose process had ended before the agent could kill it"""
    requests: RequestCounts | None = None
    """of policies: requests for URLs and names"""


class Usage(_FromAgent):
    """Resources that the agent itself uses."""

    cpu_ns: int = 0
    """CPU time, in ns"""
    rss_bytes: int = 0
    """resident memory, with mapped rings"""


class Stats(_FromAgent):
    """STATS: counts since the start, each second, or each 10 × `rest_ms` if that is longer."""

    gadgets: tuple[GadgetStats, ...] = ()
    """as in RUN, in its order"""
    agent: Usage | None = None
    """resources that the agent itself uses"""
    boot_ns: Time | None = None
    """CLOCK_BOOTTIME, in ns"""
    realtime_ns: Time | None = None
    """CLOCK_REALTIME at the same moment, in ns"""


class WarningText(_FromAgent):
    """WARNING: a line for people."""

    message: Lines = ""
    """the line"""


class End(_FromAgent):
    """END: the last frame of a session."""

    reason: Line = ""
    """`stop`, `eof`, `heartbeat`, `signal` or `error`"""
    error: Problem | None = None
    """why, for `error`"""
    stats: Stats | None = None
    """the last counts, if gadgets ran"""


class Pong(_FromAgent):
    """PONG: the answer to HEARTBEAT."""

    id: int = 0
    """of the HEARTBEAT; 0: unsolicited, sent every 5 s while programs are loaded"""
    boot_ns: Time | None = None
    """CLOCK_BOOTTIME, in ns"""
    realtime_ns: Time | None = None
    """CLOCK_REALTIME at the same moment, in ns"""


class StackNames(_FromAgent):
    """STACKS: call stacks that records name by number."""

    gadget: int
    """index in RUN"""
    first: int
    """number of the first of `frames`"""
    frames: tuple[str, ...]
    """function, file and offset, and of an unknown function build id and address, with tabs between"""
    stacks: Mapping[int, tuple[int, ...]]
    """by stack, the numbers of its frames, innermost call first"""


class FoundFunction(_FromAgent):
    """A requested kernel function."""

    exists: bool = False
    """True if the kernel has it"""


class FoundFunctions(_FromAgent):
    """Functions that match a pattern."""

    count: int = 0
    """how many"""
    functions: tuple[str, ...] = ()
    """their names, at most 20,000"""


class TriedWays(_FromAgent):
    """The result of attaching a program that does nothing."""

    way: Line | None = None
    """the first that the kernel accepts, as `fentry/fd_install`; null: none"""
    refused: Mapping[Line, Lines] = NONE
    """those before it, and why"""
    needless: bool = False
    """True if there is none because no program on the node can make such calls"""


class Hooks(_FromAgent):
    """HOOKS: the answer to LOOK_UP."""

    functions: Mapping[str, FoundFunction] = NONE
    """by requested name"""
    tracepoints: Mapping[str, bool | None] = NONE
    """True if the kernel has them; null: unknown"""
    traceable_problem: Lines = ""
    """why the kernel's traceable functions, which patterns match, cannot be listed"""
    generated: Mapping[str, FoundFunctions | None] = NONE
    """by pattern; null: unknown"""
    near: Mapping[str, tuple[Line, ...]] = NONE
    """similar names, for missing functions and tracepoints"""
    ways: Mapping[str, TriedWays] = NONE
    """by requested name"""


AgentMessage = Hello | Started | ContainerChanges | Stats | WarningText | End | Pong | StackNames | Hooks
OF_AGENTS: dict[int, type[AgentMessage]] = {
    FrameType.HELLO: Hello,
    FrameType.STARTED: Started,
    FrameType.CONTAINERS: ContainerChanges,
    FrameType.STATS: Stats,
    FrameType.WARNING: WarningText,
    FrameType.END: End,
    FrameType.PONG: Pong,
    FrameType.STACKS: StackNames,
    FrameType.HOOKS: Hooks,
}

_MOST_VALUES: dict[type[AgentMessage], int] = {StackNames: 1 << 21, Stats: 1 << 16}
"""8,192 stacks of 127 calls are sent together; statistics of lost connections are kept."""


def from_agent(frame: Frame) -> AgentMessage | None:
    """Returns the message in a frame of an agent; None for frames without JSON, and types of newer agents. Raises
    FrameError when it violates docs/protocol.md."""
    cls = OF_AGENTS.get(frame.type)
    if cls is None:
        return None
    return read(cls, frame.payload, FrameType(frame.type).name, most=_MOST_VALUES.get(cls, MOST_VALUES))


_TYPES = {cls: type for type, cls in OF_AGENTS.items()}


def encode_message(message: AgentMessage) -> bytes:
    """Returns one whole frame."""
    return encode(_TYPES[type(message)], message.to_bytes())
