"""The flags that commands share, in sets: each field is one flag, with its reader from cli/values/.

A command takes whole sets as parameters (framework/binding.py). None means that a flag was not given, so that a flag
before the sub-command and one after it can be distinguished and the last one wins. The trap: a field's name is also the
parameter's name in every command, so no two sets may use the same name.
"""

from dataclasses import dataclass
from typing import Annotated

from kubectl_gadget.cli.flags.declaration import CLUSTER, ENGINE, SHOW, WHERE, FlagSet, TypedOnly, flag, format_flag
from kubectl_gadget.cli.values import amounts, object_names, word_lists
from kubectl_gadget.cluster.agents.image import DEFAULT_IMAGE
from kubectl_gadget.cluster.cluster_options import AgentOptions, KubeOptions
from kubectl_gadget.output.registry import ROWS

Verbose = Annotated[
    bool | None, flag(ENGINE, "--verbose", "-v", help="More details on standard error: programs, nodes, pods")
]
OnlyWarnings = Annotated[
    bool | None, flag(ENGINE, "--quiet", "-q", help="No progress on standard error, only warnings")
]
"""For runs that print no summary."""
RecordFile = Annotated[
    str | None,
    flag(SHOW, "--record", metavar="FILE", help="Record events in this file, for kubectl gadget replay"),
    TypedOnly.FILES,
]
"""For runs that show no rows."""


@dataclass(frozen=True)
class ScopeFlags(FlagSet):
    """kubectl's flags that select objects; they work before and after every sub-command."""

    namespace: Annotated[
        str | None,
        flag(WHERE, "--namespace", "-n", metavar="NAME", help="Pods of this namespace (default: the context's)"),
        object_names.namespace,
    ] = None
    all_namespaces: Annotated[bool | None, flag(WHERE, "--all-namespaces", "-A", help="Pods of all namespaces")] = None
    selector: Annotated[
        str | None,
        flag(WHERE, "--selector", "-l", metavar="LABELS", help="Pods with these labels: app=web,tier!=db"),
        object_names.label_selector,
    ] = None


@dataclass(frozen=True)
class TargetFlags(FlagSet):
    """Flags that select what a gadget traces, in addition to ScopeFlags."""

    containers: Annotated[
        tuple[str, ...] | None,
        flag(WHERE, "--container", "-c", metavar="NAME", help="Containers with this name; can be repeated"),
        word_lists.commas,
    ] = None
    nodes: Annotated[
        tuple[str, ...] | None,
        flag(WHERE, "--node", metavar="NAME", help="Only these nodes: --node a,b"),
        object_names.node_names,
    ] = None
    host: Annotated[bool | None, flag(WHERE, "--host", help="Also processes of the nodes themselves")] = None
    own_processes: Annotated[
        bool | None,
        flag(ENGINE, "--own-processes", help="Also processes of kubectl gadget itself, which --host and -A leave out"),
        TypedOnly.SELECTION,
    ] = None
    local: Annotated[bool | None, flag(WHERE, "--local", help="This machine; the default without a kubeconfig")] = None


