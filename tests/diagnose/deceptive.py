"""Causes that look like another one: by its log or its status, a pod seems to ail from something else. They are data.

Each case is what the kernel shows, an example or the scenarios of its rule, and beside it what misleads: the log of a
container that has ended before, and what the API says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LOOPS: Mapping[str, Any] = {
    "object": "container",
    "state": "waiting",
    "reason": "CrashLoopBackOff",
    "restarts": 7,
    "last_exit_code": 1,
    "ready": False,
}


@dataclass(frozen=True)
class Case:
    """A cause, and what hides it."""

    what: str
    """what it looks like"""
    rule: str
    """that must come first; its first example and its scenarios are what is seen"""
    log: str
    """of the run before"""
    claims: Sequence[str]
    """words for what it is not: in no root"""
    records: Sequence[Mapping[str, Any]] = ()
    """of the API, beside those of the example"""


CASES = (
    Case(
        "a configuration that is missing looks like a database that is down",
        "defaults-used",
        "cannot reach database\ndial tcp 127.0.0.1:5432: connect: connection refused\n",
        ("database", "the server is down"),
        [LOOPS],
    ),
    Case(
        "a configuration that is missing looks like a wrong license",
        "config-file-missing",
        "license expired\n",
        ("license", "expired"),
        [LOOPS],
    ),
    Case("a strict liveness probe looks like an orderly end", "liveness-probe-kills", "shutting down, bye\n", ("bye",)),
    Case("a server on loopback looks ready", "listens-on-loopback", "ready to accept connections\n", ("ready to",)),
    Case(
        "DNS without answers looks like a slow API",
        "dns-not-answered",
        "the API is slow\ndial tcp 10.9.0.1:443: i/o timeout\n",
        ("the API", "10.9.0.1:443"),
    ),
    Case("late answers of DNS look like a slow API", "dns-slow", "the API is slow\n", ("the API",)),
    Case("a search storm looks like a slow API", "dns-search-storm", "the API is slow\n", ("the API",)),
    Case("a CPU limit looks like a slow database", "cpu-throttled", "database is slow\n", ("database",)),
    Case(
        "a Secret that its user may not read looks like a wrong password",
        "permission-denied",
        "FATAL: password authentication failed\n",
        ("authentication failed", "credentials"),
        [LOOPS],
    ),
    Case(
        "a connection that the server closes first looks like a random 502",
        "idle-connection-reset",
        "502 Bad Gateway\n",
        ("502", "Bad Gateway"),
    ),
    Case(
        "carriage returns look like a script that is not there",
        "script-with-carriage-return",
        "exec /app/run.sh: no such file or directory\n",
        ("no such file", "does not exist"),
        [LOOPS],
    ),
    Case(
        "a missing loader looks like a program that is not there",
        "loader-not-found",
        "exec /app/server: no such file or directory\n",
        ("no such file", "server does not exist"),
        [LOOPS],
    ),
    Case("an ignored SIGTERM looks like a lack of memory", "sigterm-ignored", "Killed\n", ("out of memory", "OOM")),
    Case(
        "missing authorities look like a server that is down",
        "ca-bundle-missing",
        "payment service is down\n",
        ("is down",),
    ),
    Case("an expired certificate looks like a busy server", "certificate-expired", "server is busy\n", ("busy",)),
    Case("a refused certificate looks like a busy server", "certificate-refused", "server is busy\n", ("busy",)),
    Case(
        "limits of inotify look like too many files",
        "inotify-limit",
        "OSError: [Errno 24] Too many open files\n",
        ("Too many open files",),
        [LOOPS],
    ),
    Case("a slow disk looks like a slow consumer", "disk-slow", "slow consumer, leader changed\n", ("consumer",)),
    Case(
        "packets that are too large look like a server that hangs",
        "packets-too-large",
        "dial tcp 10.1.0.2:443: i/o timeout\n",
        ("i/o timeout",),
    ),
    Case(
        "a dead first address looks like a slow server",
        "first-address-dead",
        "server is slow\ndial tcp 10.1.0.9:80: i/o timeout\n",
        ("i/o timeout", "server is slow"),
    ),
    Case("a full queue looks like packet loss", "listen-overflow", "packet loss\n", ("are lost", "a firewall")),
    Case(
        "a full queue looks like packet loss, to a look",
        "accept-queue-full",
        "packet loss\n",
        ("are lost", "a firewall"),
    ),
    Case(
        "no local ports look like a database that is down",
        "ports-used-up",
        "database is down\nOSError: [Errno 99] Cannot assign requested address\n",
        ("is down", "[Errno 99]", "an error of the system"),
        [LOOPS],
    ),
    Case(
        "an old address looks like a server that is down",
        "address-of-no-pod",
        "server is down\ndial tcp 10.1.0.99:80: no route to host\n",
        ("is down", "an error of the system"),
        [LOOPS],
    ),
    Case("a lock looks like a slow database", "lock-contention", "database is slow\n", ("database",)),
    Case("workers that wait look like too few workers", "workers-wait-for-peer", "no worker free\n", ("more workers",)),
    Case("a hidden crash looks like an invalid input", "crashed", "invalid input\n", ("input",)),
    Case(
        "a port that is not allowed looks like one in use",
        "port-not-allowed",
        "port 80 is in use\nlisten tcp :80: bind: permission denied\n",
        ("in use", "an error of the system"),
        [LOOPS],
    ),
    Case(
        "seccomp looks like a kernel without sandboxes",
        "seccomp-refuses",
        "no sandbox\nunshare: unshare failed: Operation not permitted\n",
        ("sandbox", "an error of the system"),
        [LOOPS],
    ),
    Case("a server that vanished looks like a slow query", "peer-vanished", "query is slow\n", ("query",)),
)
"""The deceptive ones of the causes in docs/design/diagnose.md."""
LOGS: Mapping[str, Case] = {each.rule: each for each in CASES}
