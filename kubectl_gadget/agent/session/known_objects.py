"""The objects that belong to this agent's version, by gadget and hash (catalogue/contained_gadgets.py)."""

import json
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
