"""Which cluster, as whom: kubectl's flags, $KUBECONFIG and the files it names, or the pod we run in.

The kubernetes library's loader would cost 0.15 s more of the second that a run has to attach, only logs the failure of
a credential plugin, and knows neither --as nor --cluster, --user and --server; so the files are read here. The trap:
paths in a kubeconfig are relative to the file that names them, and of several files the first to name something wins.
"""

import base64
import binascii
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubectl_gadget.cluster.credentials import Credentials, ExecPlugin
from kubectl_gadget.cluster.options import KubeOptions
from kubectl_gadget.errors import ClusterError, UsageError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Cluster:
    """One API server and who we are to it."""

    server: str
    """URL, without a slash at its end"""
    namespace: str = "default"
    """the context's default"""
    context: str | None = None
    credentials: Credentials = field(default_factory=Credentials)
    certificate_authority: str | None = None
    """PEM; None: the system's"""
    insecure: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None
    """from the kubeconfig; None: as the environment says"""
    impersonate: tuple[tuple[str, str], ...] = ()
    """headers, in order; a name may occur more than once"""
    request_timeout: float | None = None
    """seconds, per API call"""


def has_kubeconfig(options: KubeOptions) -> bool:
    """Whether a cluster was named, or can be found. Reads no file."""
    return bool(options.kubeconfig or options.server) or bool(_existing_files()) or _in_cluster()


def load(options: KubeOptions) -> Cluster:
    """The cluster that kubectl would use with the same flags. Connects to nothing. Raises ClusterError, UsageError."""
    files = _files(options)
    if not files and not options.server:
        if _in_cluster():
            return _from_pod(options)
        raise ClusterError(
            "no kubeconfig was found", "set KUBECONFIG or --kubeconfig, or trace this machine with --local"
        )
    config = _Config([_File(path) for path in files])
    name = options.context or config.current_context
    if name is None and options.server is None and options.cluster is None:
        known = ", ".join(config.names("contexts")) or "none"
        raise ClusterError(
            f"no context is selected in {_listed(files)}", f"kubectl config use-context NAME (there are: {known})"
        )
    context = config.entry("contexts", name, "context").values if name else {}
    cluster = _optional(config, "clusters", options.cluster or context.get("cluster"), "cluster")
    user = _optional(config, "users", options.user or context.get("user"), "user")
    server = options.server or cluster.values.get("server")
    if not server:
        raise ClusterError(f"the cluster of context {name!r} has no server", f"look at {_listed(files)}")
    return Cluster(
        server=_with_scheme(str(server)),
        namespace=str(context.get("namespace") or "default"),
        context=name,
        credentials=_credentials(options, user, cluster, str(server)),
        certificate_authority=_authority(options, cluster),
        insecure=options.insecure_skip_tls_verify or bool(cluster.values.get("insecure-skip-tls-verify")),
        tls_server_name=options.tls_server_name or cluster.values.get("tls-server-name"),
        proxy_url=cluster.values.get("proxy-url"),
        impersonate=tuple(_impersonation(options, user.values)),
        request_timeout=options.request_timeout,
    )


