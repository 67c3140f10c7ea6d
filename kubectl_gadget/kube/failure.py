"""Turns connection failures and error responses of the API server into errors for users.

The trap: not every 403 is about roles. Pod Security, quotas and namespaces that are being deleted also refuse with 403,
and for these `kubectl auth can-i` would mislead.
"""

import json
import re
import socket
import ssl
from dataclasses import dataclass

from kubectl_gadget.errors import ClusterError, ForbiddenError
from kubectl_gadget.kube.resources import Object


class StatusError(ClusterError):
    """The API server answered with an HTTP status that means failure."""

    def __init__(self, code: int, reason: str, message: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy)
        self.code = code
        self.reason = reason
        """reason in the Status object, such as AlreadyExists; "" when there is none"""


class UnreachableError(ClusterError):
    """No answer was received."""


@dataclass(frozen=True)
class Access:
    """A permission that RBAC grants or not. `namespace` None: in the whole cluster."""

    verb: str
    resource: str
    """plural, with its group, such as `jobs.batch`"""
    namespace: str | None = None
    subresource: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        what = "/".join(part for part in (self.resource, self.name, self.subresource) if part)
        return f"{self.verb} {what} " + (f"in namespace {self.namespace}" if self.namespace else "in the whole cluster")

    def command(self, impersonate: tuple[tuple[str, str], ...] = ()) -> str:
        """Returns the kubectl command that checks it."""
        words = ["kubectl auth can-i", self.verb, f"{self.resource}/{self.name}" if self.name else self.resource]
        if self.subresource:
            words.append(f"--subresource={self.subresource}")
        words.append(f"-n {self.namespace}" if self.namespace else "--all-namespaces")
        flags = {"Impersonate-User": "--as", "Impersonate-Group": "--as-group"}
        words += [f"{flags[name]}={value}" for name, value in impersonate if name in flags]
        return " ".join(words)


def from_status(
    code: int, body: bytes, server: str, access: Access, impersonate: tuple[tuple[str, str], ...] = ()
) -> ClusterError:
    """Builds the error for a response of `code` ≥ 400, whose body is a Status object or anything else."""
    status = _status(body)
    reason = str(status.get("reason", ""))
    message = str(status.get("message") or body.decode(errors="replace").strip()[:300] or f"HTTP {code}")
    if code == 401:
        return StatusError(
            code,
            reason,
            f"{server} does not accept the credentials (401 Unauthorized): they are missing, wrong or have expired",
            "log in again as you do for kubectl, then: kubectl get nodes",
        )
    if code == 403 and _is_about_roles(status, message):
        return ForbiddenError(f"Forbidden: {message} ({access})", access.command(impersonate))
    if code == 404 and status.get("kind") != "Status":
        return StatusError(
            code,
            reason,
            f"{server} does not serve {access.resource} ({message})",
            "check the path of server in the kubeconfig, then: kubectl api-versions",
        )
    return StatusError(code, reason, message)


def is_denied_by_policy(message: str) -> bool:
    """True if an admission webhook or a ValidatingAdmissionPolicy denied the request, in whatever words of its own."""
    return re.search(r"\bdenied (?:the )?request\b", message) is not None


def _is_about_roles(status: Object, message: str) -> bool:
    if status.get("kind") != "Status":
        return True
    details = status.get("details") or {}
    if is_denied_by_policy(message):
        return False
    return not details.get("causes") and (" cannot " in message or "RBAC" in message)


def _status(body: bytes) -> Object:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def from_exception(error: BaseException, server: str, proxy: str | None) -> ClusterError:
    """Builds the error for a connection that failed or broke."""
    via = f" (through the proxy {proxy})" if proxy else ""
    for cause in _causes(error):
        if isinstance(cause, ClusterError):
            return cause
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UnreachableError(
                f"the certificate of {server} is not trusted: {cause.verify_message}",
                "check certificate-authority and tls-server-name in the kubeconfig",
            )
        if isinstance(cause, ssl.SSLError):
            return UnreachableError(f"no TLS connection to {server}{via}: {cause.reason or cause}")
        if isinstance(cause, socket.gaierror):
            return _unreachable(server, via, "its name does not resolve")
        if isinstance(cause, ConnectionRefusedError):
            return _unreachable(server, via, "connection refused")
        if isinstance(cause, TimeoutError):
            return _unreachable(server, via, "timed out")
    text = str(error) or type(error).__name__
    return _unreachable(server, via, text)


def _unreachable(server: str, via: str, why: str) -> UnreachableError:
    return UnreachableError(f"the API server {server}{via} is not reachable: {why}", "kubectl cluster-info")


def _causes(error: BaseException) -> list[BaseException]:
    """Returns the error and its causes; urllib3 keeps the cause in `reason`."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        item = queue.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            queue += [getattr(item, "reason", None), item.__cause__, item.__context__, *item.args]
    return found
