"""kubectl_gadget.agent.session.client_streams: the client hears of an agent that loads programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.agent.session.client_streams import OwnMemory, heard, own_memory
from kubectl_gadget.wire.frames import FrameDecoder, FrameType
from kubectl_gadget.wire.message import parse


def test_pongs_are_sent_while_programs_are_loaded_and_then_stop() -> None:
    receive, send = os.pipe()
    os.set_blocking(send, False)
    pipe, decoder = FramePipe(send), FrameDecoder()
    with heard(pipe, 0.01):
        frames = []
        while len(frames) < 3:
            frames += decoder.feed(os.read(receive, 1 << 16))
    os.close(send)
    while data := os.read(receive, 1 << 16):
        frames += decoder.feed(data)
    os.close(receive)
    decoder.close()
    assert {(frame.type, parse(frame.payload)["id"]) for frame in frames} == {(FrameType.PONG, 0)}
    assert not pipe.blocked


_IN_A_NEW_PROCESS = """
import os, re
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.agent.session.client_streams import heard

with heard(FramePipe(os.pipe()[1])):
    print(re.search("FDSize:(.*)", open("/proc/self/status").read())[1])
"""


def test_the_table_of_file_descriptors_need_not_grow_while_threads_share_it() -> None:
    said = subprocess.run([sys.executable, "-c", _IN_A_NEW_PROCESS], capture_output=True, text=True, check=True).stdout
    assert int(said) >= 1024


# Files of a cgroup, and whether its memory is scarce.


MIB = 1 << 20


@pytest.mark.parametrize(
    ("limit", "used", "cached", "is_scarce"),
    [("max", 500, 0, False), ("512", 380, 0, False), ("512", 390, 0, True), ("512", 500, 130, False)],
    ids=["no limit", "some is left", "little is left", "what is cached is dropped first"],
)
def test_memory_is_scarce_near_the_limit(tmp_path: Path, limit: str, used: int, cached: int, is_scarce: bool) -> None:
    (tmp_path / "memory.max").write_text(f"{limit if limit == 'max' else int(limit) * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{used * MIB}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon {(used - cached) * MIB}\nfile {cached * MIB}\ninactive_file {cached * MIB}\nactive_file 0\n"
    )
    assert OwnMemory(str(tmp_path)).is_scarce() is is_scarce


def test_a_cgroup_without_these_files_has_no_limit(tmp_path: Path) -> None:
    assert not OwnMemory(str(tmp_path)).is_scarce()
    assert isinstance(own_memory().is_scarce(), bool)
