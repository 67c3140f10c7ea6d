"""Runs the kubernetes library's loader on one context: certificates, tokens, token files, credential plugins, OIDC.

The trap: when a credential plugin fails, the library only logs the reason and goes on without credentials, so that log
becomes our error. A plugin may prompt the user, and an OIDC server may be slow: call all of this in a thread.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kubectl_gadget.errors import ClusterError

if TYPE_CHECKING:
    from kubernetes.client import Configuration

_TOKEN = "BearerToken"
"""The library's key for the value of the Authorization header, of any type."""


def configure(config: dict[str, Any], save: Callable[[], None]) -> "Configuration":
    """Returns how to reach the cluster of `config`, a kubeconfig with one context, one cluster and one user.

    `save` is called after an OIDC token was renewed and stored in `config`. Blocks. Raises ClusterError.
    """
    from kubernetes.client import Configuration
    from kubernetes.config.kube_config import KubeConfigLoader

    user = config["users"][0]["user"]
    configuration = Configuration()
    with _logged_errors() as errors:
        try:
            KubeConfigLoader(config, config_persister=save).load_and_set(configuration)
        except Exception as error:  # from the library, OpenSSL, YAML, OAuth, HTTP: no common base class
            raise ClusterError(f"the kubeconfig cannot be used: {_said(error)}") from None
    if "exec" in user and (errors or identity(configuration) == (None, None)):
        raise _plugin_failure(user["exec"], errors)
    if "auth-provider" in user and identity(configuration) == (None, None):
        name = user["auth-provider"].get("name")
        raise ClusterError(
            f"the kubeconfig's auth-provider {name!r} returned no token", "use a credential plugin (exec) instead"
        )
    return configuration


def identity(configuration: "Configuration") -> tuple[str | None, str | None]:
    """Returns what identifies us: the Authorization header's value and the file of the client certificate."""
    return configuration.api_key.get(_TOKEN), configuration.cert_file


def may_block(configuration: "Configuration") -> bool:
    """Whether `authorization` may have to renew credentials."""
    return configuration.refresh_api_key_hook is not None


def authorization(configuration: "Configuration") -> str | None:
    """Returns the value of the Authorization header, after renewing an expired one. Blocks. Raises ClusterError."""
    # A failed renewal is only logged, and the old token is tried, which may still work. If not, the 401 leads to
    # `configure`, which reports the reason.
    with _logged_errors():
        try:
            value = configuration.get_api_key_with_prefix(_TOKEN)
        except Exception as error:  # as above
            raise ClusterError(f"the credentials cannot be renewed: {_said(error)}") from None
    return str(value).strip() if value else None


def _plugin_failure(spec: dict[str, Any], errors: list[str]) -> ClusterError:
    why = "; ".join(error.removeprefix("exec: ") for error in errors) or "it returned no credentials"
    if "NoneType" in why:
        why = "it failed, see its output above"  # the library fails on output that went to the terminal
    hint = spec.get("installHint") if "No such file" in why else None
    return ClusterError(
        f"the credential plugin {spec.get('command')} failed: {why}",
        hint or "run kubectl get nodes; it uses the same plugin",
    )


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Listener(logging.Handler):
    """Keeps the errors that one thread logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.errors.append(record.getMessage())


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """Collects the errors that this thread logs in the block; without a handler they would go to standard error."""
    listener = _Listener()
    logging.getLogger().addHandler(listener)
    try:
        yield listener.errors
    finally:
        logging.getLogger().removeHandler(listener)
