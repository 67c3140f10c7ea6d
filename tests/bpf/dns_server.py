"""A DNS server for tests: over UDP and TCP, with answers that names decide, by threads that end with the process.

nx.… does not exist, silent.… is never answered, big.… has an answer of about 9 KiB, all else is 10.1.2.3.
"""

import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

ADDRESS = "10.1.2.3"


def answer_to(wire: bytes) -> bytes | None:
    query = dns.message.from_wire(wire)
    question = query.question[0]
    name = question.name
    kind = name.to_text().split(".")[0]
    response = dns.message.make_response(query)
    if kind == "silent":
        return None
    if kind == "nx":
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif kind == "big":
        texts = [f'"{number:0250}"' for number in range(35)]
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *texts))
    else:
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", ADDRESS))
    return response.to_wire(max_size=65535)


class DnsServer:
    """Listens on a port of `host`, the same for UDP and TCP. Over TCP it sends `piece` bytes at a time."""

    def __init__(self, host: str, port: int = 53, piece: int = 1 << 16) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._piece = piece
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._udp.bind((host, port))
        self._tcp = socket.socket(family)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._tcp.bind((host, port))
        self._tcp.listen()
        for work in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=work, daemon=True).start()

    def _serve_udp(self) -> None:
        while True:
            wire, client = self._udp.recvfrom(65535)
            if (answer := answer_to(wire)) is not None:
                self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while head := file.read(2):
                answer = answer_to(file.read(int.from_bytes(head)))
                if answer is None:
                    continue
                data = len(answer).to_bytes(2) + answer
                for start in range(0, len(data), self._piece):
                    connection.sendall(data[start : start + self._piece])
