"""Finds the cluster and the user: from kubectl's flags, $KUBECONFIG and the files it names, or the pod we run in.

The kubernetes library merges the files. The result is reduced to one context, with the flags applied; from it
credentials.py makes a connection's settings. Paths in a kubeconfig are relative to the file that contains
them, which the library forgets when cluster and user are in different files, so they are made absolute first.
"""

import base64
import copy
import ipaddress
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kubectl_gadget.errors import ClusterError, UsageError
from kubectl_gadget.kube import credentials
from kubectl_gadget.kube.cluster_options import KubeOptions
from kubectl_gadget.kube.credentials import import_library
from kubectl_gadget.yaml_files import read_text, safe_loader

if TYPE_CHECKING:
    from kubernetes.client import Configuration


SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
Values = dict[str, Any]
"""The members of a cluster, a user or a context, as YAML has them."""
_ONLY = "selected"
"""Name of the one remaining context, cluster and user."""


@dataclass(frozen=True)
class Cluster:
    """One API server and our identity there."""

    server: str
    """URL, without a trailing slash"""
    configure: Callable[[], "Configuration"]
    """Returns how to connect, with freshly read or requested credentials. Blocks. Raises ClusterError"""
    namespace: str = "default"
    """the context's default"""
    impersonate: tuple[tuple[str, str], ...] = ()
    """headers, in order; a name may occur several times"""
    request_timeout: float | None = None
    """seconds, per API call"""
    options: KubeOptions = field(default_factory=KubeOptions)
    """with these, another process finds the same cluster, whichever context is current by then"""


def has_kubeconfig(options: KubeOptions) -> bool:
    """True if a cluster was specified, or can be found. Reads no file."""
    return bool(options.kubeconfig or options.server) or bool(_existing_files()) or _in_cluster()


def load(options: KubeOptions) -> Cluster:
    """Returns the cluster that kubectl would use with these flags; does not connect. Raises ClusterError,
    UsageError."""
    files = _files(options)
    if not files and not options.server:
        if _in_cluster():
            return _from_pod(options)
        raise ClusterError(
            "no kubeconfig was found", "set KUBECONFIG or --kubeconfig; gadgets can trace this machine with --local"
        )
    config = _Config(files)
    name = options.context or config.current_context
    if name is None and options.server is None and options.cluster is None:
        known = ", ".join(config.names("contexts")) or "none"
        raise ClusterError(
            f"no context is selected in {_listed(files)}", f"kubectl config use-context NAME (there are: {known})"
        )
    context = config.entry("contexts", name, "context")
    cluster = _with_cluster_flags(
        config.entry("clusters", options.cluster or context.get("cluster"), "cluster"), options
    )
    user = _with_user_flags(config.entry("users", options.user or context.get("user"), "user"), options)
    if not cluster.get("server"):
        raise ClusterError(f"the cluster of context {name!r} has no server", f"check {_listed(files)}")
    _check_data(cluster, "certificate-authority-data")
    _check_data(user, "client-certificate-data", "client-key-data")
    _check_user(user)
    return Cluster(
        server=cluster["server"],
        configure=lambda: _configure(cluster, user, config.save),
        namespace=str(context.get("namespace") or "default"),
        impersonate=tuple(_impersonation(options, user)),
        request_timeout=options.request_timeout,
        options=replace(options, context=name),
    )


class _Config:
    """All files, merged by the library: the first file that defines a name wins, as in kubectl."""

    def __init__(self, files: list[Path]) -> None:
        import yaml

        import_library()
        from kubernetes.config.kube_config import ConfigException, KubeConfigMerger

        self._merger: KubeConfigMerger = KubeConfigMerger("")
        for path in files:
            try:
                check(path)
                self._merger.load_config(str(path))
            except OSError as error:
                raise ClusterError(f"the kubeconfig {path} cannot be read: {error.strerror}") from None
            except RecursionError:
                raise ClusterError(f"the kubeconfig {path} is nested too deeply") from None
            except (ConfigException, UnicodeError, yaml.YAMLError) as error:
                what = f"the kubeconfig {path} is not valid: {' '.join(str(error).split())}"
                raise ClusterError(what, "kubectl config view") from None
        # The library writes renewed tokens to these files, and detects from them that tokens are new.
        self._merger.paths = [str(path) for path in files]
        self._merger.config_saved = copy.deepcopy(self._merger.config_files)

    @property
    def current_context(self) -> str | None:
        # The library uses the last file's current-context, kubectl the first's.
        currents = (file.get("current-context") for file in self._merger.config_files.values())
        return next((str(value) for value in currents if value), None)

    def save(self) -> None:
        """Writes the files that were changed."""
        self._merger.save_changes()

    def names(self, kind: str) -> list[str]:
        """Returns the names of all contexts, clusters or users."""
        return [str(node.value["name"]) for node in self._nodes(kind)]

    def entry(self, kind: str, name: str | None, member: str) -> Values:
        """Returns one of them, with absolute paths; {} when `name` is empty. Raises UsageError when it is missing."""
        if not name:
            return {}
        for node in self._nodes(kind):
            if str(node.value["name"]) == name:
                return _absolute(node.value.get(member) or {}, Path(node.path).parent)
        if not (known := self.names(kind)):
            raise UsageError(f"{member} {name!r} is not in the kubeconfig, which has no {kind}")
        raise UsageError(f"{member} {name!r} is not in the kubeconfig", f"one of: {', '.join(known)}")

    def _nodes(self, kind: str) -> list[Any]:
        return list(self._merger.config.value[kind]) if self._merger.config else []


