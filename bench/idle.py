"""What tracing costs while nothing happens, with few and with many containers, and what it adds to a container's start.

    sudo .venv/bin/python -m bench.idle [--seconds 60] [--containers 1,500] [--starts 20] [--rounds 3] [--json FILE]

A container is a process in a cgroup with a name as from a runtime, which is what an agent follows; starts are those of
runc. The trace's own opens are not idle, so only containers are traced, without --host.
"""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from bench.overhead import children_of, cpu_ns, peak_mb, until_attached
from bench.rounds import alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
from kubectl_gadget.demo.pods import DemoPods

PROJECT = Path(__file__).resolve().parent.parent
CLIENT = [sys.executable, "-m", "kubectl_gadget.cli.main", "trace", "open", "--local", "-o", "json"]
# Debian's Python with no package except the agent, as in the image. A developer's Python imports a dozen modules for
# its installed packages (site, .pth files), which makes it 50% larger.
RESIDENT = "import sys; sys.path.append(sys.argv[1]); from kubectl_gadget.agent.__main__ import main; main(['idle'])"


@contextmanager
def tracing() -> Iterator[dict[str, int]]:
    """PIDs of client and agent, once the gadget is attached."""
    with subprocess.Popen(CLIENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        until_attached(process)
        try:
            yield {"client": process.pid, "agent": children_of(process.pid)[0]}
        finally:
            process.terminate()
            process.stderr.read()


@contextmanager
def resident() -> Iterator[dict[str, int]]:
    """The PID of an agent that waits for sessions, as in the pods of `deploy`."""
    words = ["/usr/bin/python3", "-I", "-S", "-c", RESIDENT, str(PROJECT)]
    with subprocess.Popen(words) as process:
        time.sleep(1)
        try:
            yield {"agent without a session": process.pid}
        finally:
            process.terminate()


def cgroup_root() -> Path:
    root = Path("/sys/fs/cgroup")
    return root if (root / "cgroup.procs").exists() else root / "unified"


@contextmanager
def cgroups(count: int) -> Iterator[None]:
    """Makes this many cgroups of containers, with invented names."""
    with ExitStack() as stack:
        parent = cgroup_root() / f"bench-{uuid.uuid4().hex[:8]}"
        parent.mkdir()
        stack.callback(parent.rmdir)
        for _ in range(count):
            path = parent / f"cri-containerd-{uuid.uuid4().hex}{uuid.uuid4().hex}.scope"
            path.mkdir()
            stack.callback(path.rmdir)
        yield


def idle(containers: int, seconds: float) -> dict[str, float]:
    """Share of one CPU, and memory, of each process."""
    found = {}
    with cgroups(containers), resident() as waiting, tracing() as traced:
        pids = traced | waiting
        time.sleep(4)  # containers without names are sent after 3 s
        before, begun = {name: cpu_ns(pid) for name, pid in pids.items()}, time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begun
        for name, pid in pids.items():
            found[f"{name} cpu"] = (cpu_ns(pid) - before[name]) / took / 1e9
            found[f"{name} mb"] = peak_mb(pid)
    return found


def starts(count: int, traced: bool, directory: Path) -> float:
    """Seconds from `runc run` to the end of one container."""
    with DemoPods(directory / f"pods-{uuid.uuid4().hex[:8]}") as pods, tracing() if traced else nullcontext():
        pods.run_short("default", "first", ["/bin/true"], "main")
        begun = time.monotonic()
        for number in range(count):
            pods.run_short("default", f"pod-{number}", ["/bin/true"], "main")
        return (time.monotonic() - begun) / count


def main() -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--containers", default="1,500")
    parser.add_argument("--starts", type=int, default=20)
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("tracing needs root. try: sudo …")
    machine = describe_machine()
    print_machine()
    at_rest = {int(count): idle(int(count), options.seconds) for count in options.containers.split(",")}
    rows = [
        [f"{count} containers", name, f"{found[f'{name} cpu']:.2%}", f"{found[f'{name} mb']:.0f}"]
        for count, found in at_rest.items()
        for name in ("client", "agent", "agent without a session")
    ]
    print_table(f"{options.seconds:.0f} s in which nothing happens", ("", "", "of a CPU", "MB"), rows)
    with tempfile.TemporaryDirectory() as name:
        run = partial(starts, options.starts, directory=Path(name))
        times = alternate({"nothing traced": partial(run, False), "trace open": partial(run, True)}, options.rounds)
    table = [[name, spread(values).text(1, 1000)] for name, values in times.items()]
    print_table("A container from runc's start to its end", ("", "ms, median (min to max)"), table)
    write_json(options.json, machine, {"idle": at_rest, "starts": times})


if __name__ == "__main__":
    main()
