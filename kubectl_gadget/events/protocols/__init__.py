"""What DNS, gRPC and TLS call their numbers."""
