import random
import socket

with socket.create_connection(("memory", 11211)) as asks:
    for number in range(random.randint(100, 300)):
        asks.sendall(f"set key{number} 0 0 5\r\nhello\r\nget key{number}\r\n".encode())
        while b"END" not in asks.recv(4096):
            pass
