"""Flags: how one is declared, and the sets of them that commands share.

    max_events: Annotated[int | None, flag(SHOW, "--max-events N", "Stop after …"), values.count, TypedOnly.END] = None

A flag is typer's declaration, the readers of its value, and whether settings may set it. typer takes every value as
text; readers run only when the command runs, so that `--help` works even with an invalid value. A set is a dataclass,
each of whose fields is one flag; a command takes whole sets as parameters (command.py). None means that a flag was not
given, so that a flag before the sub-command and one after it can be distinguished and the last one wins.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_args, get_origin, get_type_hints

import typer

from kubectl_gadget.agents.payload import DEFAULT_IMAGE
from kubectl_gadget.cli import values
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions, KubeOptions
from kubectl_gadget.output.registry import ROWS, Formats

if TYPE_CHECKING:
    from typer.models import OptionInfo


# Declarations

WHERE = "Which containers"
SHOW = "Output"
ENGINE = "More"
CLUSTER = "Connection to the cluster, with kubectl's flags"


class TypedOnly(StrEnum):
    """Reasons why a flag can be set only on the command line, and not by settings."""

    RIGHTS = "it decides about rights or enforcement"
    SELECTION = "it selects what is traced or shown"
    ACTION = "it selects what is run or done"
    FILES = "it names files that are read or written"
    END = "it decides when a run ends or with which exit code"
    CONNECTION = "the kubeconfig holds it (kubectl config set-context)"


_TYPED_ONLY_PANELS = {WHERE: TypedOnly.SELECTION, CLUSTER: TypedOnly.CONNECTION}
_OF_FILES = ("FILE", "DIR", "FOLDER")
"""Metavars of files and directories end with one of these."""


Switch = bool | None
Text = str | None
Texts = tuple[str, ...] | None
Names = Annotated[Texts, values.commas]
Seconds = Annotated[float | None, values.duration_above_zero]
Count = Annotated[int | None, values.count]
"""Types of flags, some with their reader; None: the flag was not given."""


def flag(
    panel: str,
    shown: str,
    help: str,
    choices: Sequence[str] | Callable[[], Sequence[str]] = (),
    default: str = "",
    reader: Callable[[str], str] | None = None,
) -> "OptionInfo":
    """Declares a flag, `shown` as in help: "--selector, -l LABELS". Without a name for its value it is a switch, which
    --no-… turns off. `choices`, or a function that returns them, are the candidates for completion, and without another
    reader the only values; `default` is what `config view` shows if the help does not mention it."""
    names, _, metavar = shown.replace(", ", ",").partition(" ")

    def offered(incomplete: str) -> list[str]:
        known = choices() if callable(choices) else choices
        return [choice for choice in known if choice.startswith(incomplete)]

    option: OptionInfo = typer.Option(
        *(names.split(",") if metavar else map(_with_negative, names.split(","))),
        metavar=metavar or None,
        help=help,
        rich_help_panel=panel,
        autocompletion=offered if choices else None,
        show_default=default or False,
        parser=reader or (None if callable(choices) or not choices else values.one_of(*choices)),
    )
    return option


def _with_negative(switch: str) -> str:
    """`--host/--no-host` for --host; -h, --no-sort and pairs are as they are."""
    is_positive = switch.startswith("--") and not switch.startswith("--no-") and "/" not in switch
    return f"{switch}/--no-{switch[2:]}" if is_positive else switch


def format_flag(formats: Formats, help: str = "", default: str = "") -> "OptionInfo":
    """Declares -o for commands with these formats."""
    reader = values.format_of(formats)
    return flag(SHOW, "--output, -o FORMAT", help or formats.words, formats.choices, default, reader)


class Flag(NamedTuple):
    """One flag of a command."""

    name: str
    """the name of the parameter or field"""
    hint: object
    """its Annotated type"""
    in_set: bool = False
    """True if it is a field of a FlagSet"""

    @property
    def option(self) -> "OptionInfo":
        return declared(self.hint)

    @property
    def spellings(self) -> list[str]:
        """`--host`, `--no-host`; the first long one is its name in settings."""
        return [
            text for part in (str(self.option.default), *(self.option.param_decls or ())) for text in part.split("/")
        ]

    @property
    def key(self) -> str:
        """Its name in settings: the long spelling without the dashes."""
        return next(text for text in self.spellings if text.startswith("--"))[2:]

    @property
    def is_switch(self) -> bool:
        return self.option.metavar is None

    @property
    def repeats(self) -> bool:
        """True if it may be given more than once."""
        return repeats(self.hint)

    @property
    def typed_only(self) -> str | None:
        """The reason why it can be set only on the command line; None: settings can set it."""
        declared = [item for item in get_args(self.hint) if isinstance(item, TypedOnly)]
        names_files = TypedOnly.FILES if (self.option.metavar or "").endswith(_OF_FILES) else None
        return declared[0] if declared else _TYPED_ONLY_PANELS.get(str(self.option.rich_help_panel), names_files)


class FlagSet:
    """Base class of flag sets. A value from the environment or the configuration file is a default: if it does not fit
    the command, it is ignored and not an error."""

    __slots__ = ("_presets",)

    def remember_presets(self, names: Iterable[str]) -> None:
        """Remembers which fields were not typed."""
        object.__setattr__(self, "_presets", frozenset(names))

    def typed(self) -> dict[str, object]:
        """The flags that were given on the command line, by field."""
        presets: frozenset[str] = getattr(self, "_presets", frozenset())
        return {name: value for name, value in vars(self).items() if value is not None and name not in presets}


def read_value(hint: object, value: object, spelling: str) -> object:
    """Applies the readers of `hint` to a value that was given as `spelling`: without any, a list becomes a tuple, and a
    text must not be blank. Raises UsageError."""
    readers = [item for item in get_args(hint)[1:] if callable(item)]
    place = [spelling] * bool(spelling)
    if not readers and (usual := declared(hint).parser) is not None:
        readers = [usual]
    if not readers and not isinstance(value, bool):
        readers = [tuple if isinstance(value, list) else values.some_text]
    for reader in readers:
        try:
            value = reader(value)
        except ValueError as error:
            what = " ".join(place + [repr(value)] * isinstance(value, str))
            raise UsageError(": ".join([what] * bool(what) + [str(error)])) from None
        except UsageError as error:
            raise UsageError(": ".join([*place, str(error)]), error.remedy) from None
    return value


def passed_on(words: Sequence[str]) -> tuple[str, ...]:
    """The reader of an argument whose words after the first, flags included, are for another program."""
    return tuple(words)


def declared(hint: object) -> "OptionInfo":
    """typer's declaration of a flag or an argument."""
    found: OptionInfo = next(item for item in get_args(hint) if hasattr(item, "rich_help_panel"))
    return found


