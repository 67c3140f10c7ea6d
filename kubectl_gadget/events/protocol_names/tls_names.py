"""Names of TLS versions."""

_VERSIONS = {0x0300: "SSL3", 0x0301: "TLS1.0", 0x0302: "TLS1.1", 0x0303: "TLS1.2", 0x0304: "TLS1.3"}


def tls_version_name(number: int) -> str:
    """`TLS1.3`; the number in hex if no version has it."""
    return _VERSIONS.get(number, f"0x{number:04x}" if number else "")
