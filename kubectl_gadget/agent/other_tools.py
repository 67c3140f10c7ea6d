"""`python -I -m kubectl_gadget.agent bcc`: runs a bcc tool, a user's script or a bpftrace program on this node.

Both sides exchange lines of JSON (docs/protocol.md): first the client's request, then what is missing here, and, when
the client has the answers of all nodes, the tool's lines. The trap: many tools print their sums only at Ctrl-C, so they
are ended by SIGINT and get time to print.
"""

import base64
import difflib
import json
import math
import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any

from kubectl_gadget.agent import bpftrace_support
from kubectl_gadget.agent.host import procfs, this_node
from kubectl_gadget.agent.kernel.refusal import capabilities
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.client_messages import FilterSpec

TOOLS = "/usr/sbin"
_SUFFIX = "-bpfcc"
_PYTHON = "/usr/bin/python3"
"""Debian's Python, which has the module bcc."""
_FAREWELL_SECONDS = 10.0
SCRIPT = "own:script"
"""The name that declares a user's script."""
BPFTRACE = "own:bpftrace"
"""The name that declares a bpftrace program."""
_CHECK_SECONDS = 0.02
"""Between two checks for the map of a bpftrace that is still compiling, and for names of new containers."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_C_RUNNER = """
import sys
from bcc import BPF
program = BPF(src_file=sys.argv[1].encode())
while True:
    try:
        fields = program.trace_fields()
    except ValueError:
        continue
    except KeyboardInterrupt:
        break
    print("%-16s %-7d %s" % (fields[0].decode(errors="replace"), fields[1], fields[5].decode(errors="replace")))
"""
"""Loads a C file, whose functions bcc attaches by their names, and prints the output of bpf_trace_printk()."""

Problem = dict[str, str]
"""`what`, `why` and `try`, as in HELLO."""


def tools() -> list[str]:
    """Returns the names of the tools installed here, without Debian's suffix."""
    return sorted(name.removesuffix(_SUFFIX) for name in procfs.listed(TOOLS) if name.endswith(_SUFFIX))


def headers(root: str = "") -> str:
    """Returns where bcc finds the running kernel's headers, searching as bcc does; "" if it does not find them."""
    if source := os.environ.get("BCC_KERNEL_SOURCE"):
        return source if os.path.isdir(source) else ""
    release = os.uname().release
    candidates = [f"{root}/lib/modules/{release}/{name}" for name in ("source", "build")]
    found = next((path for path in candidates if os.path.isdir(f"{path}/include")), "")
    archive = f"{root}/sys/kernel/kheaders.tar.xz"
    return found or (archive if os.path.exists(archive) else "")


def problems(request: dict[str, Any], known: list[str], found_headers: str) -> list[Problem]:
    """Returns what keeps this node from running the request."""
    found = []
    release = os.uname().release
    if not known:
        why = "its tools are not in /usr/sbin, where Debian's packages put them"
        found.append(_problem("bcc is not installed", why, "apt-get install bpfcc-tools python3-bpfcc"))
    elif (tool := request.get("tool")) and tool not in known:
        near = ", ".join(difflib.get_close_matches(tool, known)) or "kubectl gadget bcc --list"
        found.append(_problem(f"bcc has no tool {tool!r}", "it is not installed", near))
    if os.geteuid() != 0 or "SYS_ADMIN" not in capabilities():
        found.append(_problem("bcc cannot load programs", "it needs root and CAP_SYS_ADMIN", "sudo, or --privileged"))
    if not found_headers:
        why = f"bcc needs the headers of the running kernel, {release}, which are not on this node"
        remedy = f"apt-get install linux-headers-{release} on it, or modprobe kheaders, if its kernel has that module"
        found.append(_problem("kernel headers are missing", why, remedy))
    return found


def _problem(what: str, why: str, remedy: str) -> Problem:
    return {"what": what, "why": why, "try": remedy}


def command(request: dict[str, Any], folder: str) -> list[str]:
    """Returns the command line. A user's script is written into `folder`."""
    arguments = [str(item) for item in request.get("arguments") or []]
    if (tool := request.get("tool")) and _NAME.fullmatch(tool):
        return [f"{TOOLS}/{tool}{_SUFFIX}", *arguments]
    name = "program.c" if request.get("language") == "c" else "script.py"
    path = f"{folder}/{name}"
    with open(path, "wb") as file:
        file.write(base64.b64decode(request["script"]))
    return [_PYTHON, "-c", _C_RUNNER, path] if name == "program.c" else [_PYTHON, path, *arguments]


def undeclared(request: dict[str, Any], declared: str | None, in_pod: bool) -> str | None:
    """Returns how a request differs from what the command declared, which is in the audit log; None if it does not."""
    wanted = BPFTRACE if "bpftrace" in request else str(request.get("tool") or SCRIPT)
    if declared == wanted or (declared is None and not in_pod):
        return None
    return f"{wanted} was requested, but the command of this session declares {declared or 'nothing'}"


class ToolLines:
    """Splits output into complete lines."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._rest = b""
        self._send = send

    def feed(self, data: bytes) -> None:
        """Adds a chunk of output; b"" is the end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines, self._rest = [self._rest], b""
        for line in lines:
            self._send(line.decode(errors="replace"))


