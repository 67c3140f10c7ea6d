"""The time from Enter to attached and to the first row, by stages.

    sudo .venv/bin/python -m bench.start [--rounds 5] [--nodes 3] [--json FILE] [-- FLAGS OF trace open]

On this machine (--local), on a double of a cluster with resident agents and without, and on the cluster in $KUBECONFIG,
whose agents are resident after `kubectl gadget deploy`. Stages of several nodes overlap, so each is measured when its
last node has done it; and all nodes of the double are this machine, so agents compete for CPU time.
"""

import compileall
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.overhead import until_attached
from bench.rounds import (
    NotMeasurableError,
    alternate,
    arguments,
    describe_machine,
    print_machine,
    print_table,
    spread,
    write_json,
)
from kubectl_gadget.cli.describe import store_if_changed

HERE = Path(__file__).resolve().parents[1]
PROGRAM = [sys.executable, "-m", "kubectl_gadget.cli.main"]
STAGES = (
    "interpreter",
    "command line",
    "kubeconfig",
    "prepared",
    "agent found",
    "stream open",
    "agent sent",
    "HELLO",
    "STARTED",
    "row",
)
AGENT_STAGES = ("interpreter", "imports", "containers", "HELLO", "opened", "loaded", "attached")
EXPLAINED = {
    "interpreter": "Python itself",
    "command line": "its own imports, and the flags read",
    "kubeconfig": "read, with its library",
    "prepared": "filters and output; numpy",
    "agent found": "nodes and pods listed, agents found or started",
    "stream open": "the exec websocket, or the child process",
    "agent sent": "Python has started there, and has the agent: from the image, the pod, or from here",
    "HELLO": "the agent has started",
    "STARTED": "BPF loaded and attached",
    "row": "the first row is printed",
}
_SECONDS = 120
_RUN_SECONDS = 0.5
TIMES = 10
"""of a short command, of which the least counts"""


