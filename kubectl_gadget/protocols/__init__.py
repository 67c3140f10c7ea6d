"""Turns packets into messages: TCP, DNS, HTTP, TLS, QUIC."""
