"""What is freed goes back to the machine."""

import subprocess
import sys

import pytest

PROGRAM = """
import re, threading
from kubectl_gadget.cli.run import give_back_what_is_freed

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10

give_back_what_is_freed()
before = resident()

def work():
    bytes(3 << 20)  # what is freed once teaches glibc to keep its like in the heap
    pieces = [(b"x" * (3 << 20), b"y" * 70_000) for _ in range(100)]
    work.kept = [small for _, small in pieces]
    work.most = resident()

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(work.most - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_large_pieces_that_are_freed_are_given_back_though_small_ones_between_them_stay() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    most, left = map(int, result.stdout.split())
    assert most > 290
    assert left < 100