def repeats(hint: object) -> bool:
    """True if a flag or an argument may be given more than once."""
    return any(get_origin(item) in (tuple, list) for item in (hint, *get_args(hint), *get_args(get_args(hint)[0])))


def spelling(kind: type, name: str) -> str:
    """The long spelling of the flag in field `name` of the set `kind`."""
    return Flag(name, get_type_hints(kind, include_extras=True)[name]).spellings[0]


# Sets. A field's name is also the parameter's name in every command, so no two sets use the same name

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
        values.namespace,
    ] = None
    all_namespaces: Annotated[Switch, flag(WHERE, "--all-namespaces, -A", "Pods of all namespaces")] = None
    selector: Annotated[
        Text,
        flag(WHERE, "--selector, -l LABELS", "Pods with these labels: app=web,tier!=db"),
        values.label_selector,
    ] = None


@dataclass(frozen=True)
class TargetFlags(FlagSet):
    """Flags that select what a gadget traces, in addition to ScopeFlags."""

    containers: Annotated[Names, flag(WHERE, "--container, -c NAME", "Containers with this name; can be repeated")] = (
        None
    )
    nodes: Annotated[Texts, flag(WHERE, "--node NAME", "Only these nodes: --node a,b"), values.node_names] = None
    node_selector: Annotated[
        Text,
        flag(ENGINE, "--node-selector LABELS", "Only nodes with these labels: pool=a"),
        values.label_selector,
        TypedOnly.SELECTION,
    ] = None
    host: Annotated[Switch, flag(WHERE, "--host", "Also processes of the nodes themselves")] = None
    own_processes: Annotated[
        Switch,
        flag(ENGINE, "--own-processes", "Also processes of kubectl gadget itself, which --host and -A leave out"),
        TypedOnly.SELECTION,
    ] = None
    local: Annotated[Switch, flag(WHERE, "--local", "This machine; the default without a kubeconfig")] = None


Page = Annotated[
    Text, flag(ENGINE, "--report html=FILE", "Make a page of the run at its end: docs/report.md"), values.page_file
]


