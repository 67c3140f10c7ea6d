"""A session over two file descriptors: reading requests, making sources, the loop, the end (docs/protocol.md)."""
