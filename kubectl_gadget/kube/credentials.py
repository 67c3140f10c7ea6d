"""Runs the kubernetes library's loader on one context: certificates, tokens, token files, credential plugins, OIDC.

When a credential plugin fails, the library only logs the reason and goes on without credentials, so that log
becomes our error. A plugin may prompt the user, and an OIDC server may be slow: call all of this in a thread.
"""

import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kubectl_gadget.errors import ClusterError
from kubectl_gadget.kube.resources import Object
from kubectl_gadget.yaml_files import safe_loader

if TYPE_CHECKING:
    from kubernetes.client import Configuration


_TOKEN = "BearerToken"
"""The library's key for the value of the Authorization header, of any type."""


def configure(config: Object, save: Callable[[], None]) -> "Configuration":
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
    """True if `authorization` may have to renew credentials."""
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


def _plugin_failure(spec: Object, errors: list[str]) -> ClusterError:
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


# The library, without the packages that only other parts of it need. They take 140 of 240 ms of CPU at the start of
# each run: streams, watches and controllers, pydantic for a class without objects, dateutil to read answers, OAuth,
# which only the kubeconfig's `auth-provider` needs, and multiprocessing, for a pool that is never used. These stand-ins
# know what version 37 imports. If another version needs more, it is imported as a whole.


_PACKAGES = "kubernetes", "kubernetes.config", "kubernetes.utils"
"""Their modules are imported by name; what the packages themselves import is left out."""


class _Base:
    """The base of data classes that have no objects."""


class _Late:
    """A name of a module that is imported when the name is used."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *words: object, **named: object) -> object:
        return self._real()(*words, **named)

    def __getattr__(self, name: str) -> object:
        return getattr(self._real(), name)

    def _real(self) -> Any:
        return getattr(importlib.import_module(self._module), self._name)


def import_library() -> None:
    """Imports what this package uses of the library. Does nothing when it is there already."""
    if "kubernetes" in sys.modules:
        return
    stand_ins = _stand_ins()
    try:
        for name in _PACKAGES:
            _enter_empty(name)
        sys.modules.update(stand_ins)
        _import_parts()
    except Exception:
        for name in [name for name in sys.modules if name.partition(".")[0] == "kubernetes"]:
            del sys.modules[name]
        _remove(stand_ins)
        _import_parts()
    finally:
        _remove(stand_ins)


def _import_parts() -> None:
    importlib.import_module("kubernetes.client.api_client")
    _read_by_libyaml(importlib.import_module("kubernetes.config.kube_config"))


def _read_by_libyaml(library: ModuleType) -> None:
    """Gives a module that reads kubeconfigs the faster parser: 230 KB take 7 ms of CPU instead of 190."""
    import yaml

    faster = {"safe_load": partial(yaml.load, Loader=safe_loader())}
    vars(library)["yaml"] = _module("yaml", **{**vars(yaml), **faster})


def _stand_ins() -> dict[str, ModuleType]:
    """Returns them by name, without those that were imported before: by others, who need the real ones."""
    pydantic = _module("pydantic", BaseModel=_Base, SecretStr=_Base, StrictBytes=bytes, StrictInt=int, Field=_field)
    parser = _module("dateutil.parser", parse=_Late("dateutil.parser", "parse"))
    oauth2 = _module("oauthlib.oauth2", rfc6749=_Late("oauthlib.oauth2", "rfc6749"))
    session = _module("requests_oauthlib", OAuth2Session=_Late("requests_oauthlib", "OAuth2Session"))
    processes = _module("multiprocessing", cpu_count=lambda: os.cpu_count() or 1)
    pool = _module("multiprocessing.pool", ThreadPool=_Late("multiprocessing.pool", "ThreadPool"))
    found = {
        "multiprocessing": {processes.__name__: processes, pool.__name__: pool},
        "pydantic": {pydantic.__name__: pydantic},
        "dateutil": {"dateutil": _module("dateutil", parser=parser), parser.__name__: parser},
        "oauthlib": {"oauthlib": _module("oauthlib", oauth2=oauth2), oauth2.__name__: oauth2},
        "requests_oauthlib": {session.__name__: session},
    }
    return {name: module for first, some in found.items() if first not in sys.modules for name, module in some.items()}


def _field(*_: object, **__: object) -> None:
    """A member of a class of data."""


def _module(name: str, **members: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members, __path__=[])
    return made


def _enter_empty(name: str) -> None:
    """Makes a package whose modules can be imported, without running its own code. Raises ImportError."""
    outer, _, last = name.rpartition(".")
    spec = PathFinder.find_spec(name, sys.modules[outer].__path__ if outer else None)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"no package {name}")
    package = ModuleType(name)
    package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations)
    sys.modules[name] = package
    if outer:
        setattr(sys.modules[outer], last, package)


def _remove(modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
