"""Names for the numeric codes of DNS, gRPC (https://grpc.io/docs/guides/status-codes/) and TLS.

The names of DNS come from dnspython, which is imported on first use. A response code has 12 bits with EDNS, and two
negative ones are our own (bpf/trace_dns.bpf.c).
"""

from kubectl_gadget.linux.tables import Namer

_OWN_RCODES = {-1: "NOANSWER", -2: "MALFORMED"}
_DNS_FLAGS = (
    (0x8000, "qr"),
    (0x0400, "aa"),
    (0x0200, "tc"),
    (0x0100, "rd"),
    (0x0080, "ra"),
    (0x0020, "ad"),
    (0x0010, "cd"),
)
_DNS_OPCODES = {1: "iquery", 2: "status", 4: "notify", 5: "update"}
grpc_status_name = Namer(
    (
        *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
        *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
        *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
    )
)
"""`NOT_FOUND` for 5"""
_TLS_VERSIONS = {0x0300: "SSL3", 0x0301: "TLS1.0", 0x0302: "TLS1.1", 0x0303: "TLS1.2", 0x0304: "TLS1.3"}


def dns_type_name(number: int) -> str:
    """`A`, `HTTPS`, `TYPE65534`; empty for 0, which no DNS record has."""
    from dns import rdatatype

    return rdatatype.to_text(rdatatype.RdataType.make(number)) if number else ""


def dns_rcode_name(number: int) -> str:
    """`NOERROR`, `NXDOMAIN`, `NOANSWER`, …"""
    if number in _OWN_RCODES:
        return _OWN_RCODES[number]
    from dns import rcode

    return rcode.to_text(rcode.Rcode(number)) if 0 <= number < 4096 else str(number)


def dns_rcode(name: str) -> int:
    """The number for a name returned by dns_rcode_name(); 0 for our own codes."""
    from dns import rcode

    return 0 if name in _OWN_RCODES.values() else int(rcode.from_text(name))


def dns_flag_names(flags: int) -> str:
    """`qr rd ra`, as in dig; an opcode other than QUERY comes first."""
    opcode = flags >> 11 & 15
    names = [_DNS_OPCODES.get(opcode, f"opcode{opcode}")] if opcode else []
    return " ".join(names + [name for bit, name in _DNS_FLAGS if flags & bit])


def tls_version_name(number: int) -> str:
    """`TLS1.3`; the number in hex if no version has it."""
    return _TLS_VERSIONS.get(number, f"0x{number:04x}" if number else "")
