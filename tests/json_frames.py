"""Frames whose payload is JSON, for tests that speak the protocol themselves."""

import json
from typing import Any

from kubectl_gadget.wire.frames import encode


def encode_json(type: int, value: dict[str, Any]) -> bytes:
    """One whole frame whose payload is compact JSON."""
    return encode(type, json.dumps(value, separators=(",", ":")).encode())
