"""`python -I -m kubectl_gadget.agent bcc`: one tool of bcc on this node, or a script of the user's.

Lines of JSON go both ways (docs/protocol.md): first what the client wants, then what is missing here, then, once the
client has heard of all nodes, the tool's lines. The trap: many tools print what they have summed up only at
Ctrl-C, so the end is SIGINT, and time to print.
"""

import base64
import difflib
import json
import os
import re
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Callable
from typing import IO, Any

from kubectl_gadget.agent import node
from kubectl_gadget.agent.refusal import capabilities

TOOLS = "/usr/sbin"
_SUFFIX = "-bpfcc"
_PYTHON = "/usr/bin/python3"
"""Debian's, which has the module bcc."""
_FAREWELL_SECONDS = 10.0
SCRIPT = "own:script"
"""How a script of the user's is declared."""
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
"""Loads a C file, which bcc attaches by the names of its functions, and prints what bpf_trace_printk() writes."""

Problem = dict[str, str]
"""`what`, `why` and `try`, as in HELLO."""


def tools(folder: str = TOOLS) -> list[str]:
    """The names of the stock tools here, without Debian's suffix."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def headers(root: str = "") -> str:
    """Where bcc will find the running kernel's headers, as it looks for them itself; empty: nowhere."""
    if source := os.environ.get("BCC_KERNEL_SOURCE"):
        return source if os.path.isdir(source) else ""
    release = os.uname().release
    places = [f"{root}/lib/modules/{release}/{name}" for name in ("source", "build")]
    found = next((place for place in places if os.path.isdir(f"{place}/include")), "")
    archive = f"{root}/sys/kernel/kheaders.tar.xz"
    return found or (archive if os.path.exists(archive) else "")


def problems(request: dict[str, Any], known: list[str], found_headers: str) -> list[Problem]:
    """What keeps this node from running what is asked for."""
    found = []
    release = os.uname().release
    if not known:
        why = "its tools are not in /usr/sbin, where Debian's packages put them"
        found.append(_problem("bcc is not installed", why, "apt-get install bpfcc-tools python3-bpfcc"))
    elif (tool := request.get("tool")) and tool not in known:
        near = ", ".join(difflib.get_close_matches(tool, known)) or "kubectl gadget bcc --list"
        found.append(_problem(f"bcc has no tool {tool!r}", "it is none of those that are installed", near))
    if os.geteuid() != 0 or "SYS_ADMIN" not in capabilities():
        found.append(_problem("bcc cannot load programs", "it needs root and CAP_SYS_ADMIN", "sudo, or --privileged"))
    if not found_headers:
        why = f"bcc compiles with the headers of the running kernel, {release}, and they are not on this node"
        remedy = f"apt-get install linux-headers-{release} on it, or modprobe kheaders, if its kernel has that module"
        found.append(_problem("kernel headers are missing", why, remedy))
    return found


def _problem(what: str, why: str, remedy: str) -> Problem:
    return {"what": what, "why": why, "try": remedy}


def command(request: dict[str, Any], folder: str) -> list[str]:
    """The command line. A script of the user's is written into `folder`."""
    arguments = [str(item) for item in request.get("arguments") or []]
    if (tool := request.get("tool")) and _NAME.fullmatch(tool):
        return [f"{TOOLS}/{tool}{_SUFFIX}", *arguments]
    name = "program.c" if request.get("language") == "c" else "script.py"
    path = f"{folder}/{name}"
    with open(path, "wb") as file:
        file.write(base64.b64decode(request["script"]))
    return [_PYTHON, "-c", _C_RUNNER, path] if name == "program.c" else [_PYTHON, path, *arguments]


def undeclared(request: dict[str, Any], declared: str | None, in_pod: bool) -> str | None:
    """Why a request is not what the command declared, which the audit log has; None when it is."""
    wanted = str(request.get("tool") or SCRIPT)
    if declared == wanted or (declared is None and not in_pod):
        return None
    return f"{wanted} is asked for, and the command of this session declared {declared or 'nothing'}"


class Lines:
    """Complete lines out of pieces."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._rest = b""
        self._tell = tell

    def feed(self, data: bytes) -> None:
        """The next piece; b"" is the end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines, self._rest = [self._rest], b""
        for line in lines:
            self._tell(line.decode(errors="replace"))


class Runner:
    """Speaks over `input` and `output`."""

    def __init__(self, input: IO[bytes], output: IO[bytes], declared: str | None = None) -> None:
        self._input = input
        self._output = output
        self._declared = declared

    def run(self) -> int:
        """Until the tool has ended. The exit code of this program: 0 when the client was told all."""
        request = self._next()
        known, found = tools(), headers()
        missing = [] if request.get("list") else problems(request, known, found)
        self._say(node=node.name(), kernel=os.uname().release, headers=found, tools=known, problems=missing)
        if not self._next().get("go"):
            return 0
        if (why := undeclared(request, self._declared, bool(node.pod_uid()))) is not None:
            self._say(error=why, exit=2)
            return 0
        # The root of our pods is read-only; bcc unpacks headers there as well.
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HOME": folder}
            try:
                process = subprocess.Popen(
                    command(request, folder),
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
        return 0

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        """The tool's lines, until it has closed both streams; it is told to end when the client says so or is gone."""
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as ready:
            lines = {process.stdout: Lines(self._out), process.stderr: Lines(self._err)}
            for source in (*lines, self._input):
                ready.register(source, selectors.EVENT_READ)
            open_streams = set(lines)
            stopping = False
            while open_streams:
                events = ready.select(_FAREWELL_SECONDS if stopping else None)
                if stopping and not events:
                    _signal(process, signal.SIGKILL)
                    return
                for key, _ in events:
                    if key.fileobj is self._input:
                        # Whatever comes now means the end.
                        ready.unregister(self._input)
                        stopping = True
                        _signal(process, signal.SIGINT)
                        continue
                    stream: Any = key.fileobj
                    data = os.read(stream.fileno(), 1 << 16)
                    lines[stream].feed(data)
                    if not data:
                        ready.unregister(stream)
                        open_streams.discard(stream)

    def _out(self, line: str) -> None:
        self._say(out=line)

    def _err(self, line: str) -> None:
        self._say(err=line)

    def _say(self, **members: Any) -> None:
        try:
            self._output.write(json.dumps(members).encode() + b"\n")
            self._output.flush()
        except BrokenPipeError:
            return  # the client is gone, which the input tells as well

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
    """Over standard input and output, unbuffered: what is read ahead would be missed by select. `declared` is the tool
    that the command line names."""
    # A shell has its background jobs ignore what ends a tool, and the tool would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(0, "rb", buffering=0, closefd=False) as input, open(1, "wb", closefd=False) as output:
        return Runner(input, output, declared).run()
