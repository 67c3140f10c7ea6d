"""The frames that client and agent speak: bytes in, frames out, no I/O. See docs/protocol.md."""
