"""The flags that commands share, in sets: each field is one flag, with its reader from cli/values/.

A command takes whole sets as parameters (framework/binding.py). None means that a flag was not given, so that a flag
before the sub-command and one after it can be distinguished and the last one wins. The trap: a field's name is also the
parameter's name in every command, so no two sets may use the same name.
"""

from dataclasses import dataclass
from typing import Annotated

from kubectl_gadget.agents.image import DEFAULT_IMAGE
from kubectl_gadget.cli.flags.flag_declaration import (
    CLUSTER,
    ENGINE,
    SHOW,
    WHERE,
    Count,
    FlagSet,
    Names,
    Seconds,
    Switch,
    Text,
    Texts,
    TypedOnly,
    flag,
    format_flag,
)
from kubectl_gadget.cli.values import amounts, object_names, word_lists
from kubectl_gadget.kube.cluster_options import AgentOptions, KubeOptions
from kubectl_gadget.output.registry import ROWS

Verbose = Annotated[Switch, flag(ENGINE, "--verbose, -v", "More details on standard error: programs, nodes, pods")]
OnlyWarnings = Annotated[Switch, flag(ENGINE, "--quiet, -q", "No progress on standard error, only warnings")]
"""For runs that print no summary."""
RecordFile = Annotated[Text, flag(SHOW, "--record FILE", "Record events in this file, for kubectl gadget replay")]
"""For runs that show no rows."""


@dataclass(frozen=True)
class ScopeFlags(FlagSet):
    """kubectl's flags that select objects; they work before and after every sub-command."""

    namespace: Annotated[
        Text,
        flag(WHERE, "--namespace, -n NAME", "Pods of this namespace (default: the context's)"),
        object_names.namespace,
    ] = None
    all_namespaces: Annotated[Switch, flag(WHERE, "--all-namespaces, -A", "Pods of all namespaces")] = None
    selector: Annotated[
        Text,
        flag(WHERE, "--selector, -l LABELS", "Pods with these labels: app=web,tier!=db"),
        object_names.label_selector,
    ] = None


@dataclass(frozen=True)
class TargetFlags(FlagSet):
    """Flags that select what a gadget traces, in addition to ScopeFlags."""

    containers: Annotated[Names, flag(WHERE, "--container, -c NAME", "Containers with this name; can be repeated")] = (
        None
    )
    nodes: Annotated[Texts, flag(WHERE, "--node NAME", "Only these nodes: --node a,b"), object_names.node_names] = None
    host: Annotated[Switch, flag(WHERE, "--host", "Also processes of the nodes themselves")] = None
    own_processes: Annotated[
        Switch,
        flag(ENGINE, "--own-processes", "Also processes of kubectl gadget itself, which --host and -A leave out"),
        TypedOnly.SELECTION,
    ] = None
    local: Annotated[Switch, flag(WHERE, "--local", "This machine; the default without a kubeconfig")] = None


@dataclass(frozen=True)
class OutputFlags(FlagSet):
    """Flags for what is printed, and until when."""

    output: Annotated[Text, format_flag(ROWS, ROWS.help, default=ROWS.default)] = None
    columns: Annotated[Names, flag(SHOW, "--columns NAMES", "Show these columns, in this order: pod,comm,…")] = None
    filter: Annotated[
        Text, flag(SHOW, "--filter EXPR", "Only rows for which this CEL expression is true"), TypedOnly.SELECTION
    ] = None
    timeout: Annotated[Seconds, flag(SHOW, "--timeout TIME", "Stop after tracing for this time: 30s, 5m, 1h30m")] = None
    max_events: Annotated[Count, flag(SHOW, "--max-events N", "Stop after this many rows"), TypedOnly.END] = None
    fail_on: Annotated[
        Text, flag(SHOW, "--fail-on EXPR", "Stop at the first row that matches, with exit code 4"), TypedOnly.END
    ] = None
    expect: Annotated[
        Text, flag(SHOW, "--expect EXPR", "Exit code 4 if no row has matched by the end"), TypedOnly.END
    ] = None
    record: Annotated[
        Text,
        flag(
            ENGINE,
            "--record FILE",
            "Record events in this file, or at s3://, gs:// or az://, for kubectl gadget replay",
        ),
    ] = None
    strict: Annotated[
        Switch, flag(ENGINE, "--strict", "Exit code 1 if anything may be missing: events, nodes, pods")
    ] = None
    quiet: Annotated[Switch, flag(ENGINE, "--quiet, -q", "No progress and no summary on standard error")] = None
    no_headers: Annotated[Switch, flag(ENGINE, "--no-headers/--headers", "No header line")] = None
    color: Annotated[
        Text,
        flag(
            ENGINE,
            "--color WHEN",
            "auto (respects NO_COLOR), always or never",
            choices=word_lists.COLORS,
            default="auto",
        ),
    ] = None
    verbose: Verbose = None


