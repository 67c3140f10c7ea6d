"""Reads names of pods, nodes, namespaces, labels, registries and functions."""

import re
from collections.abc import Sequence

from kubectl_gadget.cli.values.word_lists import commas, each
from kubectl_gadget.errors import UsageError
from kubectl_gadget.similar_names import meant

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_SUBDOMAIN = r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?"
_REGISTRY = r"(?ai)[a-z0-9]([-.a-z0-9]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]+([-._]+[a-z0-9]+)*)*/?"
"""Patterns are compiled at first use, as in amounts.py."""


def label_selector(text: str) -> str:
    """A label selector in kubectl's syntax. Raises UsageError if it does not parse."""
    from kubectl_gadget.kube import label_selectors

    label_selectors.parse(text)
    return text


def registry(text: str) -> str:
    """A registry, or a path in one, without the scheme of a URL: registry.example:5000/ghcr."""
    if "://" in text:
        raise ValueError("is a URL; write it without https://, as in image names")
    if not re.fullmatch(_REGISTRY, text):
        raise ValueError("is not a registry like registry.example or registry.example:5000/ghcr")
    return text.rstrip("/")


def node_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Node names, comma-separated or repeated, also as node/NAME."""
    return each(lambda text: _resource_name(text, ("node", "nodes", "no"), "node", _SUBDOMAIN), commas(texts))


def pod_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Pod names, also as pod/NAME; other targets as KIND/NAME with the kinds of cluster.target_names.KINDS."""
    return each(_target, texts)


def _target(text: str) -> str:
    from kubectl_gadget.run.selection.target_names import kind_of

    if len(text.split()) > 1:
        raise ValueError("is not the name of a pod; conditions need a flag: --filter, or --pcap where there is one")
    if text.endswith(RECORDING):
        raise ValueError(f"is a recording and not a pod: kubectl gadget replay {text} shows it")
    prefix, slash, name = text.rpartition("/")
    kind = kind_of(prefix) if slash else "pod"
    if kind is None and prefix:
        raise ValueError(_wrong_kind(prefix, name))
    name = _resource_name(name if kind else text, (), kind or "pod", _SUBDOMAIN)
    return name if kind == "pod" else f"{kind}/{name}"


RECORDING = ".kgr"
_FLAGS = {
    **dict.fromkeys(("node", "nodes", "no"), "--node {}"),
    **dict.fromkeys(("namespace", "namespaces", "ns"), "-n {}"),
    **dict.fromkeys(("container", "containers"), "-c {}"),
}
"""The flag that selects objects of a kind."""


def _wrong_kind(spelling: str, name: str) -> str:
    from kubectl_gadget.run.selection.target_names import BY_SPELLING, KINDS

    if "/" in spelling:
        return "is not the name of a pod"
    if flag := _FLAGS.get(spelling.lower()):
        return f"is not a pod or a workload; use {flag.format(name)}"
    return f"has the unknown kind {spelling!r}; kinds are {', '.join(KINDS)}{meant(spelling, BY_SPELLING)}"


def object_name(text: str) -> str:
    if not re.fullmatch(_SUBDOMAIN, text):
        raise ValueError("is not a valid Kubernetes name: use lower-case letters, digits, - and .")
    return text


def functions(text: str) -> str:
    """Comma-separated FILE:SYMBOL, unchanged."""
    for target in text.split(","):
        file, _, symbol = target.rpartition(":")
        if not file or not symbol:
            raise ValueError("is not a function; write FILE:SYMBOL, such as libc:getaddrinfo")
    return text


def functions_and_pods(texts: Sequence[str]) -> tuple[str, ...]:
    """Functions, which contain a colon, unchanged, and then pods."""
    of_functions = [functions(text) for text in texts if ":" in text]
    pods = [text for text in texts if ":" not in text]
    try:
        return (*of_functions, *pod_names(pods))
    except ValueError:
        for text in pods:
            if re.fullmatch(_IDENTIFIER, text):
                raise function_without_file(text) from None
        raise


def function_without_file(symbol: str) -> UsageError:
    """The error for a function without a file, in a place where a pod is also possible."""
    import ctypes

    if not re.fullmatch(_IDENTIFIER, symbol):
        return UsageError("no function was given", f"FILE:SYMBOL before the pods, such as libc:getaddrinfo {symbol}")
    try:
        is_of_libc = hasattr(ctypes.CDLL(None), symbol)
    except (OSError, TypeError):  # Windows
        is_of_libc = False
    others = f"/path/in/the/container:{symbol}, or libNAME:{symbol} for a function of a library"
    what = f"{symbol!r} has no file; write functions as FILE:SYMBOL"
    return UsageError(what, f"libc:{symbol}" if is_of_libc else others)


def namespace(text: str) -> str:
    if "," in text:
        raise ValueError('names more than one namespace; use -A with --filter \'namespace in ["a", "b"]\'')
    return _resource_name(text, ("namespace", "namespaces", "ns"), "namespace", _LABEL)


def _resource_name(text: str, kinds: tuple[str, ...], kind: str, allowed: str) -> str:
    prefix, slash, name = text.rpartition("/")
    if slash and prefix.lower() not in kinds:
        raise ValueError(f"is not the name of a {kind}")
    if not re.fullmatch(allowed, name) or len(name) > 253:
        raise ValueError(f"is not a valid {kind} name: use lower-case letters, digits and dashes")
    return name


def node_selector(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Labels of nodes as pairs: key=value,key=value."""
    pairs = {}
    for text in commas(texts):
        key, equals, value = text.partition("=")
        if not equals or not key or key.endswith("!") or value.startswith("="):
            raise ValueError(f"{text!r} is not key=value")
        pairs[key] = value
    return tuple(pairs.items())
