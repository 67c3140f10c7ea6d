"""The agent that this client contains (the files sent to nodes, the texts that start it in pods), and the pods' images.

Made by the build (gadgets/pack_payload.py). An installation without it can still do what needs no agent, so its absence
is reported only when an agent is to be started.
"""

import base64
import functools
import json
from dataclasses import dataclass
from pathlib import Path

from kubectl_gadget import __version__
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.kube.cluster_options import AgentOptions

FOLDER = Path(__file__).parents[1] / "built" / "payload"
PYTHON = ("python3", "-I")
KEY = "payload"
"""The key in a ConfigMap with the agent of one architecture."""


@dataclass(frozen=True)
class Payload:
    """The payload for all architectures."""

    offer: str
    """the word of a command that lists the available payloads"""
    bootstrap: str
    """the text that starts a session"""
    on_demand: str
    """the text of the main process of an on-demand pod"""
    architectures: tuple[str, ...]
    """as `uname -m` names them"""

    @property
    def start(self) -> tuple[str, ...]:
        """Returns the words that start the agent in a pod that may not have one; the agent's arguments follow."""
        return (*PYTHON, "-c", self.bootstrap, self.offer)


@functools.cache
def payload() -> Payload:
    """Returns the payload. Raises GadgetError when this installation has none."""
    try:
        index = json.loads((FOLDER / "index.json").read_bytes())
    except OSError as error:
        raise _missing(error) from None
    offers = (f"{machine}={one['bytes']}:{one['sha256']}" for machine, one in index["payloads"].items())
    return Payload(
        offer=",".join(offers),
        bootstrap=index["bootstrap"],
        on_demand=index["on_demand"],
        architectures=tuple(index["payloads"]),
    )


@functools.cache
def payload_bytes(machine: str) -> bytes:
    """Returns what is sent to nodes of one architecture. Raises GadgetError."""
    if machine not in payload().architectures:
        raise GadgetError(f"there is no agent for {machine!r}")
    try:
        return b"".join((FOLDER / f"{name}.xz").read_bytes() for name in ("common", machine))
    except OSError as error:
        raise _missing(error) from None


@functools.cache
def config_map(machine: str) -> dict[str, str]:
    """Returns `binaryData` of a ConfigMap with the agent of one architecture. Raises GadgetError."""
    return {KEY: base64.b64encode(payload_bytes(machine)).decode()}


def _missing(error: OSError) -> GadgetError:
    what = f"this installation contains no agent: {error}"
    return GadgetError(what, "install the wheel of a release; in the source tree: make setup")


# Images. The agent is sent by the run, or lies in a ConfigMap, so any image with Python will do; our own image
# already has the agent and starts faster. Note: texts and help name the default image by its tag, but a release
# pulls it by digest.


DEFAULT_IMAGE = "docker.io/library/python:3.13-slim"
DEFAULT_DIGEST = ""
"""The digest of the default image's index of all architectures. `make digest` writes it; empty: the tag decides."""
OUR_IMAGE = f"ghcr.io/kubectl-gadget/agent:{__version__}"
"""The name that `make image` gives it."""


def image_of(options: AgentOptions) -> str:
    """Returns the agents' image. A plain Python image does not have the bcc tools, so they use one of ours."""
    default = f"{DEFAULT_IMAGE}@{DEFAULT_DIGEST}" if DEFAULT_DIGEST else DEFAULT_IMAGE
    image = options.image or (f"{OUR_IMAGE}-bcc" if options.bcc else default)
    return mirrored(image, options.image_mirror) if options.image_mirror else image


def mirrored(image: str, mirror: str) -> str:
    """Replaces the image's registry by `mirror`. The first part of a name counts as a registry, as in container
    runtimes, if it has a dot or a colon, or is localhost; a name without one belongs to Docker Hub."""
    first, slash, rest = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path = rest
    else:
        path = image if slash else f"library/{image}"
    return f"{mirror.rstrip('/')}/{path}"
