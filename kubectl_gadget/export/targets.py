"""The targets of exports, parsed from `--export KIND=WHERE`. Help and completion read this, so it imports little."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

STREAMS = ("tcp", "unix")
SYSLOG = ("udp", "tcp", "tls")
SYSLOG_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
"""As registered by IANA for RFC 5426, 6587 and 5425."""
STANDARD_OUTPUT = "-"
PURPOSES: Mapping[str, str] = {
    "security": "process+privilege+bpf+modules+mount+fdpass+bind+sni+tcp+dns",
    "network": "tcp+udp+dns+http+tls+tcpretrans+tcpdrop",
    "files": "file+mount+fsslower",
    "incident": "process+oomkill+mount+tcp+dns+tcpretrans+fsslower",
    "performance": "oomkill+fsslower+tcpretrans+http",
}
"""The gadgets of `trace` for each purpose."""
METRICS_PORT = 9464
"""As OpenTelemetry's Prometheus exporters have it."""
SECRET_FOLDER = "/etc/kubectl-gadget-export"
"""The folder of the pod with the Secret's keys as files."""


@dataclass(frozen=True)
class Target:
    """One place that gets the rows."""

    kind: str
    where: str
    """as the user wrote it"""
    scheme: str = ""
    """empty: a file"""
    host: str = ""
    port: int = 0

    @property
    def name(self) -> str:
        """The target as in the flag."""
        return f"{self.kind}={self.where}" if self.where else self.kind


@dataclass(frozen=True)
class Tls:
    """The files of `--export-tls`."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class ExportOptions:
    """The flags of a run that configure its export."""

    targets: tuple[Target, ...]
    tls: Tls = Tls()
    headers: tuple[tuple[str, str], ...] = ()
    """of requests to collectors; later ones win"""

    @property
    def serves(self) -> bool:
        """True if others ask for what is exported, also after the last row."""
        return any(target.kind == "prometheus" for target in self.targets)

    @property
    def takes_output(self) -> bool:
        """True if standard output has the exported rows, and nothing else."""
        return any(target.where == STANDARD_OUTPUT for target in self.targets)


def target(text: str) -> Target:
    """Read one value of --export. Raises ValueError."""
    kind, equals, where = text.partition("=")
    if text == "otlp":
        return Target(kind, "")
    if kind not in KINDS:
        raise ValueError(f"must be KIND=WHERE, with a KIND of {', '.join(KINDS)}")
    if not equals or not where:
        raise ValueError(f"the destination is missing: {kind}={KINDS[kind].example}")
    return KINDS[kind].read(where)


def tls(text: str) -> Tls:
    """Read the value of --export-tls. Raises ValueError."""
    found = {}
    for part in text.split(","):
        name, _, file = part.partition("=")
        if name not in ("ca", "cert", "key") or not file:
            raise ValueError("must be ca=FILE, cert=FILE and key=FILE, separated by commas")
        if not Path(file).is_file():
            raise ValueError(f"there is no file {file}")
        found[name] = file
    if ("cert" in found) != ("key" in found):
        raise ValueError("cert=FILE and key=FILE must be given together")
    return Tls(**found)


def headers(text: str) -> tuple[tuple[str, str], ...]:
    """Read one value of --export-header: a header, or @FILE with one in each line. Raises ValueError, whose text has no
    value of a header."""
    if not text.startswith("@"):
        return (header(text),)
    try:
        lines = Path(text[1:]).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{text} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return tuple(header(line, ":=") for line in lines if line.strip() and not line.startswith("#"))


def header(text: str, between: str = "=") -> tuple[str, str]:
    """Return the name and the value of `NAME=VALUE`. Raises ValueError."""
    place = next((place for place, one in enumerate(text) if one in between), len(text))
    name, value = text[:place].strip(), text[place + 1 :].strip()
    if not _TOKEN.fullmatch(name) or place == len(text):
        raise ValueError("a header must be NAME=VALUE, or @FILE with one in each line")
    if not value.isprintable() or not value.isascii():
        raise ValueError(f"the header {name} has a character that headers must not have")
    return name, value


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _otlp(where: str) -> Target:
    if where.startswith("grpc"):
        raise ValueError(f"gRPC is not supported; collectors accept HTTP on port 4318: {KINDS['otlp'].example}")
    found = split(where, ("http", "https"))
    if found.query or found.fragment:
        raise ValueError("a URL of a collector has no query and no fragment")
    return Target("otlp", where, found.scheme, str(found.hostname), found.port or 0)


def _prometheus(where: str) -> Target:
    host, _, port = where.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"must be prometheus={KINDS['prometheus'].example}")
    address = host.strip("[]") or "127.0.0.1"
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"{address!r} is not an address of this machine; 0.0.0.0 means all") from None
    return Target("prometheus", where, "http", address, int(port))


def _jsonl(where: str) -> Target:
    if "://" in where:
        return _socket("jsonl", where, STREAMS, {})
    if where != STANDARD_OUTPUT and not Path(where).absolute().parent.is_dir():
        raise ValueError(f"there is no folder {Path(where).absolute().parent}")
    return Target("jsonl", where)


def _syslog(where: str) -> Target:
    return _socket("syslog", where, SYSLOG, SYSLOG_PORTS)


def _socket(kind: str, where: str, schemes: tuple[str, ...], ports: Mapping[str, int]) -> Target:
    found = split(where, schemes)
    if found.scheme == "unix":
        path = found.netloc + found.path
        if not path:
            raise ValueError("the path of the socket is missing: unix:///run/collector.sock")
        return Target(kind, where, "unix", path)
    if found.path not in ("", "/") or found.query or found.fragment:
        raise ValueError(f"must be {found.scheme}://HOST:PORT, with nothing after it")
    port = found.port or ports.get(found.scheme)
    if not port:
        raise ValueError(f"the port is missing: {found.scheme}://{found.netloc}:PORT")
    return Target(kind, where, found.scheme, str(found.hostname), port)


def split(where: str, schemes: tuple[str, ...]) -> SplitResult:
    """Return the parts of a URL with a host. Raises ValueError."""
    found = urlsplit(where)
    if found.scheme not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if found.scheme != "unix" and not found.hostname:
        raise ValueError("the host is missing")
    if "@" in found.netloc and found.scheme != "unix":
        raise ValueError("a URL must not have a password, which other users of this machine would see")
    _ = found.port  # raises ValueError if it is none
    return found


@dataclass(frozen=True)
class Kind:
    """One kind of target."""

    read: Callable[[str], Target]
    example: str


KINDS: Mapping[str, Kind] = {
    "prometheus": Kind(_prometheus, "[ADDRESS:]PORT"),
    "otlp": Kind(_otlp, "http://HOST:4318"),
    "jsonl": Kind(_jsonl, "FILE|-|tcp://HOST:PORT|unix:///PATH"),
    "syslog": Kind(_syslog, "udp://HOST[:PORT]|tcp://HOST[:PORT]|tls://HOST[:PORT]"),
}
