"""Names of gRPC status codes (https://grpc.io/docs/guides/status-codes/)."""

_NAMES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)


def grpc_status_name(number: int) -> str:
    """`NOT_FOUND`; the number itself if it has no name."""
    return _NAMES[number] if 0 <= number < len(_NAMES) else str(number)
