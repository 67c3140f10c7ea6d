"""Commands of exports for days: `export install`, `export status`, `export uninstall`."""

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_gadget.cli import values
from kubectl_gadget.cli.cluster import connect, wait_for
from kubectl_gadget.cli.flags import (
    ClusterFlags,
    FlagSet,
    NoHeaders,
    Seconds,
    Switch,
    Text,
    Texts,
    TypedOnly,
    flag,
    format_flag,
)
from kubectl_gadget.cli.printing import print_json, print_table, say
from kubectl_gadget.errors import UsageError
from kubectl_gadget.export.targets import METRICS_PORT, PURPOSES, SECRET_FOLDER
from kubectl_gadget.gadgets.load import load_index
from kubectl_gadget.output.registry import MANIFESTS, REPORTS
from kubectl_gadget.wording import age

if TYPE_CHECKING:
    from kubectl_gadget.export.installation import Installation

_WHAT, _HOW = "What is exported", "How"
_SECONDS = 180.0
Gadgets = Annotated[tuple[str, ...], typer.Argument(metavar="GADGETS")]
Names = Annotated[tuple[str, ...], typer.Argument(metavar="NAME")]
All = Annotated[Switch, flag(_HOW, "--all", "All exports of the agents' namespace"), TypedOnly.ACTION]
StatusFormat = Annotated[Text, format_flag(REPORTS)]


@dataclass(frozen=True)
class InstallationFlags(FlagSet):
    """Flags of `export install`."""

    purpose: Annotated[Text, flag(_WHAT, "--for PURPOSE", f"{', '.join(PURPOSES)}", choices=tuple(PURPOSES))] = None
    to: Annotated[
        Texts, flag(_WHAT, "--to KIND=WHERE", "As --export: otlp=, jsonl=, syslog=; can be repeated"), values.exports
    ] = None
    name: Annotated[Text, flag(_WHAT, "--name NAME", "Its name (default: that purpose)"), TypedOnly.ACTION] = None
    filter: Annotated[
        Text, flag(_WHAT, "--filter EXPR", "Only rows for which this CEL expression is true"), TypedOnly.SELECTION
    ] = None
    node_selector: Annotated[
        Text,
        flag(_WHAT, "--node-selector LABELS", "Only nodes with these labels: pool=a,zone!=b"),
        values.label_selector,
        TypedOnly.SELECTION,
    ] = None
    image: Annotated[
        Text, flag(_HOW, "--image IMAGE", "An image with kubectl-gadget[export]: docs/export.md"), TypedOnly.ACTION
    ] = None
    pull_policy: Annotated[
        Text,
        flag(
            _HOW,
            "--image-pull-policy POLICY",
            "Always, IfNotPresent or Never",
            choices=("Always", "IfNotPresent", "Never"),
        ),
    ] = None
    pull_secret: Annotated[Text, flag(_HOW, "--image-pull-secret NAME", "Secret for pulling the image")] = None
    secret: Annotated[
        Text,
        flag(_HOW, "--secret NAME", f"Secret of the agents' namespace: variables and files in {SECRET_FOLDER}"),
        TypedOnly.RIGHTS,
    ] = None
    tls: Annotated[
        Text,
        flag(_HOW, "--tls FILES", f"As --export-tls, with files of the pod: ca={SECRET_FOLDER}/ca.crt"),
        TypedOnly.FILES,
    ] = None
    pod_node_selector: Annotated[
        tuple[tuple[str, str], ...] | None,
        flag(_HOW, "--pod-node-selector LABELS", "Run the pod on a node with these labels: key=value,key=value"),
        values.node_selector,
        TypedOnly.ACTION,
    ] = None
    dry_run: Annotated[
        Text,
        flag(_HOW, "--dry-run client", "Print what would be applied, and apply nothing", choices=("client", "none")),
        values.one_of("none", "client"),
        TypedOnly.ACTION,
    ] = None
    output: Annotated[
        Text,
        flag(_HOW, "--output, -o FORMAT", "With --dry-run=client: yaml or json", choices=MANIFESTS.choices),
        values.format_of(MANIFESTS),
    ] = None
    wait: Annotated[Switch, flag(_HOW, "--wait", "Wait until the export runs (default: true)")] = None
    timeout: Annotated[Seconds, flag(_HOW, "--timeout TIME", "How long to wait (default: 3m)")] = None

    def validate(self) -> None:
        """Raises UsageError."""
        if not self.to:
            raise UsageError("--to says where rows are sent, and is missing", "--to otlp=http://collector:4318")
        if not self.image:
            raise UsageError(
                "--image is missing: an image with Python, kubectl-gadget[export] and sh", "docs/export.md has one"
            )
        if self.output and self.dry_run != "client":
            raise UsageError(f"-o {self.output} is only for --dry-run=client", f"--dry-run=client -o {self.output}")
        for one in self.to:
            if one.startswith("prometheus") or (one.startswith("jsonl=") and "://" not in one):
                raise UsageError(
                    f"--to {one} is not for a pod: it serves its metrics at port {METRICS_PORT} in any case, "
                    "and keeps no files"
                )


