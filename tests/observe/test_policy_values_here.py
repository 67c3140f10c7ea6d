"""Values of policies that only a real kernel shows: names of Unix sockets, and pipes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gadget_run import GadgetRun

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]
POLICY = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: values}
spec:
  kprobes:
  - call: sys_bind
    syscall: true
    args: [{index: 1, type: sockaddr_un}]
    selectors: [{matchActions: [{action: Post}]}]
  - call: sys_connect
    syscall: true
    args: [{index: 1, type: sockaddr}]
    selectors: [{matchActions: [{action: Post}]}]
  - call: sys_write
    syscall: true
    args: [{index: 0, type: fd}]
    selectors: [{matchBinaries: [{operator: In, values: [%s]}], matchActions: [{action: Post}]}]
  tracepoints:
  - {subsystem: syscalls, event: sys_enter_bind, args: [{index: 6, type: sockaddr}]}
"""
CALLS = """
import ctypes, os, socket, sys
libc, pathname = ctypes.CDLL(None), sys.argv[1].encode()
kept = []
for name, length in ((b"\\0abstract", 0), (b"\\0with\\0nul", 0), (b"", 0), (pathname, 0), (pathname + b"2\\0", 110)):
    kept.append(socket.socket(socket.AF_UNIX))
    beyond = ctypes.create_string_buffer(b"\\1\\0" + name + b"garbage", 200)
    libc.bind(kept[-1].fileno(), beyond, length or 2 + len(name))
try:
    socket.socket(socket.AF_UNIX).connect("\\0nobody-listens")
except OSError:
    pass
read, write = os.pipe()
os.write(write, b"x")
print(os.readlink(f"/proc/self/fd/{write}"))
"""


def test_names_of_unix_sockets_and_pipes_are_the_kernels(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY % Path(sys.executable).resolve())
    socket = tmp_path / "socket"
    with GadgetRun(tmp_path, "observe", "--local", "--host", "-o", "json", "-f", str(policy)) as run:
        calls = subprocess.Popen([sys.executable, "-c", CALLS, str(socket)], stdout=subprocess.PIPE, text=True)
        pipe, _ = calls.communicate()

        def arguments(function: str) -> list[Any]:
            found = [row["process_kprobe"] for row in run.rows() if "process_kprobe" in row]
            own = [event for event in found if event["process"]["pid"] == calls.pid]
            return [event["args"][0] for event in own if event["function_name"].endswith(function)]

        run.until(lambda: any("pipe:[" in str(item) for item in arguments("write")), "the write")
        run.stop()
    names = ["@abstract", "@with@nul", "", f"{socket}", f"{socket}2"]
    assert [item["sockaddrun_arg"]["path"] for item in arguments("bind")] == names
    entered = [row["process_tracepoint"] for row in run.rows() if "process_tracepoint" in row]
    own = [event["args"][0] for event in entered if event["process"]["pid"] == calls.pid]
    assert [item["sockaddr_arg"]["addr"] for item in own] == names
    assert [item["sockaddr_arg"]["addr"] for item in arguments("connect")] == ["@nobody-listens"]
    assert pipe.strip() in [item["file_arg"]["path"] for item in arguments("write")]
