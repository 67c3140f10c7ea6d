"""The objects that belong to this agent's version, by gadget and hash (catalogue/contained_gadgets.py).

The trap: importing hashlib loads libcrypto, 4 MB that no other part of an agent needs.
"""

import json
from importlib import import_module
from typing import Any

from kubectl_gadget.agent.payload import own_files
from kubectl_gadget.errors import AgentError


def known_objects() -> dict[str, dict[str, Any]]:
    """Returns the catalogue's entries by name. Raises AgentError when the file is missing."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(own_files.read("built/contained.json"))
    except (OSError, ValueError) as error:
        raise AgentError(f"the agent's catalogue cannot be read: {error}", "build it (make setup)") from None
    return found


def digest(data: bytes) -> str:
    """Returns the SHA-256 as hexadecimal digits."""
    try:
        module = import_module("_sha2")  # of Python 3.12 and newer
    except ImportError:
        module = import_module("hashlib")
    found: str = module.sha256(data).hexdigest()
    return found
