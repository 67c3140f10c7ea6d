"""From packets to messages: TCP, DNS, HTTP, TLS, QUIC."""
