"""Sends requests to a web server, in another order and number each time: `load.py HOST PORT [METHOD:]PATH…`.

Each path is asked for at least thrice, since what a program does the first time it may not do again.
"""

import http.client
import random
import sys
from concurrent.futures import ThreadPoolExecutor


def ask(host: str, port: int, request: str) -> int:
    method, _, path = request.rpartition(":")
    body = random.randbytes(random.randint(50_000, 200_000)) if method == "POST" else None
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.request(method or "GET", path, body)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def main() -> int | str:
    host, port, *requests = sys.argv[1:]
    wanted = requests * 3 + random.choices(requests, k=random.randint(10, 40))
    random.shuffle(wanted)
    with ThreadPoolExecutor(random.randint(3, 6)) as pool:
        found = list(pool.map(lambda request: ask(host, int(port), request), wanted))
    failed = [status for status in found if status >= 500]
    return f"{len(failed)} of {len(found)} requests failed" if failed else 0


if __name__ == "__main__":
    sys.exit(main())
