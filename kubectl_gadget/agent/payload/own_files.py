"""The agent's own files beside its modules, in a folder or in its payload.

The trap: paths in a zip do not resolve "..", and a file in it has no path that other programs could open.
"""

import os
from typing import Any

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_loader: Any = __spec__.loader


def read(path: str) -> bytes:
    """Reads a file. `path` is relative to kubectl_gadget. Raises OSError."""
    data: bytes = _loader.get_data(f"{_ROOT}/{path}")
    return data


def payload() -> str | None:
    """Returns the path of the payload that the agent was imported from; None when the agent is installed."""
    return getattr(_loader, "archive", None)
