"""The agent that this client contains: the files sent to nodes, and the texts that start it in pods.

Made by the build (gadgets/pack_payload.py). The trap: an installation without it can still do what needs no agent, so
its absence is reported only when an agent is to be started.
"""

import base64
import functools
import json
from dataclasses import dataclass
from pathlib import Path

from kubectl_gadget.errors import GadgetError

_FOLDER = Path(__file__).parents[1] / "built" / "payload"
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
    """Returns what is sent to nodes of one architecture. Raises GadgetError."""
    if machine not in payload().architectures:
        raise GadgetError(f"there is no agent for {machine!r}")
    try:
        return b"".join((_FOLDER / f"{name}.xz").read_bytes() for name in ("common", machine))
    except OSError as error:
        raise _missing(error) from None


@functools.cache
def config_map(machine: str) -> dict[str, str]:
    """Returns `binaryData` of a ConfigMap with the agent of one architecture. Raises GadgetError."""
    return {KEY: base64.b64encode(payload_bytes(machine)).decode()}


def _missing(error: OSError) -> GadgetError:
    what = f"this installation contains no agent: {error}"
    return GadgetError(what, "install the wheel of a release; in the source tree: make setup")
