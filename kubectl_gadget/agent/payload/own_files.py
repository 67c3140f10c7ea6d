"""The agent's own files beside its modules, in a folder or in the payload that it travelled in.

The trap: a zip knows no "..", and a file in it has no path that others could open.
"""

import os
from typing import Any

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_loader: Any = __spec__.loader


def read(path: str) -> bytes:
    """`path` is below kubectl_gadget. Raises OSError."""
    data: bytes = _loader.get_data(f"{_ROOT}/{path}")
    return data


def payload() -> str | None:
    """The payload that the agent was imported from; None when it is installed."""
    return getattr(_loader, "archive", None)