class ToolRunner:
    """Runs the tool, and speaks with the client over `input` and `output`."""

    def __init__(self, input: IO[bytes], output: IO[bytes], declared: str | None = None) -> None:
        self._input = input
        self._output = output
        self._declared = declared
        self._pods: bpftrace_support.ChosenPods | None = None
        self._attached = False
        self._is_bpftrace = False
        self._hidden = ""
        """prefix of the lines that bpftrace prints about our map"""

    def run(self) -> int:
        """Runs until the tool has ended. Returns this program's exit code, 0: the client gets the tool's."""
        request = self._next()
        known, found = tools(), headers()
        if "bpftrace" in request:
            missing = bpftrace_support.problems()
        else:
            missing = [] if request.get("list") else problems(request, known, found)
        self._say(node=this_node.name(), kernel=os.uname().release, headers=found, tools=known, problems=missing)
        if not self._next().get("go"):
            return 0
        if (why := undeclared(request, self._declared, bool(this_node.pod_uid()))) is not None:
            self._say(error=why, exit=2)
            return 0
        try:
            self._choose_pods(request)
        except AgentError as error:
            self._say(error=str(error), exit=1)
            return 0
        # The root of our pods is read-only; bcc unpacks headers in /tmp as well.
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HOME": folder}
            try:
                process = subprocess.Popen(
                    bpftrace_support.command(request, folder) if "bpftrace" in request else command(request, folder),
                    cwd=folder if self._is_bpftrace else None,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                self._say(error=f"cannot be started: {error}", exit=127)
                return 0
            with process:
                self._pass_on(process)
                self._say(exit=process.wait())
        if self._pods:
            self._pods.close()
        return 0

    def _choose_pods(self, request: dict[str, Any]) -> None:
        self._is_bpftrace = "bpftrace" in request
        if name := request.get("map"):
            self._hidden = f"@{name}["
            self._pods = bpftrace_support.ChosenPods(
                str(name), FilterSpec.from_json(request.get("filter") or {}, "FILTER")
            )

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        """Forwards the tool's lines until it closes both streams. Signals it when the client requests that or is
        gone."""
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            lines = {process.stdout: ToolLines(self._out), process.stderr: ToolLines(self._err)}
            sources: list[IO[bytes] | int] = [*lines, self._input]
            for source in [*sources, self._pods.fd] if self._pods else sources:
                selector.register(source, selectors.EVENT_READ)
            open_streams = set(lines)
            quiet_since = math.inf
            while open_streams:
                events = selector.select(self._wait_seconds(quiet_since))
                if self._pods:
                    self._update_pods(process.pid)
                if any(key.fileobj in lines for key, _ in events) and quiet_since < math.inf:
                    quiet_since = time.monotonic()
                if time.monotonic() > quiet_since + _FAREWELL_SECONDS:
                    _signal(process, signal.SIGKILL)
                    return
                for key, _ in events:
                    if key.fileobj is self._input:
                        if self._is_over():
                            selector.unregister(self._input)
                            quiet_since = time.monotonic()
                            _signal(process, signal.SIGINT)
                        continue
                    if key.fileobj not in lines:
                        continue
                    stream: Any = key.fileobj
                    data = os.read(stream.fileno(), 1 << 16)
                    lines[stream].feed(data)
                    if not data:
                        selector.unregister(stream)
                        open_streams.discard(stream)

    def _wait_seconds(self, quiet_since: float) -> float | None:
        """Returns how long to wait for input; None: without a limit."""
        left = None if quiet_since == math.inf else max(0.0, quiet_since + _FAREWELL_SECONDS - time.monotonic())
        return left if self._pods is None else _CHECK_SECONDS if left is None else min(_CHECK_SECONDS, left)

    def _update_pods(self, pid: int) -> None:
        assert self._pods is not None
        self._pods.turn()
        if not self._attached and self._pods.attach(pid):
            self._attached = True
            self._say(attached=True)
        while self._pods.warnings:
            self._say(warning=self._pods.warnings.pop(0))

    def _is_over(self) -> bool:
        """Reads a line of the client. Returns False for a new selection of pods, True for anything else: the end."""
        try:
            line = self._next()
        except ValueError:
            return True
        if self._pods is None or not isinstance(line.get("filter"), dict):
            return True
        self._pods.set_filter(FilterSpec.from_json(line["filter"], "FILTER"))
        return False

    def _out(self, line: str) -> None:
        if not (self._hidden and line.startswith(self._hidden)):
            self._say(out=line)

    def _err(self, line: str) -> None:
        if not (self._is_bpftrace and bpftrace_support.is_irrelevant(line)):
            self._say(err=line)

    def _say(self, **members: Any) -> None:
        try:
            self._output.write(json.dumps(members).encode() + b"\n")
            self._output.flush()
        except BrokenPipeError:
            return  # the client is gone, which reading the input shows as well

    def _next(self) -> dict[str, Any]:
        line = self._input.readline()
        found: dict[str, Any] = json.loads(line) if line.strip() else {}
        return found


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # it has ended by itself


def run(declared: str | None = None) -> int:
    """Runs over unbuffered standard input and output, because select does not see buffered input. `declared` is the
    tool in the command line."""
    # A shell makes its background jobs ignore SIGINT, and the tool would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(0, "rb", buffering=0, closefd=False) as input, open(1, "wb", closefd=False) as output:
        return ToolRunner(input, output, declared).run()
