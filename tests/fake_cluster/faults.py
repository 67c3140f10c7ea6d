"""Faults that a test can inject. All may be changed while the cluster runs."""

from dataclasses import dataclass, field


@dataclass
class Faults:
    """The faults; by default there are none."""

    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """(verb, resource or resource/subresource) denied by RBAC, such as ("create", "pods/exec")"""
    forbidden_in_whole: set[tuple[str, str]] = field(default_factory=set)
    """denied for all namespaces together, but allowed in each namespace"""
    foreign: set[str] = field(default_factory=set)
    """namespaces in which, and on which, RBAC allows nothing"""
    held_reviews: bool = False
    """questions about rights get no answer"""
    held_lists: set[str] = field(default_factory=set)
    """resources for which requests to list all namespaces get no answer"""
    unauthorized: bool = False
    """every request is answered with 401"""
    refused_tokens: set[str] = field(default_factory=set)
    """requests with one of these tokens are answered with 401"""
    busy: int = 0
    """this many requests are answered with 429"""
    starting: int = 0
    """this many requests are answered with 500, as by a server that has just started"""
    failing_logs: int = 0
    """this many requests for logs are answered with 500, as by a kubelet that cannot be reached"""
    warning: str | None = None
    """a warning sent with every answer"""
    subprotocols: tuple[str, ...] = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    """subprotocols of exec"""
    policy_not_in_force: bool = False
    """the API server has the policy for observers but does not apply it"""
    refused_exec: dict[str, int] = field(default_factory=dict)
    """node → HTTP status of the answer to exec"""
    cut_after: dict[str, int] = field(default_factory=dict)
    """node → bytes of output after which the connection of its next exec is cut, once"""
    piece: int | None = None
    """maximum bytes in a message of output"""
    slow: float = 0.0
    """seconds of pause after each message of output"""
    silent_exec: set[str] = field(default_factory=set)
    """nodes that accept exec but send nothing"""
    frozen: set[str] = field(default_factory=set)
    """nodes whose exec connections pass no data in either direction, as if a cable had been pulled"""
    waiting: dict[str, tuple[str, str]] = field(default_factory=dict)
    """node → (reason, message) with which new pods stay in Waiting, such as ErrImagePull"""
    crash: dict[str, tuple[int, str]] = field(default_factory=dict)
    """node → (exit code, last lines of the log) with which new pods end at once"""
    pod_security: bool = False
    """pods that need privileges are rejected, as in a namespace without the label"""
    admission: str = ""
    """the message with which an admission policy rejects pods"""
    admission_namespaces: set[str] = field(default_factory=set)
    """the only namespaces to which that policy applies; empty: all"""
    expire_watches: bool = False
    """watches from an earlier version are answered with 410"""
    broken_watches: int = 0
    """this many watches are cut as soon as they start"""
    babbling_watches: int = 0
    """this many watches start with something that is not a watch message"""
    slow_namespaces: float = 0.0
    """seconds for which a deleted namespace stays in Terminating"""
    no_addresses: bool = False
    """the cluster has no objects for the addresses of services, as before Kubernetes 1.33"""
