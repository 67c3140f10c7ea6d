"""Maps of which each container has a share: one that has filled its own leaves room for others, and its own losses
count."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.ring_fairness import ContainerNumbers
from kubectl_gadget.agent.sources.output import EventsOutput
from kubectl_gadget.gadgets.build import build_gadget
from kubectl_gadget.gadgets.compiler import Inputs
from kubectl_gadget.wire.agent_messages import Loser
from tests.bpf import deeds, map_shares
from tests.bpf.answers import Answers
from tests.bpf.tracer import MACHINE, Tracer
from tests.bpf.uring import HERE, OP_READ, Uring

pytestmark = pytest.mark.bpf
PROGRAMS = Path(__file__).parent / "programs"
RACES = 300_000
THREADS = 50
"""More than other processes have that make such calls."""
UMOUNT2 = 166 if deeds.X86 else 39
_WANTED, _SHARE_SHIFT = 1, 8
"""GADGET_WANTED and GADGET_SHARE_SHIFT"""
SHARES, STATES = "gadget_thread_shares", "gadget_thread_states"


def of(tracer: Tracer, pid: int) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["pid"] == pid]


def umount_nothing() -> None:
    deeds.syscall(UMOUNT2, b"/nowhere", 0)


@pytest.mark.parametrize(
    ("gadget", "parameters", "deed"),
    [
        ("trace_privilege", {}, lambda: os.setuid(0)),
        ("trace_mount", {}, umount_nothing),
        ("trace_syscalls", {"syscalls": "getppid"}, os.getppid),
    ],
    ids=["privilege", "mount", "syscalls"],
)
def test_calls_of_others_have_room(gadget: str, parameters: dict[str, Any], deed: Callable[[], object]) -> None:
    with Tracer(gadget, **parameters) as tracer:
        map_shares.fill(tracer, SHARES, STATES, share=1)
        before = map_shares.entries(tracer, SHARES, share=0)
        pids = [deeds.in_child(deed)[0] for _ in range(THREADS)]
        records = tracer.records()
        assert [record["pid"] for record in records if record["pid"] in pids] == pids
        assert tracer.lost == 0
        assert map_shares.entries(tracer, SHARES, share=0) < before + THREADS, "the threads have ended"
        map_shares.fill(tracer, SHARES, STATES, share=0)
        deeds.in_child(deed)
        assert tracer.lost == map_shares.lost(tracer, share=0) >= 1
        assert map_shares.lost(tracer, share=1) == 0


def test_requests_of_io_uring_whose_completion_is_not_seen_give_their_room_back() -> None:
    """The queue of completions is full: the kernel does not say which request has completed."""
    requests, batches, queue = 8, 8, 16
    with Answers("profile_fs") as profile, Uring(requests) as ring:
        before = map_shares.entries(profile, "gadget_uring_shares", share=0)
        read, write = os.pipe()
        for _ in range(batches):
            ring.submit_unreaped([(OP_READ, 0, ring.place(b"x"), HERE, 1, 0)] * requests, read)
        assert map_shares.entries(profile, "gadget_uring_shares", share=0) == before + requests * batches
        os.write(write, bytes(requests * batches))
        ring.submit_unreaped([])
        os.close(read)
        os.close(write)
        assert map_shares.entries(profile, "gadget_uring_shares", share=0) == before
        assert profile.unexamined == requests * batches - queue


def test_a_container_that_found_no_room_is_named() -> None:
    numbers = ContainerNumbers()
    number = numbers.of(7, ContainerIdentity("c", 7, "default", "full", "u", "app", "", "containerd", "container"))
    with Tracer("trace_mount") as tracer:
        pid, _ = deeds.in_child(umount_nothing)
        cgroup = of(tracer, pid)[0]["cgroup"]
    with Tracer("trace_mount", verdicts={cgroup: _WANTED | number << _SHARE_SHIFT}) as tracer:
        events, cpus, shares = map(tracer.object.required_map, ("gadget_events", "gadget_cpus", "gadget_shares"))
        output = EventsOutput(events, cpus, shares, numbers)
        try:
            map_shares.fill(tracer, SHARES, STATES, share=number)
            deeds.in_child(umount_nothing)
            stats = output.stats()
        finally:
            output.close()
    assert stats.lost.keys() == {"map_full"}
    # Other processes of this cgroup may lose some, too.
    [loser] = stats.lost_by
    assert loser.lost == sum(stats.lost["map_full"].values()) >= 1
    assert loser == Loser(namespace="default", pod="full", container="app", lost=loser.lost)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_an_entry_that_another_cpu_removes_at_once_is_given_back_to_its_own_share(tmp_path: Path) -> None:
    source = PROGRAMS / "shared.bpf.c"
    build_gadget(PROGRAMS / "shared.yaml", source, tmp_path, [MACHINE], Inputs(tmp_path))
    with Tracer("trace_mount") as tracer:
        pid, _ = deeds.in_child(umount_nothing)
        cgroup = of(tracer, pid)[0]["cgroup"]

    def calls(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})
        for _ in range(RACES):
            os.getppid()

    allowed = os.sched_getaffinity(0)
    first, second, *_ = allowed
    with Tracer("shared", built=tmp_path, verdicts={cgroup: _WANTED | 7 << _SHARE_SHIFT}) as tracer:
        other = os.fork()
        if other == 0:
            calls(first)
            os._exit(0)
        calls(second)
        os.sched_setaffinity(0, allowed)
        os.waitpid(other, 0)
        assert tracer.lost == 0
        left = [map_shares.entries(tracer, "turn_shares", share) for share in (0, 7, 2048)]
    assert left == [0, 0, 0]
