"""Images that nodes have already and that agents can run in, for clusters that cannot pull the default one.

Nodes say which images they have (status.images). The trap: they say names and sizes only, and a kubelet names its 50
largest by default, so this is a choice by name: an image of another name may have Python, too.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_gadget.cluster.api.failure import Access
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import NODES, Object

_OURS = re.compile(r"(^|/)kubectl-gadget/agent[:@]")
_PYTHON = re.compile(r"(^|/)[a-z0-9._-]*python[a-z0-9._-]*(/[a-z0-9._-]+)*[:@]")
_VERSION = re.compile(r"(?:python|:)-?3[.-]?(\d+)")
_MUSL = re.compile(r"alpine|musl")
_OLDEST = 11
"""The 3.11 of Python 3.11."""


@dataclass(frozen=True)
class Candidate:
    """One image."""

    image: str
    nodes: int
    """how many have it"""
    bytes: int
    ours: bool
    """it is an image of ours, which has an agent"""


async def candidates(api: Api) -> tuple[list[Candidate], int]:
    """Those that most nodes have come first; and how many nodes there are. Raises ClusterError."""
    await api.require([Access("list", NODES.plural)], "see which images nodes have", "ask for the right to list nodes")
    nodes = (await api.find(NODES)).items
    return choose(nodes), len(nodes)


def choose(nodes: Iterable[Object]) -> list[Candidate]:
    """From the nodes' objects."""
    found: dict[str, Candidate] = {}
    for node in nodes:
        for image in node.get("status", {}).get("images") or []:
            names = [str(name) for name in image.get("names") or []]
            name = next((name for name in names if "@" not in name), names[0] if names else "")
            if not fits(name):
                continue
            before = found.get(name)
            size, count = int(image.get("sizeBytes") or 0), before.nodes if before else 0
            found[name] = Candidate(name, count + 1, size, bool(_OURS.search(name)))
    return sorted(found.values(), key=lambda one: (-one.nodes, not one.ours, one.bytes, one.image))


def fits(name: str) -> bool:
    """Whether an image of this name should have Python 3.11 or newer and glibc, or is ours."""
    if _OURS.search(name):
        return not name.endswith("-bcc")
    if not _PYTHON.search(name) or _MUSL.search(name):
        return False
    version = _VERSION.search(name)
    return version is None or int(version[1]) >= _OLDEST
