"""Waits for the web server."""

import contextlib
import socket
import time

while True:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", 8123)).close()
        break
    time.sleep(0.1)