def stages(flags: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds from Enter to the end of each stage."""
    with tempfile.TemporaryDirectory() as name:
        stages_file = Path(name) / "stages"
        began = time.time()
        words = [sys.executable, "-m", "bench.start_stages", str(stages_file), "trace", "open", "-o", "json"]
        environment = {**os.environ, **environment}
        words += ["--max-events", "1", *flags]
        run = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, env=environment, check=False)
        if run.returncode != 0 or not stages_file.exists():
            raise SystemExit(f"{' '.join(words)} failed:\n{run.stderr}")
        found = json.loads(stages_file.read_text())
        largest = {name: float(max(found[name], default=0)) for name in ("resident", "sent")}
        return {stage: at - began for stage, at in found["stages"].items()} | largest


def agent() -> dict[str, float]:
    """The stages of the agent alone."""
    began = time.time()
    words = [sys.executable, "-m", "bench.start_agent"]
    run = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if run.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed:\n{run.stderr}")
    return {stage: at - began for stage, at in json.loads(run.stdout).items()}


def help_page() -> dict[str, float]:
    """CPU seconds of help and of a TAB key, beside those of Python itself and of importing typer."""
    tab = [sys.executable, "-m", "kubectl_gadget.cli.complete"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import typer'": [sys.executable, "-c", "import typer"],
        "--help": [*PROGRAM, "--help"],
        "trace open --help": [*PROGRAM, "trace", "open", "--help"],
        "trace op<TAB>": [*tab, "trace", "op"],
        "trace open --fail<TAB>": [*tab, "trace", "open", "--fail"],
    }
    return {name: shortest(words)[1] for name, words in commands.items()}


def stopwatch(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    """Seconds from Enter to attached and from Ctrl-C to the end, and the CPU time of the client and a local agent."""
    began = time.monotonic()
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment}
    ) as process:
        assert process.stderr is not None
        until_attached(process)
        attached = time.monotonic() - began
        time.sleep(_RUN_SECONDS)
        process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return {"attached": attached, "end": time.monotonic() - interrupted, "cpu": used.ru_utime + used.ru_stime}


def shortest(words: Sequence[str]) -> tuple[float, float]:
    """Seconds that a command takes, and of CPU: each the least of some times."""
    times = []
    for _ in range(TIMES):
        began = time.monotonic()
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        times.append((time.monotonic() - began, used.ru_utime + used.ru_stime))
    if status:
        raise NotMeasurableError(f"{' '.join(words)} failed")
    return min(took for took, _ in times), min(cpu for _, cpu in times)


@contextmanager
def double(nodes: int, directory: Path, deploy: bool, tree: Path = HERE) -> Iterator[dict[str, str]]:
    """An environment with the kubeconfig of a fake cluster, by the version in this tree."""
    path = directory / f"kubeconfig-{deploy}"
    words = [sys.executable, "-m", "tests.fake_cluster", "--nodes", str(nodes), "--kubeconfig", str(path)]
    environment = {"KUBECONFIG": str(path)}
    everything = {**os.environ, "PYTHONPATH": str(tree), **environment}
    with subprocess.Popen(words, cwd=tree, stdout=subprocess.PIPE, text=True, env=everything) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            if deploy:
                subprocess.run([*PROGRAM, "deploy"], cwd=tree, check=True, capture_output=True, env=everything)
            yield environment
        finally:
            process.terminate()


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--nodes", type=int, default=3, help="of the double")
    parser.add_argument("--our-image", help="for the cluster in $KUBECONFIG: measured beside that of FLAGS")
    parser.add_argument("flags", nargs="*", help="more flags of trace open on the cluster in $KUBECONFIG")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("the agents of this machine and of the double need root. try: sudo …")
    # As pip does: otherwise each process would compile all modules, where PYTHONDONTWRITEBYTECODE is set.
    compileall.compile_dir(str(HERE / "kubectl_gadget"), quiet=2)
    store_if_changed()
    machine = describe_machine()
    print_machine()
    everywhere = ["-A", "--host"]
    runs: dict[str, Callable[[], dict[str, float]]] = {
        "this machine": partial(stages, ["--local", "--host"], {}),
    }
    with (
        tempfile.TemporaryDirectory() as name,
        double(options.nodes, Path(name), True) as resident,
        double(options.nodes, Path(name), False) as bare,
    ):
        runs[f"double of {options.nodes} nodes, resident"] = partial(stages, everywhere, resident)
        runs[f"double of {options.nodes} nodes, on demand"] = partial(stages, everywhere, bare)
        if os.environ.get("KUBECONFIG"):
            runs["$KUBECONFIG"] = partial(stages, [*everywhere, *options.flags], {})
        if os.environ.get("KUBECONFIG") and options.our_image:
            # Of a flag that is given twice, the last one counts.
            flags = [*everywhere, *options.flags, "--image", options.our_image]
            runs[f"$KUBECONFIG, {options.our_image}"] = partial(stages, flags, {})
        for run in runs.values():
            run()  # warms up caches
        alone = alternate({"agent": agent, "help": help_page}, options.rounds)
        results = alternate(runs, options.rounds)
    for name, rounds in results.items():
        _print(f"{name}: ms from Enter on", STAGES, rounds)
        sent, memory = (max(found[what] for found in rounds) / 1e6 for what in ("sent", "resident"))
        print(f"sent to a node: {sent:.2f} MB; the largest agent in memory: {memory:.1f} MB\n")
    _print("the agent by itself: ms from its start on", AGENT_STAGES, alone["agent"])
    _print_help(alone["help"])
    write_json(options.json, machine, {**results, **alone})


def _print(title: str, names: Sequence[str], rounds: Sequence[dict[str, float]]) -> None:
    rows, before = [], 0.0
    for stage in sorted((stage for stage in names if stage in rounds[0]), key=lambda stage: _median(rounds, stage)):
        until = _median(rounds, stage)
        text = spread([found[stage] for found in rounds]).text(0, 1000)
        rows.append([stage, text, f"{(until - before) * 1000:,.0f}", EXPLAINED.get(stage, "")])
        before = until
    print_table(title, ("until", "median (min to max)", "more", ""), rows)


def _print_help(rounds: Sequence[dict[str, float]]) -> None:
    rows = []
    for name in rounds[0]:
        ratios = [found[name] / found["python -c pass"] for found in rounds]
        rows.append([name, spread([found[name] for found in rounds]).text(0, 1000), spread(ratios).text(2)])
    print_table("help and completion: ms of CPU", ("", "median (min to max)", "× python -c pass"), rows)


def _median(rounds: Sequence[dict[str, float]], stage: str) -> float:
    return statistics.median(found[stage] for found in rounds)


if __name__ == "__main__":
    main()
