"""What one run was asked to do, after the command line has been read and before anything is started.

`cli` fills it, `session.run` takes it. The trap: values are already checked here (a duration is a number of seconds), so that
nothing is created in a cluster before a usage error is found.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubectl_gadget.events.schema import Gadget


@dataclass(frozen=True)
class KubeOptions:
    """kubectl's own global flags. None means: as the kubeconfig says."""

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    server: str | None = None
    token: str | None = None
    as_user: str | None = None
    as_groups: tuple[str, ...] = ()
    request_timeout: float | None = None
    """seconds, per API call, never for the stream"""
    certificate_authority: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None


@dataclass(frozen=True)
class Selection:
    """Which containers are traced."""

    namespace: str | None = None
    """None: the context's namespace (cluster), or any (local)"""
    all_namespaces: bool = False
    pods: tuple[str, ...] = ()
    selector: str | None = None
    """label selector as kubectl takes it, set-based too"""
    containers: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    host: bool = False
    """host processes too"""


@dataclass(frozen=True)
class AgentOptions:
    """How agents are started in a cluster."""

    image: str | None = None
    image_pull_policy: str | None = None
    image_pull_secret: str | None = None
    namespace: str = "kubectl-gadget"
    privileged: bool = False
    start_timeout: float = 60.0
    """seconds"""
    idle_timeout: float = 600.0
    """seconds after which an on-demand agent pod without a session ends by itself"""


@dataclass(frozen=True)
class OutputOptions:
    """What is printed."""

    format: str = "table"
    """table, wide, json, yaml, csv, name, jsonpath=…, custom-columns=…"""
    no_headers: bool = False
    color: str = "auto"
    """auto, always, never"""
    columns: tuple[str, ...] = ()
    """--columns a,b: shown instead of the default ones"""


@dataclass(frozen=True)
class GadgetRun:
    """One gadget with the values of its parameters (only those that the user gave)."""

    gadget: Gadget
    parameters: dict[str, Any] = field(default_factory=dict)
    """by Parameter.name"""
    directory: Path | None = None
    """where a user's own gadget was built; None: built in"""


@dataclass(frozen=True)
class RunOptions:
    """One run, whole."""

    gadgets: tuple[GadgetRun, ...]
    selection: Selection = field(default_factory=Selection)
    kube: KubeOptions = field(default_factory=KubeOptions)
    agent: AgentOptions = field(default_factory=AgentOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    local: bool | None = None
    """True: this machine. False: the cluster. None: the cluster when there is a kubeconfig, else this machine"""
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
    buffer_bytes: int = 256 << 20
    """undecoded batches that the client may hold, in all"""
    strict: bool = False
    verbose: bool = False
    quiet: bool = False
    """no progress and no summary on stderr"""
