"""Images that nodes already have and that agents can run in, for clusters that cannot pull the default one.

Nodes list their images (status.images). The trap: the list has only names and sizes, and by default only a kubelet's 50
largest images. So the choice is made by name, and images with other names may also contain Python.
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
"""The minor version of Python 3.11."""


@dataclass(frozen=True)
class Candidate:
    """One image."""

    image: str
    nodes: int
    """number of nodes that have it"""
    bytes: int
    ours: bool
    """whether it is an image of ours, which contains an agent"""


async def candidates(api: Api) -> tuple[list[Candidate], int]:
    """Returns the images, those on most nodes first, and the number of nodes. Raises ClusterError."""
    await api.require([Access("list", NODES.plural)], "see which images nodes have", "ask for the right to list nodes")
    nodes = (await api.find(NODES)).items
    return choose(nodes), len(nodes)


def choose(nodes: Iterable[Object]) -> list[Candidate]:
    """Chooses from the nodes' objects."""
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
    """Whether an image of this name probably has Python 3.11 or newer and glibc, or is ours."""
    if _OURS.search(name):
        return not name.endswith("-bcc")
    if not _PYTHON.search(name) or _MUSL.search(name):
        return False
    version = _VERSION.search(name)
    return version is None or int(version[1]) >= _OLDEST
