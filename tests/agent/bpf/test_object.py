"""What the kernel reports about programs, and the capacity of their maps."""

import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf.object import BpfObject, own_elf, program_info
from kubectl_gadget.gadgets.load import load_gadget, object_bytes
from kubectl_gadget.run.request import build
from kubectl_gadget.run.run_options import GadgetRun
from tests.agent.client import Client
from tests.bpf.tracer import MACHINE

pytestmark = pytest.mark.bpf


def test_program_info_equals_what_bpftool_reports() -> None:
    object = BpfObject(own_elf("containers"), "containers")
    try:
        object.load()
        fd = object.program_fd("made")
        number = Path(f"/proc/self/fdinfo/{fd}").read_text().partition("prog_id:")[2].split()[0]
        shown = subprocess.run(["bpftool", "-j", "prog", "show", "id", number], capture_output=True, check=True).stdout
        info = program_info(fd)
        assert info.recursion_misses == json.loads(shown).get("recursion_misses", 0)
        assert 0 < info.verified_insns < 100_000
        assert object.missed() == 0
    finally:
        object.close()


def test_map_entries_sets_the_size_of_hashes_and_overflow_is_counted(client: Client, catalogue_built: Path) -> None:
    assert catalogue_built
    run = GadgetRun(load_gadget("trace_syscalls"), {"syscalls": "clock_nanosleep"})
    (gadget,) = build((run,), ({},), 1 << 20, map_entries=3).gadgets
    client.run(object_bytes("trace_syscalls", MACHINE), gadget.to_json())
    sleepers = [threading.Thread(target=time.sleep, args=(1.5,)) for _ in range(23)]
    for sleeper in sleepers:
        sleeper.start()
    for sleeper in sleepers:
        sleeper.join()
    lost = client.stop()["stats"]["gadgets"][0]["lost"]
    assert sum(lost["map_full"].values()) >= 20