def _absolute(values: Values, directory: Path) -> Values:
    """Returns a copy without empty values, as kubectl reads it, and with absolute paths."""
    found = {key: value for key, value in values.items() if value not in (None, "")}
    for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
        if key in found:
            found[key] = str(directory / os.path.expanduser(str(found[key])))
    if "exec" in found and os.sep in str(found["exec"].get("command", "")):
        found["exec"] = found["exec"] | {"command": str(directory / found["exec"]["command"])}
    return found


def _with_cluster_flags(cluster: Values, options: KubeOptions) -> Values:
    flags = {
        "server": options.server or cluster.get("server"),
        "certificate-authority": options.certificate_authority,
        "tls-server-name": options.tls_server_name,
        "insecure-skip-tls-verify": options.insecure_skip_tls_verify,
    }
    found = _overridden(cluster, flags)
    if server := found.get("server"):
        # kubectl treats `--server host:port` as http.
        found["server"] = (server if "://" in server else f"http://{server}").rstrip("/")
    return found


def _with_user_flags(user: Values, options: KubeOptions) -> Values:
    found = _overridden(user, {"client-certificate": options.client_certificate, "client-key": options.client_key})
    if options.token:
        for other in ("tokenFile", "exec", "auth-provider", "username"):
            found.pop(other, None)
        found["token"] = options.token
    if "tokenFile" in found:
        found.pop("token", None)  # the library prefers the token, kubectl the file
    return found


def _overridden(values: Values, flags: Values) -> Values:
    """Returns a copy in which flags replace the kubeconfig's files or data."""
    given = {key: value for key, value in flags.items() if value}
    kept = {key: value for key, value in values.items() if str(key).removesuffix("-data") not in given}
    return kept | {key: os.path.expanduser(value) if isinstance(value, str) else value for key, value in given.items()}


def _check_data(values: Values, *names: str) -> None:
    for name in names:
        try:
            base64.b64decode(values.get(name) or "")
        except ValueError:
            raise ClusterError(f"{name} in the kubeconfig is not base64", "kubectl config view --raw") from None


def _check_user(user: Values) -> None:
    halves = {part: any(key in user for key in (part, f"{part}-data")) for part in ("client-certificate", "client-key")}
    if len(set(halves.values())) > 1:
        missing = next(part for part, there in halves.items() if not there)
        raise ClusterError(f"the kubeconfig's user has only half of a client certificate: {missing} is missing")


def _configure(cluster: Values, user: Values, save: Callable[[], None]) -> "Configuration":
    config = {
        "current-context": _ONLY,
        "contexts": [{"name": _ONLY, "context": {"cluster": _ONLY, "user": _ONLY}}],
        "clusters": [{"name": _ONLY, "cluster": cluster}],
        "users": [{"name": _ONLY, "user": user}],
    }
    configuration = credentials.configure(config, save)
    # As in Go, and so in kubectl: the kubeconfig's proxy is always used, and the environment's never for this machine.
    if "proxy-url" in cluster:
        configuration.no_proxy = None
    elif _is_this_machine(urlsplit(cluster["server"]).hostname or ""):
        configuration.proxy = None
    return configuration


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _impersonation(options: KubeOptions, user: Values) -> Iterator[tuple[str, str]]:
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


def _files(options: KubeOptions) -> list[Path]:
    if options.kubeconfig:
        path = Path(options.kubeconfig).expanduser().absolute()
        if not path.exists():
            raise ClusterError(f"the kubeconfig {path} does not exist", "check --kubeconfig")
        return [path]
    return _existing_files()


def _existing_files() -> list[Path]:
    listed = os.environ.get("KUBECONFIG")
    names = listed.split(os.pathsep) if listed else [str(Path.home() / ".kube" / "config")]
    paths = [Path(name).expanduser().absolute() for name in names if name]
    return [path for path in dict.fromkeys(paths) if path.is_file() and path.stat().st_size]


def _listed(files: list[Path]) -> str:
    return ", ".join(map(str, files)) or "no kubeconfig"


def _in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").is_file()