Exports = Annotated[
    Texts,
    flag(ENGINE, "--export KIND=WHERE", "Also send rows there: otlp=, prometheus=, jsonl=, syslog=: docs/export.md"),
    values.exports,
    TypedOnly.FILES,
]
ExportHeaders = Annotated[
    Texts,
    flag(ENGINE, "--export-header NAME=VALUE", "Header of requests to an OTLP collector; @FILE: those in a file"),
    values.export_headers,
    TypedOnly.FILES,
]
ExportTls = Annotated[
    Text,
    flag(ENGINE, "--export-tls FILES", "For an export by TLS: ca=FILE,cert=FILE,key=FILE"),
    values.export_tls,
    TypedOnly.FILES,
]


Browser = Annotated[
    Text, flag(ENGINE, "--browser WHICH", "For a live page; none: only print its URL", choices=("default", "none"))
]
WebPort = Annotated[
    int | None, flag(ENGINE, "--web-port PORT", "Port of the live page (default: any free one)"), values.port
]
AllowHost = Annotated[
    Names,
    flag(ENGINE, "--allow-host HOST", "Also serve the live page to a proxy with the address HOST or HOST:PORT"),
    values.hosts,
    TypedOnly.RIGHTS,
]


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
    report: Page = None
    ui: Annotated[Switch, flag(ENGINE, "--ui", "Show the run as a live page in a browser: docs/report.md")] = None
    browser: Browser = None
    web_port: WebPort = None
    allow_host: AllowHost = None
    exports: Exports = None
    export_headers: ExportHeaders = None
    export_tls: ExportTls = None
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
    no_names: Annotated[
        Switch, flag(ENGINE, "--no-names/--names", "Addresses only, without names of pods and services")
    ] = None
    no_headers: Annotated[Switch, flag(ENGINE, "--no-headers/--headers", "No header line")] = None
    color: Annotated[
        Text,
        flag(
            ENGINE,
            "--color WHEN",
            "auto (respects NO_COLOR), always or never",
            choices=values.COLORS,
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
        flag(ENGINE, "--sort-wait TIME", "How long a row waits for earlier ones; later ones get a * (default: 200ms)"),
        values.duration,
    ] = None
    ring_bytes: Annotated[
        int | None,
        flag(ENGINE, "--ring-size SIZE", "Ring buffer on each node, a power of two (default: 4Mi)"),
        values.ring_size,
    ] = None
    map_entries: Annotated[
        int | None,
        flag(ENGINE, "--map-entries N", "Entries of each gadget's BPF maps for operations in progress, on each node"),
        values.map_entries,
    ] = None
    buffer_bytes: Annotated[
        int | None,
        flag(ENGINE, "--buffer-size SIZE", "Memory for events that the client has not decoded yet (default: 256Mi)"),
        values.buffer_size,
    ] = None


@dataclass(frozen=True)
class ImageFlags(FlagSet):
    """Flags for the source of the agent's image."""

    image: Annotated[
        Text, flag(ENGINE, "--image IMAGE", "Image of the agents: any with Python 3.9 or newer", default=DEFAULT_IMAGE)
    ] = None
    image_mirror: Annotated[
        Text,
        flag(
            ENGINE,
            "--image-mirror REGISTRY",
            "Registry, or path in one, to use instead of the image's: registry.example/ghcr",
        ),
        values.registry,
    ] = None
    image_pull_secret: Annotated[
        Text, flag(ENGINE, "--image-pull-secret NAME", "Secret in the agents' namespace for pulling the image")
    ] = None
    image_pull_policy: Annotated[
        Text,
        flag(ENGINE, "--image-pull-policy POLICY", "Always, IfNotPresent or Never", choices=values.PULL_POLICIES),
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
        values.duration_or_none,
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
        values.namespace,
    ] = None

    def options(self) -> KubeOptions:
        """The values as the cluster package takes them."""
        given = {name: value for name, value in vars(self).items() if value is not None and name != "agent_namespace"}
        return KubeOptions(**given)

    def agents(self, image: ImageFlags | None = None, start: StartFlags | None = None) -> AgentOptions:
        """Options for agents in their namespace; None keeps a default."""
        given = {**vars(image or ImageFlags()), **vars(start or StartFlags()), "namespace": self.agent_namespace}
        return AgentOptions(**{name: value for name, value in given.items() if value is not None})
