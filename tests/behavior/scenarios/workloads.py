"""The five programs: how each is started, what is asked of it, and how it is stopped, as in images of a registry.

`front` (nginx, two replicas) forwards to `api` (gunicorn with Flask) and `orders` (Node); both use `cache` (redis);
`db` is PostgreSQL. What loads a program is a pod of its own, which is compared as well. The trap: loads are random in
number, order and contents; whatever happens only sometimes is made to happen in each run by asking often enough.
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


def _text(name: str) -> str:
    return (_PROGRAMS / name).read_text()


_LOAD = {"srv/load.py": _text("load.py")}
LOAD_FILES: Mapping[str, str] = _LOAD
_STATIC = "/ /index.html /missing"

FRONT = Workload(
    "front",
    "nginx",
    _text("front.sh"),
    80,
    f"python3 /srv/load.py front 80 {_STATIC} /api/visits POST:/api/upload /orders/order /orders/day",
    replicas=2,
    stop=signal.SIGQUIT,
    files={"etc/nginx/nginx.conf": _text("nginx.conf"), "usr/share/nginx/html/index.html": "<h1>Hello</h1>\n"},
)
API = Workload(
    "api",
    "gunicorn",
    _text("api.sh"),
    8000,
    "python3 /srv/load.py api 8000 /visits '/price?of=tea' POST:/upload /report /missing",
    started="var/log/app.log",
    files={"srv/app/app.py": _text("app.py"), "srv/app/prices.py": _text("prices.py")},
)
ORDERS = Workload(
    "orders",
    "nodejs",
    "exec node /srv/orders.js\n",
    3000,
    "python3 /srv/load.py orders 3000 /stock /order /total /day /missing",
    files={"srv/orders.js": _text("orders.js")},
)
CACHE = Workload(
    "cache",
    "redis-server",
    _text("cache.sh"),
    6379,
    _text("load_cache.sh"),
    kind="StatefulSet",
    files={"etc/redis/redis.conf": _text("redis.conf")},
)
DB = Workload("db", "postgresql-17", _text("db.sh"), 5432, _text("load_db.sh"), kind="StatefulSet", stop=signal.SIGINT)
WORKLOADS = (CACHE, DB, API, ORDERS, FRONT)
"""in the order in which they start: nginx looks up the names of others at its start"""
