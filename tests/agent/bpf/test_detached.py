"""Programs of a running session that another process of the node stops, as a privileged container can by their ids."""

import ctypes
import os
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf import libbpf, links
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.kernel import features
from kubectl_gadget.gadgets.load import load_gadget, object_bytes
from kubectl_gadget.run.request import build
from kubectl_gadget.run.run_options import GadgetRun
from kubectl_gadget.wire.frames import FrameType
from tests.agent.client import Client
from tests.bpf import deeds
from tests.bpf.tracer import MACHINE

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]
BPF = 321 if deeds.X86 else 280
MAP_UPDATE_ELEM, MAP_DELETE_ELEM, LINK_UPDATE, LINK_DETACH = 2, 3, 29, 34


FTRACE = Path("/proc/sys/kernel/ftrace_enabled")


def bpf(command: int, *words: int) -> int:
    attributes = ctypes.create_string_buffer(struct.pack(f"<{len(words)}Q", *words), 8 * len(words))
    return deeds.syscall(BPF, command, attributes, len(attributes))


def started(client: Client, name: str, **parameters: Any) -> set[int]:
    """Runs a gadget; the ids of all links of the agent."""
    run = GadgetRun(load_gadget(name), parameters)
    (gadget,) = build((run,), ({},), 1 << 20).gadgets
    client.run(object_bytes(name, MACHINE), gadget.to_json())
    return ids(client.process.pid, "link_id")


def ids(pid: int, what: str) -> set[int]:
    """Of what the agent has open. Others on this machine may have the same programs."""
    found = set()
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed since
            found |= set(re.findall(rf"^{what}:\s*(\d+)$", file.read_text(), re.MULTILINE))
    return set(map(int, found))


def link(number: int) -> tuple[int, links.LinkInfo]:
    """An open descriptor, as anybody gets who has the right, and what it says."""
    fd = libbpf.load().call("bpf_link_get_fd_by_id", number)
    info, size = links.LinkInfo(), ctypes.c_uint32(ctypes.sizeof(links.LinkInfo))
    libbpf.load().call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))
    return fd, info


def lost(client: Client) -> dict[str, int]:
    """In the next STATS."""
    found: dict[str, int] = client.wait_for(FrameType.STATS, len(client.frames))["gadgets"][0]["lost"].get(
        "detached", {}
    )
    return found


def warned(client: Client, text: str) -> bool:
    return text in client.wait_for(FrameType.WARNING)["message"]


def test_a_link_that_is_detached_by_its_id_is_a_loss_and_a_warning(client: Client) -> None:
    of_cgroups = [found for found in map(link, started(client, "trace_dns")) if found[1].type == 3]
    assert len(of_cgroups) > 1
    assert lost(client) == {}
    assert bpf(LINK_DETACH, of_cgroups[0][0]) == 0
    assert warned(client, "no longer runs (another process has detached it)")
    assert len(lost(client)) == 1
    for fd, _ in of_cgroups[1:]:
        assert bpf(LINK_DETACH, fd) == 0
    end = client.stop()
    assert sum(end["stats"]["gadgets"][0]["lost"]["detached"].values()) == len(of_cgroups)


def test_a_link_that_gets_another_program_is_a_loss(client: Client) -> None:
    fds = [fd for fd, info in map(link, started(client, "trace_sni")) if info.type == 3]
    name = "trace_sni"
    object = BpfObject(object_bytes(name, MACHINE), name)
    try:
        object.load()
        others = [program for program in object.chosen if object.section(program).startswith("cgroup_skb")]
        # Of the same kind.
        pairs = [fd | object.program_fd(program) << 32 for fd in fds for program in others]
        assert any(bpf(LINK_UPDATE, pair, 0) == 0 for pair in pairs)
        assert warned(client, "another process has put another program in its place")
        assert len(lost(client)) == 1
    finally:
        object.close()


def test_links_of_tracing_programs_cannot_be_detached(client: Client) -> None:
    """Which is why the next test is about the array that they call from."""
    found = [link(number) for number in started(client, "trace_open")]
    assert found
    assert all(bpf(LINK_DETACH, fd) < 0 for fd, _ in found)
    assert lost(client) == {}


def test_a_program_that_is_removed_from_the_program_array_is_a_loss(client: Client) -> None:
    started(client, "trace_open")
    fds = [fd for fd, name in map(open_map, ids(client.process.pid, "map_id")) if name == "exit_programs"]
    if not fds:
        pytest.skip("programs of system calls are attached to their tracepoints here")
    key = ctypes.c_uint32(deeds.OPENAT)
    assert bpf(MAP_DELETE_ELEM, fds[0], ctypes.addressof(key)) == 0
    assert warned(client, "openat_ends no longer runs (another process has removed it from the programs that")
    assert set(lost(client)) == {"openat_ends"}


@pytest.mark.parametrize("name", ["followers", ".data.interest"])
def test_an_emptied_table_of_the_dispatcher_is_a_loss(client: Client, name: str) -> None:
    started(client, "trace_open")
    fds = [fd for fd, found in map(open_map, ids(client.process.pid, "map_id")) if found == name]
    if not fds:
        pytest.skip("programs of system calls are attached to their tracepoints here")
    key, value = ctypes.c_uint32(deeds.OPENAT if name == "followers" else 0), ctypes.create_string_buffer(512)
    assert bpf(MAP_UPDATE_ELEM, fds[0], ctypes.addressof(key), ctypes.addressof(value), 0) == 0
    assert warned(client, "no longer runs (another process has removed it from the programs that")


def test_programs_that_ftrace_no_longer_calls_are_a_loss(client: Client, tmp_path: Path) -> None:
    if why := features.lacking("fexit"):
        pytest.skip(why)
    started(client, "trace_fsslower", min=0, operation="fsync")
    assert fsyncs(client, tmp_path) > 0
    FTRACE.write_text("0")
    try:
        assert warned(client, "no longer runs (kernel.ftrace_enabled is 0)")
        assert fsyncs(client, tmp_path) == 0
        assert lost(client)
    finally:
        FTRACE.write_text("1")
    assert fsyncs(client, tmp_path) > 0
    # What was missed stays missed.
    assert client.stop()["stats"]["gadgets"][0]["lost"]["detached"]


def fsyncs(client: Client, folder: Path) -> int:
    """How many events came of 7 fsyncs, at the next STATS but one."""

    def events() -> int:
        client.wait_for(FrameType.STATS, len(client.frames))
        found: int = client.wait_for(FrameType.STATS, len(client.frames))["gadgets"][0]["events"]
        return found

    before = events()
    with (folder / "file").open("w") as file:
        for _ in range(7):
            os.fsync(file)
    return events() - before


def open_map(number: int) -> tuple[int, str]:
    """A descriptor of the map of this id, and its name."""
    fd = libbpf.load().call("bpf_map_get_fd_by_id", number)
    info = ctypes.create_string_buffer(88)
    libbpf.load().call("bpf_obj_get_info_by_fd", fd, info, ctypes.byref(ctypes.c_uint32(88)))
    return fd, info.raw[24:40].rstrip(b"\0").decode()
