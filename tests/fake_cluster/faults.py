"""What a test can let go wrong. All of it may be changed while the cluster runs."""

from dataclasses import dataclass, field


@dataclass
class Faults:
    """Everything off."""

    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """(verb, resource or resource/subresource) that RBAC refuses, as ("create", "pods/exec")"""
    forbidden_in_whole: set[tuple[str, str]] = field(default_factory=set)
    """the same, and allowed in each namespace"""
    held_lists: set[str] = field(default_factory=set)
    """resources whose lists of all namespaces get no answer"""
    unauthorized: bool = False
    """every request is answered with 401"""
    refused_tokens: set[str] = field(default_factory=set)
    """requests that bear one of these are answered with 401"""
    busy: int = 0
    """so many requests are answered with 429"""
    starting: int = 0
    """so many requests are answered with 500, as by a server that has just begun"""
    warning: str | None = None
    """sent with every answer"""
    subprotocols: tuple[str, ...] = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    """of exec"""
    policy_not_in_force: bool = False
    """the API server has the policy for observers, and does not go by it"""
    refused_exec: dict[str, int] = field(default_factory=dict)
    """node → HTTP status with which exec is answered"""
    cut_after: dict[str, int] = field(default_factory=dict)
    """node → bytes of output after which its next exec's connection is cut, once"""
    piece: int | None = None
    """largest number of bytes in a message of output"""
    slow: float = 0.0
    """seconds of pause after each message of output"""
    silent_exec: set[str] = field(default_factory=set)
    """nodes whose exec is accepted, and then says nothing"""
    frozen: set[str] = field(default_factory=set)
    """nodes whose exec connections pass nothing on in either way, as when a cable was pulled"""
    waiting: dict[str, tuple[str, str]] = field(default_factory=dict)
    """node → (reason, message) with which new pods wait for ever, as ErrImagePull"""
    crash: dict[str, tuple[int, str]] = field(default_factory=dict)
    """node → (exit code, last lines of the log) with which new pods end at once"""
    pod_security: bool = False
    """pods that need privileges are refused, as in a namespace without the label"""
    expire_watches: bool = False
    """watches from an earlier version are answered with 410"""
    broken_watches: int = 0
    """so many watches are cut as soon as they begin"""
    babbling_watches: int = 0
    """so many watches begin with something that is no message of a watch"""
    slow_namespaces: float = 0.0
    """seconds that a deleted namespace stays in Terminating"""
