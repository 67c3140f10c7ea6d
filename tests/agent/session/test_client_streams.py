"""kubectl_gadget.agent.session.client_streams: the client hears of an agent that loads programs."""

import os
import subprocess
import sys

from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.agent.session.client_streams import heard
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
