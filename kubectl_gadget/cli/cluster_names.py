"""Completion of names that only a cluster or a kubeconfig has.

It runs kubectl, which is installed since it runs our completion, and which answers five times sooner than our own
client. The trap: an unreachable cluster must not delay the user's TAB key by more than `_SECONDS`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kubectl_gadget.cli.flags.arguments import Given

if TYPE_CHECKING:
    import subprocess

_SECONDS = 2.0
_PLAIN = (
    *("kubeconfig", "context", "cluster", "user", "server", "token", "certificate_authority", "client_certificate"),
    *("client_key", "insecure_skip_tls_verify", "tls_server_name"),
)
_CONNECTION = {
    **{name: f"--{name.replace('_', '-')}" for name in _PLAIN},
    **{"as_user": "--as", "as_groups": "--as-group"},
}
"""The flags of kubectl among ClusterFlags, which takes too long to import, by field."""


def of_flag(name: str, given: Sequence[Given], positionals: Sequence[str] = ()) -> list[str]:
    """Values for the flag in the field `name`; none if they do not come from a cluster."""
    lookup = _LOOKUPS.get(name)
    if lookup is not None:
        return _ask(*lookup, given=given)
    if name == "containers" and not _is_local(given):
        path = "{range .items[*]}{range .spec.containers[*]}{.name} {end}{end}" if not positionals else ""
        path = path or "{range .spec.containers[*]}{.name} {end}"
        return _ask("get", "pods", *positionals[:1], *_scope(given), f"-o=jsonpath={path}", given=given)
    return []


def pods(given: Sequence[Given]) -> list[str]:
    """Pods of the namespaces that the flags select."""
    return of_kind("pods", given)


def of_kind(plural: str, given: Sequence[Given]) -> list[str]:
    """Objects of one kind in the namespaces that the flags select."""
    return [] if _is_local(given) else _ask("get", plural, *_scope(given), "-o=name", given=given)


_LOOKUPS: Mapping[str, tuple[str, ...]] = {
    "namespace": ("get", "namespaces", "-o=name"),
    "nodes": ("get", "nodes", "-o=name"),
    "context": ("config", "get-contexts", "-o=name"),
    "cluster": ("config", "get-clusters"),
    "user": ("config", "get-users"),
}


def _is_local(given: Sequence[Given]) -> bool:
    return any(item.name == "local" and item.value is True for item in given)


def _scope(given: Sequence[Given]) -> list[str]:
    last = {item.name: item.value for item in given}
    if last.get("all_namespaces") is True:
        return ["--all-namespaces"]
    return [f"--namespace={last['namespace']}"] if "namespace" in last else []


def _connection(given: Sequence[Given]) -> list[str]:
    return [f"{_CONNECTION[item.name]}={item.value}" for item in given if item.name in _CONNECTION]


def _ask(*words: str, given: Sequence[Given]) -> list[str]:
    """The output of kubectl, without kinds and titles. After an error nothing is offered."""
    import subprocess

    command = ["kubectl", *words, *_connection(given)]
    if words[0] != "config":
        command.append(f"--request-timeout={_SECONDS:.0f}s")
    try:
        done = _run(command, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return []
    names = [word.rpartition("/")[2] if words[0] == "get" else word for word in done.stdout.split()]
    return [name for name in dict.fromkeys(names) if name != "NAME"]


def _run(command: list[str], timeout: float) -> "subprocess.CompletedProcess[str]":
    import subprocess  # takes 4 ms, and most TAB keys need no cluster

    quiet = subprocess.DEVNULL
    return subprocess.run(command, stdin=quiet, capture_output=True, text=True, timeout=timeout, check=True)
