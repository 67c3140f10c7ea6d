"""A session over two file descriptors: reading requests, making sources, the main loop, the end (docs/protocol.md)."""