@dataclass(frozen=True)
class OutputFlags(FlagSet):
    """Flags for what is printed, and until when."""

    output: Annotated[str | None, format_flag(ROWS, ROWS.help, default=ROWS.default), word_lists.format_of(ROWS)] = None
    columns: Annotated[
        tuple[str, ...] | None,
        flag(SHOW, "--columns", metavar="NAMES", help="Show these columns, in this order: pod,comm,…"),
        word_lists.commas,
    ] = None
    filter: Annotated[
        str | None,
        flag(SHOW, "--filter", metavar="EXPR", help="Only rows for which this CEL expression is true"),
        TypedOnly.SELECTION,
    ] = None
    timeout: Annotated[
        float | None,
        flag(SHOW, "--timeout", metavar="TIME", help="Stop after this time: 30s, 5m, 1h30m"),
        amounts.duration_above_zero,
    ] = None
    max_events: Annotated[
        int | None,
        flag(SHOW, "--max-events", metavar="N", help="Stop after this many rows"),
        amounts.count,
        TypedOnly.END,
    ] = None
    fail_on: Annotated[
        str | None,
        flag(SHOW, "--fail-on", metavar="EXPR", help="Stop at the first row that matches, with exit code 4"),
        TypedOnly.END,
    ] = None
    expect: Annotated[
        str | None,
        flag(SHOW, "--expect", metavar="EXPR", help="Exit code 4 if no row matched until the end"),
        TypedOnly.END,
    ] = None
    record: Annotated[
        str | None,
        flag(
            ENGINE,
            "--record",
            metavar="FILE",
            help="Record events in this file, or at s3://, gs:// or az://, for kubectl gadget replay",
        ),
        TypedOnly.FILES,
    ] = None
    strict: Annotated[
        bool | None, flag(ENGINE, "--strict", help="Exit code 1 if events were lost or a node failed")
    ] = None
    quiet: Annotated[
        bool | None, flag(ENGINE, "--quiet", "-q", help="No progress and no summary on standard error")
    ] = None
    no_headers: Annotated[bool | None, flag(ENGINE, "--no-headers/--headers", help="No header line")] = None
    color: Annotated[
        str | None,
        flag(
            ENGINE,
            "--color",
            metavar="WHEN",
            help="auto (respects NO_COLOR), always or never",
            choices=word_lists.COLORS,
            default="auto",
        ),
        word_lists.one_of(*word_lists.COLORS),
    ] = None
    verbose: Verbose = None


NoHeaders = Annotated[bool | None, flag(SHOW, "--no-headers/--headers", help="No header line")]
"""For commands that print a table but are not runs."""


@dataclass(frozen=True)
class EngineFlags(FlagSet):
    """Internal settings of a run; the defaults are right for nearly everybody."""

    no_sort: Annotated[bool | None, flag(ENGINE, "--no-sort", help="Print rows as they arrive, not sorted by time")] = (
        None
    )
    sort_wait: Annotated[
        float | None,
        flag(ENGINE, "--sort-wait", metavar="TIME", help="How long a row waits for earlier ones (default: 200ms)"),
        amounts.duration,
    ] = None
    ring_bytes: Annotated[
        int | None,
        flag(ENGINE, "--ring-size", metavar="SIZE", help="Ring buffer on each node, a power of two (default: 4Mi)"),
        amounts.ring_size,
    ] = None
    map_entries: Annotated[
        int | None,
        flag(
            ENGINE,
            "--map-entries",
            metavar="N",
            help="Entries of each gadget's BPF maps for operations in progress, on each node",
        ),
        amounts.map_entries,
    ] = None
    buffer_bytes: Annotated[
        int | None,
        flag(
            ENGINE,
            "--buffer-size",
            metavar="SIZE",
            help="Memory for events that the client has not decoded yet (default: 256Mi)",
        ),
        amounts.buffer_size,
    ] = None


@dataclass(frozen=True)
class ImageFlags(FlagSet):
    """Flags for the source of the agent's image."""

    image: Annotated[
        str | None,
        flag(
            ENGINE,
            "--image",
            metavar="IMAGE",
            help="Image of the agents: any with Python 3.11 or newer",
            default=DEFAULT_IMAGE,
        ),
    ] = None
    image_mirror: Annotated[
        str | None,
        flag(
            ENGINE,
            "--image-mirror",
            metavar="REGISTRY",
            help="Registry, or path in one, to use instead of the image's: registry.example/ghcr",
        ),
        object_names.registry,
    ] = None
    image_pull_secret: Annotated[
        str | None,
        flag(
            ENGINE, "--image-pull-secret", metavar="NAME", help="Secret in the agents' namespace for pulling the image"
        ),
    ] = None
    image_pull_policy: Annotated[
        str | None,
        flag(
            ENGINE,
            "--image-pull-policy",
            metavar="POLICY",
            help="Always, IfNotPresent or Never",
            choices=word_lists.PULL_POLICIES,
        ),
        word_lists.one_of(*word_lists.PULL_POLICIES),
    ] = None
    privileged: Annotated[
        bool | None,
        flag(ENGINE, "--privileged", help="Run agents as privileged pods, for nodes that need it"),
        TypedOnly.RIGHTS,
    ] = None


