"""Five users at once, who begin and end runs on demand at random on a real cluster: none fails, none waits for another.

$SOAK_SECONDS is how long they do that (default: 60, with --long 600). Their agents are in a namespace of
their own, so that others may use the cluster. Most of the time that a run needs until it is attached is what the
machine needs to start pods, so a run's own part is counted: until it has created its pods.
"""

import os
import random
import re
import secrets
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agents.manifests import second_namespace
from kubectl_gadget.agents.pod_readiness import not_ready
from tests.real_cluster.real_cluster import ClusterRun, listed, run_pod
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
USERS = 5
_MOST_SECONDS = 10.0
"""Of a run's own, until its pods are created."""
_KEPT_SECONDS = 600.0
"""After this time nothing of the last run is left."""
_BAD = re.compile(
    r"waiting until|error|(?<!that were )\brefused\b|was deleted|could not be removed|connection lost|may stop"
    r"|Traceback",
    re.I,
)


@dataclass
class Seen:
    """What the users saw."""

    own: list[float] = field(default_factory=list)
    """seconds until a run has created its first pod"""
    attached: list[float] = field(default_factory=list)
    """seconds until it is attached everywhere"""
    ends: dict[str, int] = field(default_factory=dict)
    """how many runs ended by each signal"""
    failures: list[str] = field(default_factory=list)


def use(number: int, nodes: list[str], agents: str, until_time: float, folder: Path, seen: Seen) -> None:
    """One user: begins a run, ends it after a while in some way, and begins the next one."""
    chance = random.Random(number)
    turn = 0
    while time.monotonic() < until_time:
        turn += 1
        where = folder / f"{number}-{turn}"
        where.mkdir()
        began = time.monotonic()
        words = ("trace", "exec", "-A", "-o", "json", "-v", "--start-timeout", "5m", "--agent-namespace", agents)
        node = chance.choice([*nodes, None])
        run = ClusterRun(where, *words, *(("--node", node) if node else ()))
        try:
            run.until_said("starting agent pod")
            seen.own.append(time.monotonic() - began)
            # Some end before their agents have started.
            if chance.random() < 0.8:
                run.until_said("press Ctrl-C to stop")
                seen.attached.append(time.monotonic() - began)
                time.sleep(chance.uniform(0, 15))
            kind = chance.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
            assert run.process.poll() is None, "it has ended by itself"
            run.process.send_signal(kind)
            code = run.process.wait(60)
            seen.ends[kind.name] = seen.ends.get(kind.name, 0) + 1
            assert code in (128 + kind, -kind), f"exit code {code} after {kind.name}"
            assert not _BAD.search(run.said())
        except (AssertionError, TimeoutError) as error:
            seen.failures.append(f"user {number}, run {turn}: {error}: {run.said()}")
            run.process.kill()
        time.sleep(chance.choice([0, 0, 1, 5, 20]))


def namespaces(agents: str) -> list[dict[str, Any]]:
    """The namespaces of the users' agents, with which goes all that is in them."""
    return [found for found in listed("namespaces") if found["metadata"]["name"] in (agents, second_namespace(agents))]


@pytest.mark.timeout(3600)
def test_five_users_who_begin_and_end_at_random_do_not_disturb_each_other(
    namespace: str, tmp_path: Path, is_long: bool
) -> None:
    seconds = float(os.environ.get("SOAK_SECONDS", "600" if is_long else "60"))
    run_pod(namespace, "works", "while :; do /bin/true; sleep 0.5; done")
    nodes = [found["metadata"]["name"] for found in listed("nodes") if not_ready(found) is None]
    seen = Seen()
    agents = f"kg-soak-{secrets.token_hex(3)}"
    began = time.monotonic()
    users = [
        threading.Thread(
            target=use, args=(number, nodes, agents, began + seconds, tmp_path, seen), name=f"user {number}"
        )
        for number in range(USERS)
    ]
    for user in users:
        user.start()
    spaces: set[str] = set()
    while any(user.is_alive() for user in users):
        spaces |= {f"{found['metadata']['name']} {found['metadata']['uid']}" for found in namespaces(agents)}
        time.sleep(3)
    for user in users:
        user.join()
    ended = time.monotonic()
    wait_until(lambda: not namespaces(agents), seconds=_KEPT_SECONDS)
    gone = time.monotonic() - ended
    own, attached = sorted(seen.own), sorted(seen.attached)
    sys.stdout.write(
        f"\n{len(own)} runs of {USERS} users in {ended - began:.0f} s, ended by {seen.ends}; own time until pods are "
        f"created: median {own[len(own) // 2]:.1f} s, most {own[-1]:.1f} s; attached: median "
        f"{attached[len(attached) // 2]:.1f} s, most {attached[-1]:.1f} s; {len(spaces)} namespaces; nothing left "
        f"after {gone:.0f} s; load {os.getloadavg()[0]:.0f}; {len(seen.failures)} failures\n"
    )
    assert not seen.failures, "\n".join(seen.failures)
    assert own[-1] <= _MOST_SECONDS