def _from_pod(options: KubeOptions) -> Cluster:
    def configure() -> "Configuration":
        import_library()
        from kubernetes.client import Configuration
        from kubernetes.config.incluster_config import ConfigException, InClusterConfigLoader

        configuration = Configuration()
        try:
            files = (str(SERVICE_ACCOUNT / "token"), str(SERVICE_ACCOUNT / "ca.crt"))
            InClusterConfigLoader(*files).load_and_set(configuration)
        except (ConfigException, OSError) as error:
            raise ClusterError(f"the service account of this pod cannot be used: {error}") from None
        if options.token:
            configuration.refresh_api_key_hook = None
            configuration.api_key["BearerToken"] = f"Bearer {options.token}"
        configuration.verify_ssl = not options.insecure_skip_tls_verify
        configuration.tls_server_name = options.tls_server_name
        return configuration

    namespace = SERVICE_ACCOUNT / "namespace"
    return Cluster(
        server=configure().host,
        configure=configure,
        namespace=namespace.read_text().strip() if namespace.is_file() else "default",
        impersonate=tuple(_impersonation(options, {})),
        request_timeout=options.request_timeout,
        options=options,
    )


# The format, which is kubectl's. It is checked before anything relies on it.


_MOST_VALUES = 1 << 20
"""with those that aliases repeat"""
_LISTS = {"clusters": "cluster", "contexts": "context", "users": "user"}
_TEXTS = frozenset(
    {
        *("server", "certificate-authority", "certificate-authority-data", "tls-server-name", "proxy-url"),
        *("cluster", "user", "namespace", "client-certificate", "client-certificate-data", "client-key"),
        *("client-key-data", "token", "tokenFile", "username", "password", "as", "as-uid"),
    }
)
_MAPPINGS = frozenset({"exec", "auth-provider", "as-user-extra"})


def check(path: Path) -> None:
    """Raises ClusterError that names the place in the file, OSError, RecursionError, UnicodeError and YAMLError."""
    import yaml

    with path.open(encoding="utf-8") as stream:
        content = yaml.load(read_text(str(path), stream), safe_loader())
    if content is None:
        return  # the library says that it is empty
    if _size(content, {}) > _MOST_VALUES:
        raise _wrong(path, f"it has more than {_MOST_VALUES:,} values after its aliases are expanded")
    _need(path, "it", content, dict, "a mapping")
    _need(path, "current-context", content.get("current-context"), str, "a text")
    for plural, member in _LISTS.items():
        _need(path, plural, content.get(plural), list, "a list")
        for place, entry in enumerate(content.get(plural) or ()):
            where = f"{plural}[{place}]"
            _need(path, where, entry, dict, "a mapping")
            if entry is None or entry.get("name") is None:
                raise _wrong(path, f"{where} has no name")
            _need(path, f"{where}.name", entry["name"], str | int | float, "a text")
            _need(path, f"{where}.{member}", entry.get(member), dict, "a mapping")
            _check_values(path, f"{where}.{member}", entry.get(member) or {})


def _check_values(path: Path, where: str, values: Values) -> None:
    for name, value in values.items():
        if name in _TEXTS:
            _need(path, f"{where}.{name}", value, str, "a text")
        elif name in _MAPPINGS:
            _need(path, f"{where}.{name}", value, dict, "a mapping")
        elif name == "as-groups":
            _need(path, f"{where}.{name}", value, list, "a list")
        elif name == "insecure-skip-tls-verify":
            _need(path, f"{where}.{name}", value, bool, "true or false")
    call = values.get("exec") or {}
    _need(path, f"{where}.exec.command", call.get("command"), str, "a text")
    for name in ("args", "env"):
        _need(path, f"{where}.exec.{name}", call.get(name), list, "a list")
    for place, each in enumerate(call.get("args") or ()):
        _need(path, f"{where}.exec.args[{place}]", each, str | int | float, "a text")
    for place, each in enumerate(call.get("env") or ()):
        _need(path, f"{where}.exec.env[{place}]", each, dict, "a mapping")
        if each is None or not isinstance(each.get("name"), str) or not isinstance(each.get("value"), str):
            raise _wrong(path, f"{where}.exec.env[{place}] needs a name and a value, both texts")


def _need(path: Path, where: str, value: object, kind: type | UnionType, name: str) -> None:
    """Null is like nothing."""
    if value is not None and not isinstance(value, kind):
        raise _wrong(path, f"{where} is not {name}")


def _wrong(path: Path, why: str) -> ClusterError:
    return ClusterError(f"the kubeconfig {path} has an invalid structure: {why}", "kubectl config view")


def _size(value: object, known: dict[int, int]) -> int:
    """Return how many values there are, as often as they are repeated. An alias of an enclosing value is no number."""
    if not isinstance(value, dict | list):
        return 1
    found = known.get(id(value))
    if found is None:
        known[id(value)] = _MOST_VALUES + 1
        parts = value.values() if isinstance(value, dict) else value
        found = known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    return found
