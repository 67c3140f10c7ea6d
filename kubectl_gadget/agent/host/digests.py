"""SHA-256. The trap: importing hashlib loads libcrypto, 4 MB that no other part of an agent needs."""

from importlib import import_module


def digest(data: bytes) -> str:
    """Returns the SHA-256 as hexadecimal digits."""
    try:
        module = import_module("_sha2")  # of Python 3.12 and newer
    except ImportError:
        module = import_module("hashlib")
    found: str = module.sha256(data).hexdigest()
    return found