class _File:
    """One kubeconfig. Raises ClusterError when it cannot be read or is none."""

    def __init__(self, path: Path) -> None:
        import yaml

        self.path = path
        try:
            content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except OSError as error:
            raise ClusterError(f"the kubeconfig {path} cannot be read: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise ClusterError(f"the kubeconfig {path} is not valid YAML: {' '.join(str(error).split())}") from None
        if content is not None and not isinstance(content, dict):
            raise ClusterError(f"the kubeconfig {path} is not a mapping")
        self.content: dict[str, Any] = content or {}


@dataclass(frozen=True)
class _Entry:
    """A cluster, user or context, and where it stands."""

    values: dict[str, Any]
    directory: Path

    def data(self, key: str) -> str | None:
        """The text of KEY-data (base64) or of the file that KEY names; None when neither is there."""
        encoded = self.values.get(f"{key}-data")
        if encoded:
            try:
                return base64.b64decode(encoded).decode()
            except (binascii.Error, ValueError):
                raise ClusterError(f"{key}-data in the kubeconfig in {self.directory} is not base64") from None
        if name := self.values.get(key):
            return read_text(self.directory / os.path.expanduser(str(name)), key)
        return None


class _Config:
    """Several kubeconfigs as one: the first file to name something wins, as with kubectl."""

    def __init__(self, files: list[_File]) -> None:
        self._files = files
        currents = (file.content.get("current-context") for file in files)
        self.current_context: str | None = next((str(value) for value in currents if value), None)

    def _all(self, kind: str) -> Iterator[tuple[str, dict[str, Any], Path]]:
        for file in self._files:
            for item in file.content.get(kind) or []:
                if not isinstance(item, dict) or "name" not in item:
                    raise ClusterError(f"an entry of {kind!r} in the kubeconfig {file.path} has no name")
                yield str(item["name"]), item, file.path.parent

    def names(self, kind: str) -> list[str]:
        return list(dict.fromkeys(name for name, _, _ in self._all(kind)))

    def entry(self, kind: str, name: str, member: str) -> _Entry:
        for candidate, item, directory in self._all(kind):
            if candidate == name:
                return _Entry(item.get(member) or {}, directory)
        known = ", ".join(self.names(kind)) or "none"
        raise UsageError(f"{member} {name!r} is not in the kubeconfig", f"one of: {known}")


def _optional(config: _Config, kind: str, name: str | None, member: str) -> _Entry:
    return config.entry(kind, name, member) if name else _Entry({}, Path())


def read_text(path: Path, what: str) -> str:
    """The text of a file that a kubeconfig or a flag names. Raises ClusterError."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"the {what} {path} cannot be read: {error}") from None


def _files(options: KubeOptions) -> list[Path]:
    if options.kubeconfig:
        path = Path(options.kubeconfig).expanduser()
        if not path.exists():
            raise ClusterError(f"the kubeconfig {path} does not exist", "look at --kubeconfig")
        return [path]
    return _existing_files()


def _existing_files() -> list[Path]:
    listed = os.environ.get("KUBECONFIG")
    names = listed.split(os.pathsep) if listed else [str(Path.home() / ".kube" / "config")]
    paths = [Path(name).expanduser() for name in names if name]
    return [path for path in dict.fromkeys(paths) if path.is_file() and path.stat().st_size]


def _listed(files: list[Path]) -> str:
    return ", ".join(map(str, files)) or "no kubeconfig"


def _with_scheme(server: str) -> str:
    """kubectl takes `--server host:port` as http."""
    return (server if "://" in server else f"http://{server}").rstrip("/")


def _authority(options: KubeOptions, cluster: _Entry) -> str | None:
    if options.certificate_authority:
        return read_text(Path(options.certificate_authority).expanduser(), "certificate authority")
    return cluster.data("certificate-authority")


def _credentials(options: KubeOptions, user: _Entry, cluster: _Entry, server: str) -> Credentials:
    certificate = _client_pem(options.client_certificate, user, "client-certificate")
    key = _client_pem(options.client_key, user, "client-key")
    if (certificate is None) != (key is None):
        missing = "client-key" if key is None else "client-certificate"
        raise ClusterError(f"the kubeconfig's user has no {missing} for its other half")
    pair = (certificate, key) if certificate and key else None
    if options.token:
        return Credentials(token=options.token, certificate=pair)
    values = user.values
    token_file = values.get("tokenFile")
    return Credentials(
        token=values.get("token"),
        token_file=user.directory / str(token_file) if token_file else None,
        basic=(str(values["username"]), str(values.get("password", ""))) if values.get("username") else None,
        certificate=pair,
        plugin=_plugin(user, cluster, server),
        auth_provider=_auth_provider(values),
    )


def _client_pem(flag: str | None, user: _Entry, key: str) -> str | None:
    return read_text(Path(flag).expanduser(), key) if flag else user.data(key)


def _plugin(user: _Entry, cluster: _Entry, server: str) -> ExecPlugin | None:
    spec = user.values.get("exec")
    if not spec:
        return None
    info: dict[str, Any] | None = None
    if spec.get("provideClusterInfo"):
        values = cluster.values
        authority = cluster.data("certificate-authority")
        info = {
            "server": server,
            "tls-server-name": values.get("tls-server-name"),
            "insecure-skip-tls-verify": values.get("insecure-skip-tls-verify"),
            "certificate-authority-data": base64.b64encode(authority.encode()).decode() if authority else None,
            "proxy-url": values.get("proxy-url"),
            "config": next(
                (
                    extension.get("extension")
                    for extension in values.get("extensions") or []
                    if extension.get("name") == "client.authentication.k8s.io/exec"
                ),
                None,
            ),
        }
        info = {key: value for key, value in info.items() if value is not None}
    return ExecPlugin(spec, user.directory, info)


def _auth_provider(values: dict[str, Any]) -> tuple[str, str | None] | None:
    provider = values.get("auth-provider")
    if not provider:
        return None
    return str(provider.get("name")), (provider.get("config") or {}).get("id-token")


def _impersonation(options: KubeOptions, user: dict[str, Any]) -> Iterator[tuple[str, str]]:
    name = options.as_user or user.get("as")
    if name:
        yield "Impersonate-User", str(name)
    if not options.as_user and user.get("as-uid"):
        yield "Impersonate-Uid", str(user["as-uid"])
    for group in options.as_groups or user.get("as-groups") or ():
        if not name:
            raise UsageError("--as-group needs --as", "add --as USER")
        yield "Impersonate-Group", str(group)
    for key, extra in ({} if options.as_user else user.get("as-user-extra") or {}).items():
        for value in extra:
            yield f"Impersonate-Extra-{key}", str(value)


def _in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").is_file()


def _from_pod(options: KubeOptions) -> Cluster:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = SERVICE_ACCOUNT / "namespace"
    return Cluster(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=namespace.read_text().strip() if namespace.is_file() else "default",
        credentials=Credentials(token=options.token)
        if options.token
        else Credentials(token_file=SERVICE_ACCOUNT / "token"),
        certificate_authority=read_text(SERVICE_ACCOUNT / "ca.crt", "certificate authority"),
        insecure=options.insecure_skip_tls_verify,
        tls_server_name=options.tls_server_name,
        impersonate=tuple(_impersonation(options, {})),
        request_timeout=options.request_timeout,
    )
