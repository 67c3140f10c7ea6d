"""The demo's web server: HTTP on port 80, and HTTPS on port 443.

`python3 web.py CERTIFICATE [ADDRESS]`: a file with a key and its certificate, and the address at which it listens. It
runs alone in a container, so it uses only the standard library. Note that http.server.HTTPServer looks up its own name
in DNS, which may block.
"""

import socketserver
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

_LANDING = "/v1/request-landing"
_PORT = "/v1/exhaust-port"
_ANSWERS = {
    ("GET", "/v1/"): (200, '{"name": "Death Star", "hostname": "deathstar"}\n'),
    ("POST", _LANDING): (200, "Ship landed\n"),
    ("GET", _LANDING): (405, "POST it\n"),
    ("GET", _PORT): (503, "Panic: deathstar exploded\n"),
}


class Handler(BaseHTTPRequestHandler):
    """Answers from the table."""

    protocol_version = "HTTP/1.1"
    timeout = 10.0

    def answer(self) -> None:
        """Sends one response."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, text = _ANSWERS.get((self.command, self.path), (404, "no such place\n"))
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PUT = answer

    def log_message(self, format: str, *args: object) -> None:
        """Does nothing: nobody reads the log."""


class Server(socketserver.ThreadingTCPServer):
    """One thread for each connection. With `tls`, the handshake is in the thread, so that a slow client does not block
    others."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__((address, port), Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that disconnects is not reported."""


def main() -> None:
    """Serves until it is killed."""
    Path("/proc/self/comm").write_text("web")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[1])
    address = sys.argv[2] if len(sys.argv) > 2 else ""
    threading.Thread(target=Server(address, 443, tls).serve_forever, daemon=True).start()
    Server(address, 80).serve_forever()


if __name__ == "__main__":
    main()