def install(flags: InstallationFlags, cluster: ClusterFlags, gadgets: Gadgets = ()) -> int:
    """Applies the manifests, or prints them."""
    import yaml

    from kubectl_gadget.export import installation
    from kubectl_gadget.yaml_files import safe_dumper

    flags.validate()
    wanted = _wanted(flags, cluster, gadgets)
    if flags.dry_run == "client":
        found = installation.objects(wanted)
        if flags.output == "json":
            print_json({"apiVersion": "v1", "kind": "List", "items": found})
        else:
            sys.stdout.write(yaml.dump_all(found, Dumper=safe_dumper(), sort_keys=False, explicit_start=True))
        return 0
    seconds = None if flags.wait is False else flags.timeout or _SECONDS
    wait_for(installation.install(connect(cluster), wanted, say, seconds))
    return 0


def _wanted(flags: InstallationFlags, cluster: ClusterFlags, gadgets: tuple[str, ...]) -> "Installation":
    from kubectl_gadget.export.installation import Installation

    if bool(gadgets) == bool(flags.purpose):
        what = "GADGETS and --for cannot be used together" if gadgets else "nothing was chosen to export"
        raise UsageError(what, "kubectl gadget export install --for security, or export install exec+tcp")
    if len(gadgets) > 1:
        raise UsageError(f"{' '.join(gadgets)!r}: several gadgets are joined by +", "+".join(gadgets))
    chosen = gadgets[0] if gadgets else PURPOSES[str(flags.purpose)]
    known = {entry.command[-1] for entry in load_index() if entry.command[0] == "trace"}
    if unknown := [name for name in chosen.split("+") if name not in known]:
        raise UsageError(f"trace has no gadget {', '.join(unknown)}", "kubectl gadget list trace")
    more = [*(("--filter", flags.filter) if flags.filter else ()), *(("--export-tls", flags.tls) if flags.tls else ())]
    wanted = Installation(
        flags.name or flags.purpose or "export",
        chosen,
        tuple(flags.to or ()),
        str(flags.image),
        cluster.agents().namespace,
        tuple(more),
        flags.secret,
        flags.pull_policy,
        flags.pull_secret,
        flags.node_selector,
        dict(flags.pod_node_selector or ()),
    )
    wanted.validate()
    return wanted


def status(cluster: ClusterFlags, output: StatusFormat = None, no_headers: NoHeaders = None) -> int:
    """Shows the exports of the cluster."""
    from kubectl_gadget.export import installation

    found = wait_for(installation.installed(connect(cluster)))
    if output == "json":
        print_json([asdict(one) for one in found])
        return 0
    rows = [
        (
            one.name,
            one.namespace,
            "yes" if one.is_ready else "no",
            str(one.restarts),
            one.gadgets,
            ",".join(one.to),
            age(one.age_seconds),
        )
        for one in found
    ]
    if rows:
        print_table(("NAME", "NAMESPACE", "READY", "RESTARTS", "GADGETS", "TO", "AGE"), rows, not no_headers)
        sys.stdout.flush()
    else:
        say("no exports are installed; try: kubectl gadget export install --help")
    for one in found:
        if one.problem:
            say(f"{one.name}: {one.problem}")
    return 0


def uninstall(cluster: ClusterFlags, names: Names = (), all: All = None) -> int:
    """Removes exports."""
    from kubectl_gadget.export import installation

    if bool(names) == bool(all):
        what = "--all and names cannot be used together" if names else "no export was given"
        raise UsageError(what, "kubectl gadget export uninstall NAME, or --all")
    wait_for(installation.uninstall(connect(cluster), names, cluster.agents().namespace, say))
    return 0
