"""The agent that this client carries: what is sent to nodes, and the texts that their pods start with.

Made by the build (catalogue/payload.py). The trap: an installation without it can still do what needs no agent, so
that it is missing is said only when one is to be started.
"""

import base64
import functools
import json
from dataclasses import dataclass
from pathlib import Path

from kubectl_gadget.errors import GadgetError

_FOLDER = Path(__file__).parents[2] / "built" / "payload"
PYTHON = ("python3", "-I")
KEY = "payload"
"""In a ConfigMap with the agent of one architecture."""


@dataclass(frozen=True)
class Payload:
    """Of all architectures."""

    offer: str
    """the word of a command that says which payloads there are"""
    bootstrap: str
    """the text that starts a session"""
    on_demand: str
    """the text of the main process of a pod on demand"""
    architectures: tuple[str, ...]
    """as `uname -m` names them"""

    @property
    def start(self) -> tuple[str, ...]:
        """The words that start the agent in a pod that may have none; those for the agent follow."""
        return (*PYTHON, "-c", self.bootstrap, self.offer)


@functools.cache
def payload() -> Payload:
    """Raises GadgetError when this installation has none."""
    try:
        index = json.loads((_FOLDER / "index.json").read_bytes())
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
    """What is sent to nodes of one architecture. Raises GadgetError."""
    if machine not in payload().architectures:
        raise GadgetError(f"there is no agent for {machine!r}")
    try:
        return (_FOLDER / f"{machine}.zip").read_bytes()
    except OSError as error:
        raise _missing(error) from None


@functools.cache
def config_map(machine: str) -> dict[str, str]:
    """`binaryData` of a ConfigMap with the agent of one architecture. Raises GadgetError."""
    return {KEY: base64.b64encode(payload_bytes(machine)).decode()}


def _missing(error: OSError) -> GadgetError:
    what = f"this installation carries no agent: {error}"
    return GadgetError(what, "install the wheel of a release; in the source tree: make setup")
