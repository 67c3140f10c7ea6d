"""The five programs: how each is started, what is asked of it, and how it is stopped, as in images of a registry.

`front` (nginx, two replicas) forwards to `api` (gunicorn with Flask) and `orders` (Node); both use `cache` (redis);
`db` is PostgreSQL. What loads a program is a pod of its own, which is compared as well. Loads are random in number,
order and contents; whatever happens only sometimes is made to happen in each run by asking often enough.
"""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PROGRAMS = Path(__file__).with_name("programs")


@dataclass(frozen=True)
class Workload:
    """One program. The pods of a StatefulSet are numbered, those of a Deployment have random names."""

    name: str
    package: str
    """Debian's"""
    script: str
    """of /bin/sh, which starts the program"""
    port: int
    load: str
    """of /bin/sh, in a pod of its own"""
    kind: str = "Deployment"
    replicas: int = 1
    stop: signal.Signals = signal.SIGTERM
    started: str = ""
    """a file that exists once it has started; empty: it has when it listens"""
    files: Mapping[str, str] = field(default_factory=dict)
    """path below the root → text; and the program's own"""


def text_of(name: str) -> str:
    """A file of the programs."""
    return (_PROGRAMS / name).read_text()


LOAD_FILES: Mapping[str, str] = {
    f"srv/{name}": text_of(name) for name in ("load.py", "send_mail.py", "ask_names.py", "fill_memory.py")
}
_STATIC = "/ /index.html /missing"

FRONT = Workload(
    "front",
    "nginx",
    text_of("front.sh"),
    80,
    f"python3 /srv/load.py front 80 {_STATIC} /api/visits POST:/api/upload /orders/order /orders/day",
    replicas=2,
    stop=signal.SIGQUIT,
    files={"etc/nginx/nginx.conf": text_of("nginx.conf"), "usr/share/nginx/html/index.html": "<h1>Hello</h1>\n"},
)
API = Workload(
    "api",
    "gunicorn",
    text_of("api.sh"),
    8000,
    "python3 /srv/load.py api 8000 /visits '/price?of=tea' POST:/upload /report /missing",
    started="var/log/app.log",
    files={"srv/app/app.py": text_of("app.py"), "srv/app/prices.py": text_of("prices.py")},
)
ORDERS = Workload(
    "orders",
    "nodejs",
    "exec node /srv/orders.js\n",
    3000,
    "python3 /srv/load.py orders 3000 /stock /order /total /day /missing",
    files={"srv/orders.js": text_of("orders.js")},
)
CACHE = Workload(
    "cache",
    "redis-server",
    text_of("cache.sh"),
    6379,
    text_of("load_cache.sh"),
    kind="StatefulSet",
    files={"etc/redis/redis.conf": text_of("redis.conf")},
)
DB = Workload(
    "db", "postgresql-17", text_of("db.sh"), 5432, text_of("load_db.sh"), kind="StatefulSet", stop=signal.SIGINT
)
WORKLOADS = (CACHE, DB, API, ORDERS, FRONT)
"""in the order in which they start: nginx looks up the names of others at its start"""
