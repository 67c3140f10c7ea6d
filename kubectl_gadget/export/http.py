"""Requests to an OpenTelemetry collector: headers, TLS, compression, and what its answers mean for what was sent.

Which answers mean "later" is as the OTLP specification has it: 429, 502, 503, 504, and no answer at all.
"""

import gzip
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

import urllib3
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from kubectl_gadget import __version__
from kubectl_gadget.errors import UsageError
from kubectl_gadget.export.delivery import Item, NotNow, Refused, TooLarge
from kubectl_gadget.export.lines import context
from kubectl_gadget.export.targets import Tls, header, split

_LATER = frozenset({429, 502, 503, 504})
_LONGEST_ANSWER, _LONGEST_WORDS = 1 << 16, 200
_PREFIX = "OTEL_EXPORTER_OTLP_"
_PROTOBUF = "application/x-protobuf"
_TOO_LARGE = "request body too large"


@dataclass(frozen=True)
class Endpoint:
    """One collector."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls = field(default_factory=Tls)
    is_gzipped: bool = False
    seconds: float = 10.0


def endpoint(where: str, headers: Mapping[str, str], tls: Tls) -> Endpoint:
    """Return the collector at a URL; what is not given comes from OpenTelemetry's environment. Raises UsageError."""
    try:
        given = {name: value for name in _VARIABLES if (value := os.environ.get(_PREFIX + name, "").strip())}
        if not where:
            protocol = given.get("PROTOCOL", "http/protobuf")
            if protocol != "http/protobuf":
                raise ValueError(f"{_PREFIX}PROTOCOL is {protocol}, and only http/protobuf is supported")
        url = where or given.get("ENDPOINT", "http://localhost:4318")
        split(url, ("http", "https"))
        compression = given.get("COMPRESSION", "none")
        if compression not in ("none", "gzip"):
            raise ValueError(f"{_PREFIX}COMPRESSION is {compression}: must be none or gzip")
        pairs = filter(None, (pair.strip() for pair in given.get("HEADERS", "").split(",")))
        return Endpoint(
            url.rstrip("/"),
            {**dict(header(unquote(pair)) for pair in pairs), **headers},
            Tls(
                tls.ca or given.get("CERTIFICATE"),
                tls.cert or given.get("CLIENT_CERTIFICATE"),
                tls.key or given.get("CLIENT_KEY"),
            ),
            compression == "gzip",
            max(0.1, float(given.get("TIMEOUT", "10000")) / 1000),
        )
    except ValueError as error:
        raise UsageError(f"--export otlp: {error}") from None


_VARIABLES = (
    "ENDPOINT",
    "PROTOCOL",
    "HEADERS",
    "COMPRESSION",
    "TIMEOUT",
    "CERTIFICATE",
    "CLIENT_CERTIFICATE",
    "CLIENT_KEY",
)


def given_resource() -> dict[str, str]:
    """Return the attributes of resources that OpenTelemetry's environment gives."""
    pairs = (pair.partition("=") for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    found = {name.strip(): unquote(value.strip()) for name, _, value in pairs if name.strip() and value.strip()}
    service = os.environ.get("OTEL_SERVICE_NAME", "").strip()
    return found | ({"service.name": service} if service else {})


def wants_no_spans() -> bool:
    """Return True if OpenTelemetry's environment switches spans off, as for a store of logs alone."""
    return os.environ.get("OTEL_TRACES_EXPORTER", "").strip() == "none"


class HttpTransport:
    """Posts items, which together are one message, to one path of a collector."""

    linger = 1.0

    def __init__(
        self, to: Endpoint, path: str, rejected: Callable[[bytes], tuple[int, str]], if_missing: str = ""
    ) -> None:
        """`rejected` reads the answer to a request that was taken; `if_missing`: what to do if there is no such path.
        Raises UsageError for files that cannot be used."""
        self.most_items = 256
        self.taken = 0
        self.why = ""
        self.is_missing = False
        """The collector has no such path"""
        self._to = to
        self._url = f"{to.url}/{path}"
        self._rejected = rejected
        self._if_missing = if_missing
        self._headers = {
            "Content-Type": _PROTOBUF,
            "User-Agent": f"kubectl-gadget/{__version__}",
            **({"Content-Encoding": "gzip"} if to.is_gzipped else {}),
            **to.headers,
        }
        try:
            tls = context(to.tls) if to.url.startswith("https") else None
        except (OSError, ValueError) as error:
            raise UsageError(f"--export otlp={to.url}: its certificates cannot be used: {error}") from None
        self._pool = urllib3.PoolManager(1, ssl_context=tls, retries=False, timeout=to.seconds)

    def send(self, items: Sequence[Item]) -> int:
        """See Transport."""
        body = b"".join(piece for item in items for piece in item.data)
        if self._to.is_gzipped:
            body = gzip.compress(body, 1)
        try:
            answer = self._pool.request(
                "POST", self._url, body=body, headers=self._headers, redirect=False, preload_content=False
            )
            try:
                said = answer.read(_LONGEST_ANSWER, decode_content=True) or b""
            finally:
                answer.drain_conn() if answer.length_remaining in (0, None) else answer.close()
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise NotNow(_reason(error)) from None
        if 200 <= answer.status < 300:
            refused, self.why = self._rejected(said)
            return min(refused, sum(item.rows for item in items))
        words = _words(answer.status, answer.reason, answer.headers.get("Content-Type", ""), said)
        if answer.status == 404 and self._if_missing:
            self.is_missing = True
            words = f"{words}; {self._if_missing}"
        if answer.status in _LATER:
            raise NotNow(words, _seconds(answer.headers.get("Retry-After")))
        # OpenTelemetry's collector answers 400 if a request is larger than its max_request_body_size.
        is_large = answer.status == 413 or _TOO_LARGE in words
        raise TooLarge(words) if is_large else Refused(words)

    def end(self) -> None:
        """See Transport."""
        self._pool.clear()


def _reason(error: Exception) -> str:
    """Return what went wrong, without the objects of the library that its text begins with."""
    cause = getattr(error, "reason", None) or next((one for one in error.args if isinstance(one, Exception)), error)
    words = re.sub(r"^(?:<[^>]*>|HTTPS?Connection(?:Pool)?\([^)]*\)): ", "", str(cause))
    return f"{words}; --export-tls ca=FILE names its authority" if "unable to get local issuer" in words else words


def _words(status: int, reason: str | None, type: str, said: bytes) -> str:
    text = ""
    if type.startswith(("text/plain", "application/json")):
        text = said[:_LONGEST_WORDS].decode("utf-8", "replace").strip()
    elif type.startswith(_PROTOBUF):
        text = _message(said)[:_LONGEST_WORDS].strip()
    return f"HTTP {status} {reason or ''}".rstrip() + (f": {text}" if text else "")


def _message(said: bytes) -> str:
    """Return the message of a google.rpc.Status, as the OTLP specification has it for failures."""
    try:
        # The status of spans has its message in the same field, and this package has no google.rpc.
        return str(Status.FromString(said).message)
    except Exception:  # the library has two classes DecodeError
        return ""


def _seconds(after: str | None) -> float | None:
    """Return the time of Retry-After, which is seconds or a date; None: there is none that can be read."""
    if not after:
        return None
    try:
        return float(int(after))
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(after).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
