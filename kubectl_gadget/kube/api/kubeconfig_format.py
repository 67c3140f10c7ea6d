"""Checks that a kubeconfig has kubectl's format, before anything relies on it.

So an error of this program or of the library is not blamed on the user's file, and a file from others costs little: in
YAML a few lines can stand for gigabytes, and the library writes them all out.
"""

from pathlib import Path
from typing import Any

from kubectl_gadget.errors import ClusterError
from kubectl_gadget.yaml_files import read_text, safe_loader

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
        raise _wrong(path, f"it has more than {_MOST_VALUES:,} values, by aliases that repeat others")
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


def _check_values(path: Path, where: str, values: dict[Any, Any]) -> None:
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


def _need(path: Path, where: str, value: object, kind: Any, name: str) -> None:
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
