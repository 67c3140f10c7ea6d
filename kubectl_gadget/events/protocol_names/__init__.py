"""Names for the numeric codes of DNS, gRPC and TLS."""