NoHeaders = Annotated[Switch, flag(SHOW, "--no-headers/--headers", "No header line")]
"""For commands that print a table but are not runs."""


@dataclass(frozen=True)
class EngineFlags(FlagSet):
    """Internal settings of a run; the defaults are right for nearly everybody."""

    no_sort: Annotated[Switch, flag(ENGINE, "--no-sort", "Print rows as they arrive, not sorted by time")] = None
    sort_wait: Annotated[
        float | None,
        flag(ENGINE, "--sort-wait TIME", "How long a row waits for earlier ones (default: 200ms)"),
        amounts.duration,
    ] = None
    ring_bytes: Annotated[
        int | None,
        flag(ENGINE, "--ring-size SIZE", "Ring buffer on each node, a power of two (default: 4Mi)"),
        amounts.ring_size,
    ] = None
    map_entries: Annotated[
        int | None,
        flag(ENGINE, "--map-entries N", "Entries of each gadget's BPF maps for operations in progress, on each node"),
        amounts.map_entries,
    ] = None
    buffer_bytes: Annotated[
        int | None,
        flag(ENGINE, "--buffer-size SIZE", "Memory for events that the client has not decoded yet (default: 256Mi)"),
        amounts.buffer_size,
    ] = None


@dataclass(frozen=True)
class ImageFlags(FlagSet):
    """Flags for the source of the agent's image."""

    image: Annotated[
        Text, flag(ENGINE, "--image IMAGE", "Image of the agents: any with Python 3.11 or newer", default=DEFAULT_IMAGE)
    ] = None
    image_mirror: Annotated[
        Text,
        flag(
            ENGINE,
            "--image-mirror REGISTRY",
            "Registry, or path in one, to use instead of the image's: registry.example/ghcr",
        ),
        object_names.registry,
    ] = None
    image_pull_secret: Annotated[
        Text, flag(ENGINE, "--image-pull-secret NAME", "Secret in the agents' namespace for pulling the image")
    ] = None
    image_pull_policy: Annotated[
        Text,
        flag(ENGINE, "--image-pull-policy POLICY", "Always, IfNotPresent or Never", choices=word_lists.PULL_POLICIES),
    ] = None
    privileged: Annotated[
        Switch, flag(ENGINE, "--privileged", "Run agents as privileged pods, for nodes that need it"), TypedOnly.RIGHTS
    ] = None


@dataclass(frozen=True)
class StartFlags(FlagSet):
    """Flags for how long agents may take to start."""

    start_timeout: Annotated[
        Seconds, flag(ENGINE, "--start-timeout TIME", "How long to wait until all nodes are traced (default: 1m)")
    ] = None


@dataclass(frozen=True)
class ClusterFlags(FlagSet):
    """Flags for reaching the cluster: kubectl's own flags, under kubectl's names."""

    kubeconfig: Annotated[Text, flag(CLUSTER, "--kubeconfig FILE", "The kubeconfig file")] = None
    context: Annotated[Text, flag(CLUSTER, "--context NAME", "Context of the kubeconfig")] = None
    cluster: Annotated[Text, flag(CLUSTER, "--cluster NAME", "Cluster of the kubeconfig")] = None
    user: Annotated[Text, flag(CLUSTER, "--user NAME", "User of the kubeconfig")] = None
    server: Annotated[Text, flag(CLUSTER, "--server, -s URL", "Address of the API server")] = None
    token: Annotated[Text, flag(CLUSTER, "--token TOKEN", "Bearer token for the API server")] = None
    as_user: Annotated[Text, flag(CLUSTER, "--as USER", "Impersonate this user")] = None
    as_groups: Annotated[Texts, flag(CLUSTER, "--as-group GROUP", "Impersonate this group; can be repeated")] = None
    request_timeout: Annotated[
        float | None,
        flag(CLUSTER, "--request-timeout TIME", "Limit for each API request, not for streams; 0: no limit"),
        amounts.duration_or_none,
    ] = None
    certificate_authority: Annotated[
        Text, flag(CLUSTER, "--certificate-authority FILE", "Certificate of the cluster's certificate authority")
    ] = None
    client_certificate: Annotated[Text, flag(CLUSTER, "--client-certificate FILE", "Client certificate for TLS")] = None
    client_key: Annotated[Text, flag(CLUSTER, "--client-key FILE", "Key of the client certificate")] = None
    insecure_skip_tls_verify: Annotated[
        Switch, flag(CLUSTER, "--insecure-skip-tls-verify", "Do not check the server's certificate")
    ] = None
    tls_server_name: Annotated[
        Text, flag(CLUSTER, "--tls-server-name NAME", "Name to expect in the server's certificate")
    ] = None

    agent_namespace: Annotated[
        Text,
        flag(ENGINE, "--agent-namespace NAME", "Namespace of the agents", default=AgentOptions.namespace),
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
