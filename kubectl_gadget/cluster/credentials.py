"""What proves to the API server who we are: tokens, token files, passwords, client certificates, credential plugins.

Plugins follow https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins.
The trap: a plugin may ask the user something, so it inherits the terminal, and reading a header may take a minute;
call `authorization` and `client_certificate` in a thread.
"""

import base64
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kubectl_gadget.errors import ClusterError

_EARLY = timedelta(seconds=60)
"""A credential that ends within this time is renewed now."""


@dataclass(frozen=True)
class ExecPlugin:
    """The `exec` member of a kubeconfig's user."""

    spec: dict[str, Any]
    directory: Path
    """of the kubeconfig: a command with a slash is relative to it"""
    cluster_info: dict[str, Any] | None = None

    @property
    def command(self) -> str:
        command = str(self.spec.get("command", ""))
        return str(self.directory / command) if os.sep in command else command

    def run(self) -> dict[str, Any]:
        """The `status` of the ExecCredential that the plugin prints. Blocks. Raises ClusterError."""
        interactive = self._interactive()
        request: dict[str, Any] = {"interactive": interactive}
        if self.cluster_info is not None:
            request["cluster"] = self.cluster_info
        version = self.spec.get("apiVersion", "client.authentication.k8s.io/v1")
        info = {"apiVersion": version, "kind": "ExecCredential", "spec": request}
        env = {item["name"]: str(item["value"]) for item in self.spec.get("env") or []}
        try:
            process = subprocess.run(
                [self.command, *map(str, self.spec.get("args") or [])],
                env={**os.environ, **env, "KUBERNETES_EXEC_INFO": json.dumps(info)},
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=False,
            )
        except OSError as error:
            raise ClusterError(
                f"the credential plugin {self.command} cannot be started: {error.strerror}",
                self.spec.get("installHint"),
            ) from None
        if process.returncode:
            raise ClusterError(
                f"the credential plugin {self.command} failed with exit code {process.returncode}",
                "run kubectl get nodes; it uses the same plugin",
            )
        return self._status(process.stdout)

    def _interactive(self) -> bool:
        mode = self.spec.get("interactiveMode", "IfAvailable")
        terminal = sys.stdin is not None and sys.stdin.isatty()
        if mode == "Always" and not terminal:
            raise ClusterError(f"the credential plugin {self.command} needs a terminal on standard input")
        return terminal and mode != "Never"

    def _status(self, output: bytes) -> dict[str, Any]:
        try:
            status = json.loads(output)["status"]
        except (ValueError, KeyError, TypeError):
            raise ClusterError(
                f"the credential plugin {self.command} printed no ExecCredential with a status"
            ) from None
        if not isinstance(status, dict) or not (status.get("token") or status.get("clientCertificateData")):
            raise ClusterError(f"the credential plugin {self.command} returned neither a token nor a certificate")
        return status


class Credentials:
    """May be used from several threads; a plugin runs once for all of them."""

    def __init__(
        self,
        token: str | None = None,
        token_file: Path | None = None,
        basic: tuple[str, str] | None = None,
        certificate: tuple[str, str] | None = None,
        plugin: ExecPlugin | None = None,
        auth_provider: tuple[str, str | None] | None = None,
    ) -> None:
        self._token = token
        self._token_file = token_file
        self._basic = basic
        self._certificate = certificate
        self._plugin = plugin
        self._auth_provider = auth_provider
        self._status: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def authorization(self) -> str | None:
        """The value of the Authorization header, or None. May block. Raises ClusterError."""
        if self._token_file is not None:
            # Read each time: the kubelet replaces the token of a pod before it ends.
            try:
                return f"Bearer {self._token_file.read_text().strip()}"
            except OSError as error:
                raise ClusterError(f"the token file {self._token_file} cannot be read: {error.strerror}") from None
        if self._token:
            return f"Bearer {self._token}"
        if self._basic is not None:
            return "Basic " + base64.b64encode(":".join(self._basic).encode()).decode()
        if self._auth_provider is not None:
            return self._from_auth_provider(*self._auth_provider)
        token = self._plugin_status().get("token")
        return f"Bearer {token}" if token else None

    def client_certificate(self) -> tuple[str, str] | None:
        """Certificate and key in PEM, or None. May block. Raises ClusterError."""
        status = self._plugin_status()
        if status.get("clientCertificateData"):
            return str(status["clientCertificateData"]), str(status.get("clientKeyData", ""))
        return self._certificate

    def renew(self) -> bool:
        """To be called after a 401: whether asking again can give other credentials."""
        with self._lock:
            self._status = None
        return self._plugin is not None

    def _plugin_status(self) -> dict[str, Any]:
        if self._plugin is None:
            return {}
        with self._lock:
            if self._status is None or _ends_soon(self._status.get("expirationTimestamp")):
                self._status = self._plugin.run()
            return self._status

    @staticmethod
    def _from_auth_provider(name: str, token: str | None) -> str:
        """kubectl knows only the provider "oidc" any more, and writes the token it got into the kubeconfig."""
        if name != "oidc" or not token:
            raise ClusterError(
                f"the kubeconfig's auth-provider {name!r} is not supported", "use a credential plugin (exec) instead"
            )
        return f"Bearer {token}"


def _ends_soon(timestamp: str | None) -> bool:
    if not timestamp:
        return False
    try:
        end = datetime.fromisoformat(timestamp)
    except ValueError:
        return False
    return (end if end.tzinfo else end.replace(tzinfo=UTC)) - datetime.now(UTC) < _EARLY
