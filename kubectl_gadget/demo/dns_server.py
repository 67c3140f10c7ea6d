"""A DNS server for the demo's pods, like a cluster's: it knows the names of services, and no others.

`python3 dns_server.py HOSTS`: HOSTS is a file with an address and a name on each line. It runs alone in a container, so
it uses only the standard library. Messages: RFC 1035, section 4.
"""

import socket
import struct
import sys
from pathlib import Path

_A, _IN = 1, 1
_ANSWER, _NO_SUCH_NAME = 0x8580, 0x8583
_SECONDS = 30


def main() -> None:
    """Answers queries until it is killed."""
    lines = [line.split() for line in Path(sys.argv[1]).read_text().splitlines()]
    addresses = {name: socket.inet_aton(address) for address, name in lines}
    Path("/proc/self/comm").write_text("coredns")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 53))
        while True:
            message, sender = sock.recvfrom(4096)
            answer = reply(message, addresses)
            if answer is not None:
                sock.sendto(answer, sender)


def reply(message: bytes, addresses: dict[str, bytes]) -> bytes | None:
    """The response to a query for an IPv4 address. For known names, other record types get an empty answer. None if
    the message is not a query."""
    try:
        name, rest = _name(message)
        kind, space = struct.unpack_from("!HH", message, rest)
    except (IndexError, struct.error):
        return None
    address = addresses.get(name.lower())
    found = address is not None and (kind, space) == (_A, _IN)
    head = message[:2] + struct.pack("!5H", _NO_SUCH_NAME if address is None else _ANSWER, 1, int(found), 0, 0)
    question = message[12 : rest + 4]
    if address is None or not found:
        return head + question
    # 0xc00c: a pointer to the name at offset 12, in the question.
    return head + question + struct.pack("!HHHIH", 0xC00C, kind, space, _SECONDS, len(address)) + address


def _name(message: bytes) -> tuple[str, int]:
    """The queried name, and the offset after it."""
    labels, offset = [], 12
    while length := message[offset]:
        labels.append(message[offset + 1 : offset + 1 + length].decode("ascii", "replace"))
        offset += 1 + length
    return ".".join(labels), offset + 1


if __name__ == "__main__":
    main()
