"""How late each way to stop a process is: a signal from the kernel, the agent's pidfd, the client that deletes a pod or
has it isolated.

Run it as root: `sudo .venv/bin/python bench/reaction.py [--rounds N]`. A process opens a file that a policy kills for,
and then writes 64 bytes at a time. The delay is measured by what it has written and when it is gone; for the client, by
when its request to delete the pod arrives at the API server, a double; and for an isolated pod, by when its first call
fails, through the same double. In that pod nothing else happens. All use the system call's tracepoint, which every
kernel has. The kernel's way kills before the first write, so its time is that of the process's end alone, which the
agent's contains as well.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.rounds import alternate, arguments, spread
from kubectl_gadget.demo.pods import DemoPods
from tests.fake_cluster import FakeCluster

SECONDS = 120.0
MOST_BYTES = 64 << 20
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: reaction}}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{{index: 1, type: string}}]
    selectors:
    - matchArgs: [{{index: 1, operator: Equal, values: ["{trigger}"]}}]
      matchActions: [{{action: Sigkill}}]
"""
DOER = """
import os, sys, time
out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(1, b"%d" % time.monotonic_ns())
try:
    os.open(sys.argv[1], os.O_RDONLY)
except OSError:
    pass
for _ in range(int(sys.argv[3]) // 64):
    os.write(out, b"x" * 64)
time.sleep(1000)
"""
CALLER = """
import os, socket, sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
begin = time.monotonic_ns()
print(begin, flush=True)
try:
    os.open(sys.argv[2], os.O_RDONLY)
except OSError:
    pass
while True:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except PermissionError:
            break
        except OSError:
            pass
    time.sleep(0.0005)
print(time.monotonic_ns() - begin)
"""


class Late(NamedTuple):
    """The delay of a reaction."""

    milliseconds: float
    bytes: int | None


@contextmanager
def enforcing(policy: Path, *flags: str) -> Iterator[None]:
    command = [sys.executable, "-m", "kubectl_gadget.cli.main", "enforce", "--local", "-A", "--host", "-f", str(policy)]
    with subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "press Ctrl-C to stop" not in (line := process.stderr.readline()):
            said += line
            if not line:
                sys.exit(said)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def stopped(folder: Path, policy: Path, *flags: str) -> Late:
    """Stops one process in the way that the flags select."""
    out = folder / "out"
    with enforcing(policy, *flags):
        command = [sys.executable, "-c", DOER, str(folder / "trigger"), str(out), str(MOST_BYTES)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as doer:
            assert doer.stdout is not None
            doer.wait(SECONDS)
            end = time.monotonic_ns()
            return Late((end - int(doer.stdout.read())) / 1e6, out.stat().st_size)


@asynccontextmanager
async def reacting(
    folder: Path, policy: Path, action: str
) -> AsyncIterator[tuple[FakeCluster, asyncio.subprocess.Process, int]]:
    """A fake cluster with a pod, a process in it that has just triggered the policy, and when, by the monotonic
    clock."""
    pipe = subprocess.PIPE
    with DemoPods(folder / f"pods-{time.monotonic_ns()}") as pods:
        async with FakeCluster(1) as cluster:
            sleep = {"main": ["/bin/sleep", "1000"]}
            pod = await asyncio.to_thread(pods.start_pod, "default", "doer", sleep)
            status: dict[str, Any] = {"phase": "Running", "containerStatuses": []}
            spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "busybox"}]}
            metadata = {"name": pod.name, "uid": pod.uid, "labels": {}}
            cluster.store.add("pods", "default", {"metadata": metadata, "spec": spec, "status": status})
            kubeconfig = cluster.write_kubeconfig(folder / "kubeconfig")
            words = ["enforce", "-f", str(policy), "--action", action, "--yes", "--kubeconfig", str(kubeconfig)]
            words = ["-m", "kubectl_gadget.cli.main", *words]
            client = await asyncio.create_subprocess_exec(
                sys.executable, *words, stdout=subprocess.DEVNULL, stderr=pipe
            )
            assert client.stderr is not None
            while b"press Ctrl-C to stop" not in (line := await client.stderr.readline()):
                assert line, "enforce ended"
            words = ["-c", CALLER, str(pod.containers["main"].cgroup), str(folder / "trigger")]
            doer = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=pipe)
            assert doer.stdout is not None
            begin = int(await doer.stdout.readline())
            try:
                yield cluster, doer, begin
            finally:
                if doer.returncode is None:
                    doer.kill()
                await doer.wait()
                client.send_signal(signal.SIGINT)
                await client.communicate()


async def deleted(folder: Path, policy: Path) -> Late:
    """The client's delay until its request to delete the pod."""
    async with reacting(folder, policy, "delete-pod") as (cluster, _, begin):
        while ("delete", "pods") not in cluster.server.requests:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
        return Late((time.monotonic_ns() - begin) / 1e6, None)


async def isolated(folder: Path, policy: Path) -> Late:
    """The delay of client and node until a call fails."""
    async with reacting(folder, policy, "isolate-pod") as (_, doer, _):
        rest, _ = await asyncio.wait_for(doer.communicate(), SECONDS)
        return Late(int(rest) / 1e6, None)


def main() -> None:
    parser = arguments(__doc__, 5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = folder / "policy.yaml"
        policy.write_text(POLICY.format(trigger=folder / "trigger"))
        ways = {
            "a signal from the kernel": lambda: stopped(folder, policy, "--allow-weaker"),
            "the agent, --action kill": lambda: stopped(folder, policy, "--action", "kill"),
            "the client, --action delete-pod": lambda: asyncio.run(deleted(folder, policy)),
            "the client and the node, --action isolate-pod": lambda: asyncio.run(isolated(folder, policy)),
        }
        results = alternate(ways, given.rounds)
    first = spread([late.milliseconds for late in next(iter(results.values()))]).median
    print("| who | ms until it is gone | ratio to the kernel's | bytes written by then |")
    print("| --- | --- | --- | --- |")
    for way, found in results.items():
        times = spread([late.milliseconds for late in found])
        written = [late.bytes for late in found if late.bytes is not None]
        text = spread(written).text() if written else "-"
        print(f"| {way} | {times.text(1)} | {times.median / first:.1f} | {text} |")
    if given.json:
        given.json.write_text(json.dumps({way: [late._asdict() for late in found] for way, found in results.items()}))


if __name__ == "__main__":
    main()
