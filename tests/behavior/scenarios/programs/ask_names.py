import random
import socket
import struct


def query(name: str) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">HHHHHH", random.getrandbits(16), 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


at = socket.gethostbyname("names")
with socket.socket(type=socket.SOCK_DGRAM) as asks:
    asks.settimeout(10)
    for number in random.sample(range(30), 30) + random.choices(range(30), k=random.randint(0, 20)):
        asks.sendto(query(f"a{number}.shop.example"), (at, 53))
        asks.recv(512)
with socket.create_connection((at, 53)) as asks:
    text = query("b.shop.example")
    asks.sendall(struct.pack(">H", len(text)) + text)
    asks.recv(512)
