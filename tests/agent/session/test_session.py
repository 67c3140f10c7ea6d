"""A whole session: the real agent, the real kernel."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget import __version__
from kubectl_gadget.wire.frames import FrameType, encode
from tests.agent.client import Client
from tests.agent.conftest import Compiled, Opener
from tests.agent.records import records, timestamps
from tests.waiting import wait_until

pytestmark = pytest.mark.bpf

PRIME = 10007
RECORD = 8 + 80
"""Bytes in the ring: the kernel's head, and struct gadget_record."""


def programs_of(pid: int) -> set[int]:
    """Ids of the BPF programs that a process holds."""
    infos = [path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return {int(number) for info in infos for number in re.findall(r"^prog_id:\s+(\d+)$", info, re.MULTILINE)}


def wait_until_unloaded(programs: set[int]) -> None:
    """The kernel frees programs a moment after the last who held them."""

    def left() -> set[int]:
        return programs & {p["id"] for p in json.loads(subprocess.check_output(["bpftool", "prog", "-j"]))}

    wait_until(lambda: not left(), "the end of the programs of an agent that has ended", state=left)


def resident(pid: int) -> int:
    """Resident memory in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10


def run_on(client: Client, opens: Compiled, opener: Opener, **more: object) -> None:
    gadget = opens.gadget("openat_exit", parameters={"gadget_filter_pid": opener.pid}, **more)
    client.run(opens.elf, gadget)


def lost_of(stats: dict[str, Any]) -> int:
    [gadget] = stats["gadgets"]
    return sum(gadget["lost"].get("ring_full", {}).values())


def test_hello_says_who_and_where_it_is() -> None:
    with Client({"NODE_NAME": "node-7"}) as client:
        hello = client.wait_for(FrameType.HELLO)
    assert hello["protocol"] == 1
    assert hello["agent"] == __version__
    assert hello["node"] == "node-7"
    assert hello["architecture"] == os.uname().machine
    assert hello["kernel"] == os.uname().release
    assert hello["can"]["btf"] is True
    assert hello["can"]["ring_buffer"] is True
    assert Path(hello["cgroup_root"], "cgroup.controllers").exists()
    assert abs(hello["realtime_ns"] - time.time_ns()) < 60e9


def test_every_open_of_one_process_is_one_record(client: Client, opens: Compiled, opener: Opener) -> None:
    run_on(client, opens, opener)
    opener.open(PRIME)
    end = client.stop()
    assert len(list(records(client.ring[0]))) == PRIME
    [stats] = end["stats"]["gadgets"]
    assert stats["events"] == PRIME
    assert stats["lost"] == {}
    assert end["reason"] == "stop"


def test_started_names_what_was_chosen_and_where_it_hooks(client: Client, opens: Compiled) -> None:
    client.run(opens.elf, opens.gadget("openat_exit"))
    started = client.wait_for(FrameType.STARTED)
    [gadget] = started["gadgets"]
    assert gadget["name"] == "opens"
    [entry] = gadget["programs"]
    assert entry == {"chosen": ["openat_exit"], "hooks": ["tp_btf/sys_exit (openat)"], "skipped": []}


def test_at_full_speed_every_open_is_sent_or_counted_as_lost(client: Client, opens: Compiled, opener: Opener) -> None:
    """How many are lost depends on the machine's load; bench/ measures that."""
    run_on(client, opens, opener)
    opener.begin(1_000_003)
    counted = 0
    while counted < 1_000_003:
        stats = client.wait_for(FrameType.STATS, after=len(client.frames))
        counted = stats["gadgets"][0]["events"] + lost_of(stats)
    opener.end()
    end = client.stop()
    assert len(client.ring[0]) // RECORD + lost_of(end["stats"]) == 1_000_003


def test_bursts_that_fit_into_the_ring_lose_nothing(client: Client, opens: Compiled, opener: Opener) -> None:
    run_on(client, opens, opener, ring_bytes=1 << 20)
    burst = (1 << 20) // RECORD - 1
    for number in range(1, 24):
        opener.open(burst)
        client.wait_until(lambda number=number: len(client.ring.get(0, b"")) == number * burst * RECORD)  # type: ignore[misc]
    end = client.stop()
    assert lost_of(end["stats"]) == 0
    assert len(list(records(client.ring[0]))) == 23 * burst


def test_a_reader_that_sleeps_makes_the_ring_drop_and_count_and_the_agent_not_grow(
    client: Client, opens: Compiled, opener: Opener
) -> None:
    run_on(client, opens, opener, ring_bytes=64 << 10)  # of which 64 are held
    before = resident(client.process.pid)
    opener.open(100_003)  # 10 MB, while nobody reads
    after = resident(client.process.pid)
    end = client.stop()
    lost = lost_of(end["stats"])
    assert lost > 0
    assert len(list(records(client.ring[0]))) + lost == 100_003
    assert after - before < 6 << 20


def test_events_continue_after_a_slow_reader_has_caught_up(client: Client, opens: Compiled, opener: Opener) -> None:
    run_on(client, opens, opener, ring_bytes=64 << 10)
    opener.open(50_021)
    client.wait_for(FrameType.STATS, after=len(client.frames))
    first = len(list(records(client.ring[0])))
    opener.open(101)
    client.stop()
    assert len(list(records(client.ring[0]))) == first + 101


def test_complete_until_never_runs_ahead_of_an_event(client: Client, opens: Compiled, opener: Opener) -> None:
    run_on(client, opens, opener)
    opener.begin(200_003)
    late = 0
    until = seen = 0
    while seen < 200_003:
        client.read()
        stamps = timestamps(client.ring[0]) if 0 in client.ring else []
        client.ring.clear()
        late += sum(stamp < until for stamp in stamps)
        seen += len(stamps)
        until = client.complete_until.get(0, 0)
    opener.end()
    assert late == 0


def test_an_idle_gadget_says_until_when_it_is_complete(client: Client, opens: Compiled, opener: Opener) -> None:
    run_on(client, opens, opener)
    client.wait_until(lambda: 0 in client.complete_until)
    first = client.complete_until[0]
    client.wait_until(lambda: client.complete_until[0] > first)
    assert client.complete_until[0] < time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_the_end_of_input_ends_the_session_and_leaves_no_program(
    client: Client, opens: Compiled, opener: Opener
) -> None:
    run_on(client, opens, opener)
    programs = programs_of(client.process.pid)
    # One for calls of both kinds; what calls it, at two sides, also of traced threads; what notes for whom; and what
    # marks the processes of the container runtime.
    assert len(programs) == 15
    client.input.close()
    assert client.finish()["reason"] == "eof"
    wait_until_unloaded(programs)


def test_a_killed_agent_leaves_no_program(client: Client, opens: Compiled, opener: Opener) -> None:
    run_on(client, opens, opener)
    programs = programs_of(client.process.pid)
    # One for calls of both kinds; what calls it, at two sides, also of traced threads; what notes for whom; and what
    # marks the processes of the container runtime.
    assert len(programs) == 15
    client.process.kill()
    client.process.wait()
    wait_until_unloaded(programs)


def test_sigterm_ends_the_session(client: Client, opens: Compiled, opener: Opener) -> None:
    run_on(client, opens, opener)
    opener.open(101)
    client.process.send_signal(signal.SIGTERM)
    assert client.finish()["reason"] == "signal"
    assert len(list(records(client.ring[0]))) == 101


def test_a_heartbeat_is_answered_with_its_number(client: Client) -> None:
    client.send(FrameType.HEARTBEAT, {"id": 4711})
    pong = client.wait_for(FrameType.PONG)
    assert pong["id"] == 4711
    assert pong["boot_ns"] <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_statistics_report_the_agents_own_use(client: Client, opens: Compiled, opener: Opener) -> None:
    run_on(client, opens, opener)
    opener.open(PRIME)
    after = len(client.frames)
    stats = client.wait_for(FrameType.STATS, after=after)
    assert stats["gadgets"][0]["events"] == PRIME
    assert stats["gadgets"][0]["bytes"] == PRIME * 80
    assert stats["agent"]["cpu_ns"] > 0
    assert 0 < stats["agent"]["rss_bytes"] <= 30 << 20


def test_a_frame_of_an_unknown_type_is_skipped_with_a_warning(client: Client) -> None:
    client.send_bytes(encode(99, b"whatever"))
    assert "99" in client.wait_for(FrameType.WARNING)["message"]
    assert client.stop()["reason"] == "stop"


def test_bytes_that_are_not_frames_end_the_session_with_an_error(client: Client) -> None:
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
    end = client.finish()
    assert end["reason"] == "error"
    assert "GET /" in end["error"]["what"]


@pytest.mark.parametrize("run", [{}, {"gadgets": 3}, {"gadgets": [{"name": "x", "object": 7}]}, {"gadgets": [None]}])
def test_a_run_that_violates_the_protocol_is_an_error(client: Client, run: dict[str, object]) -> None:
    client.send(FrameType.RUN, run)
    end = client.finish()
    assert end["reason"] == "error"
    assert end["error"]["what"].startswith("RUN: ")


def test_without_any_capability_run_is_answered_with_what_is_missing(opens: Compiled) -> None:
    with Client(wrapper=("setpriv", "--bounding-set=-all", "--inh-caps=-all")) as client:
        hello = client.wait_for(FrameType.HELLO)
        assert "BPF" in hello["problems"][0]["why"]
        client.send_bytes(encode(FrameType.OBJECT, opens.elf))
        client.send(FrameType.RUN, {"gadgets": [opens.gadget("openat_exit") | {"object": 0}]})
        end = client.finish()
    assert "the capabilities BPF, PERFMON are missing" in end["error"]["what"]
    assert end["error"]["try"]


IMPORTS = "import sys; from kubectl_gadget.agent.session import session"


def test_a_silent_client_counts_as_gone() -> None:
    script = f"{IMPORTS}; session.HEARTBEAT_LIMIT = 0.5; sys.exit(session.run())"
    with Client(command=(sys.executable, "-c", script)) as client:
        assert client.finish()["reason"] == "heartbeat"


def test_an_internal_error_is_reported() -> None:
    script = f"{IMPORTS}; session.hello = lambda: 1 / 0; sys.exit(session.run())"
    with Client(command=(sys.executable, "-c", script)) as client:
        assert "ZeroDivisionError" in client.finish()["error"]["what"]


def test_what_is_printed_does_not_get_into_the_frames() -> None:
    script = (
        "import os, sys; from kubectl_gadget.agent.session import session\n"
        "old = session.hello\n"
        "session.hello = lambda: (print('noise'), os.write(1, b'more noise\\n'), old())[2]\n"
        "sys.exit(session.run())"
    )
    with Client(command=(sys.executable, "-c", script)) as client:
        client.wait_for(FrameType.HELLO)
        assert client.stop()["reason"] == "stop"