@dataclass(frozen=True)
class StartFlags(FlagSet):
    """Flags for how long agents may take to start."""

    start_timeout: Annotated[
        float | None,
        flag(ENGINE, "--start-timeout", metavar="TIME", help="How long to wait for agents to start (default: 1m)"),
        amounts.duration_above_zero,
    ] = None


@dataclass(frozen=True)
class ClusterFlags(FlagSet):
    """Flags for reaching the cluster: kubectl's own flags, under kubectl's names."""

    kubeconfig: Annotated[str | None, flag(CLUSTER, "--kubeconfig", metavar="FILE", help="The kubeconfig file")] = None
    context: Annotated[str | None, flag(CLUSTER, "--context", metavar="NAME", help="Context of the kubeconfig")] = None
    cluster: Annotated[str | None, flag(CLUSTER, "--cluster", metavar="NAME", help="Cluster of the kubeconfig")] = None
    user: Annotated[str | None, flag(CLUSTER, "--user", metavar="NAME", help="User of the kubeconfig")] = None
    server: Annotated[str | None, flag(CLUSTER, "--server", "-s", metavar="URL", help="Address of the API server")] = (
        None
    )
    token: Annotated[str | None, flag(CLUSTER, "--token", metavar="TOKEN", help="Bearer token for the API server")] = (
        None
    )
    as_user: Annotated[str | None, flag(CLUSTER, "--as", metavar="USER", help="Impersonate this user")] = None
    as_groups: Annotated[
        tuple[str, ...] | None,
        flag(CLUSTER, "--as-group", metavar="GROUP", help="Impersonate this group; can be repeated"),
    ] = None
    request_timeout: Annotated[
        float | None,
        flag(
            CLUSTER,
            "--request-timeout",
            metavar="TIME",
            help="Limit for each API request, not for streams; 0: no limit",
        ),
        amounts.duration_or_none,
    ] = None
    certificate_authority: Annotated[
        str | None,
        flag(
            CLUSTER,
            "--certificate-authority",
            metavar="FILE",
            help="Certificate of the cluster's certificate authority",
        ),
    ] = None
    client_certificate: Annotated[
        str | None, flag(CLUSTER, "--client-certificate", metavar="FILE", help="Client certificate for TLS")
    ] = None
    client_key: Annotated[
        str | None, flag(CLUSTER, "--client-key", metavar="FILE", help="Key of the client certificate")
    ] = None
    insecure_skip_tls_verify: Annotated[
        bool | None, flag(CLUSTER, "--insecure-skip-tls-verify", help="Do not check the server's certificate")
    ] = None
    tls_server_name: Annotated[
        str | None,
        flag(CLUSTER, "--tls-server-name", metavar="NAME", help="Name to expect in the server's certificate"),
    ] = None

    agent_namespace: Annotated[
        str | None,
        flag(
            ENGINE,
            "--agent-namespace",
            metavar="NAME",
            help="Namespace of the agents",
            default=AgentOptions.namespace,
        ),
        object_names.namespace,
    ] = None

    def options(self) -> KubeOptions:
        """The values as the cluster package takes them."""
        given = {name: value for name, value in vars(self).items() if value is not None and name != "agent_namespace"}
        return KubeOptions(**given)

    def agents(self, image: ImageFlags | None = None, start: StartFlags | None = None) -> AgentOptions:
        """Options for agents in their namespace; None keeps a default."""
        given = {**vars(image or ImageFlags()), **vars(start or StartFlags()), "namespace": self.agent_namespace}
        return AgentOptions(**{name: value for name, value in given.items() if value is not None})
