"""`python -I -m kubectl_gadget.agent bcc`: runs a bcc tool, a user's script or a bpftrace program on this node.

Both sides exchange lines of JSON (docs/protocol.md): first the client's request, then what is missing here, and, when
the client has the answers of all nodes, the tool's lines. Many tools print their sums only at Ctrl-C, so they are ended
by SIGINT and get time to print.
"""

import base64
import ctypes
import difflib
import itertools
import json
import math
import os
import re
import selectors
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from typing import IO, Any

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import OpenMap
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host import procfs, this_node
from kubectl_gadget.agent.kernel.refusal import capabilities
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.client_messages import FilterSpec

Problem = dict[str, str]
"""`what`, `why` and `try`, as in HELLO."""
Request = dict[str, Any]
"""The client's request for a tool, as JSON."""


# bpftrace on this node: whether it works here, and the map that limits its probes to chosen pods.
#
# The client adds a test of a map to each probe (other_tools/bpftrace_program.py); the agent finds the map in the
# running process and fills it from outside, as pods come and go. Maps of other processes may have the same name, so it
# is looked up among the process's own file descriptors.

_PROGRAM_HEADERS, _HEADER_SIZES = 32, 54
"""Offsets in a 64-bit ELF header: of e_phoff, and of e_phentsize and e_phnum."""
_FILE = "program.bt"
_RELRO = 0x6474E552
_BTF = "/sys/kernel/btf/vmlinux"
SHELL = "/bin/sh"
_IRRELEVANT = re.compile(r"couldn't set RLIMIT_MEMLOCK")
"""Since Linux 5.11, a BPF program's memory is charged to its cgroup."""
_MAP_NAME = re.compile(r"\w{1,11}", re.ASCII)


def bpftrace_problems() -> list[Problem]:
    """Returns what keeps bpftrace from running here."""
    found = []
    if (path := shutil.which("bpftrace")) is None:
        remedy = "apt-get install bpftrace on it, or --image with Python and bpftrace (docs/install.md)"
        found.append({"what": "bpftrace is not installed", "why": "it is not on the PATH", "try": remedy})
    elif (why := _crash(path)) and not _runs_without_relro():
        remedy = "another version of bpftrace and of the LLVM that it uses"
        found.append({"what": "bpftrace cannot start", "why": why, "try": remedy})
    if os.geteuid() != 0 or "SYS_ADMIN" not in capabilities():
        why = "it needs root and CAP_SYS_ADMIN"
        found.append({"what": "bpftrace cannot load programs", "why": why, "try": "sudo, or --privileged"})
    if not os.path.exists(SHELL):
        why = f"it finds the compiler's headers with a shell, and crashes without {SHELL}"
        found.append({"what": "bpftrace needs a shell", "why": why, "try": "an agents' image of this version"})
    if why := _without_tracefs():
        found.append(
            {
                "what": "tracefs is not mounted",
                "why": why,
                "try": f"mount -t tracefs tracefs {this_node.TRACEFS_FOLDERS[0]}",
            }
        )
    if not os.path.exists(_BTF):
        why = f"there is no {_BTF}, from which bpftrace reads the kernel's types"
        found.append({"what": "the kernel has no BTF", "why": why, "try": "a kernel with CONFIG_DEBUG_INFO_BTF"})
    return found


def executable(folder: str) -> str:
    """Returns the path of bpftrace, or of a copy in `folder` that can start where the installed one cannot."""
    path = shutil.which("bpftrace") or "bpftrace"
    if not _crash(path):
        return path
    copy = f"{folder}/bpftrace"
    with open(path, "rb") as source, open(copy, "wb") as target:
        target.write(without_relro(source.read()))
    os.chmod(copy, 0o700)
    return copy


def _without_tracefs() -> str:
    """Returns why tracepoints cannot be looked up, or "". In our pods it mounts tracefs, visible in this pod only."""
    if this_node.tracefs():
        return ""
    if not this_node.pod_uid():
        return f"neither {' nor '.join(this_node.TRACEFS_FOLDERS)} has the kernel's events"
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(b"tracefs", this_node.TRACEFS_FOLDERS[0].encode(), b"tracefs", 0, None):
        return os.strerror(ctypes.get_errno())
    return ""


def _runs_without_relro() -> bool:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        return not _crash(executable(folder))


@cache
def _crash(path: str) -> str:
    """Returns how it fails at its start, such as by a signal; "" when it starts."""
    try:
        code = subprocess.run([path, "--version"], capture_output=True, check=False).returncode
    except OSError as error:
        return str(error)
    return f"signal {signal.Signals(-code).name}, before it did anything" if code < 0 else ""


def without_relro(elf: bytes) -> bytes:
    """Returns the program without the header that makes relocated data read-only.

    bpftrace has copies of LLVM's constants there, and some builds of libLLVM write to them at start: SIGSEGV before
    main().
    """
    data = bytearray(elf)
    (start,) = struct.unpack_from("<Q", data, _PROGRAM_HEADERS)
    size, count = struct.unpack_from("<HH", data, _HEADER_SIZES)
    for offset in range(start, start + size * count, size):
        if struct.unpack_from("<I", data, offset)[0] == _RELRO:
            struct.pack_into("<I", data, offset, 0)
    return bytes(data)


def bpftrace_command(request: Request, folder: str) -> list[str]:
    """Returns the command line. Writes the program to a file in the working directory `folder`; errors name it."""
    with open(f"{folder}/{_FILE}", "w", encoding="utf-8") as file:
        file.write(str(request["bpftrace"]))
    arguments = [str(item) for item in request.get("arguments") or []]
    return [executable(folder), "-q", "-B", "line", "--", _FILE, *arguments]


class ChosenPods:
    """Fills the map of a bpftrace process with the cgroups of the wanted containers. Raises AgentError."""

    def __init__(self, name: str, filter: FilterSpec) -> None:
        self._name = name if _MAP_NAME.fullmatch(name) else ""
        self._wanted: dict[int, list[int]] = {}
        """the cgroup of each wanted container, with some of those below it"""
        self._map: OpenMap | None = None
        self._is_full = False
        self.warnings: list[str] = []
        self._containers = Containers()
        self.fd = self._containers.fd
        """readable when cgroups were made or removed"""
        self._containers.set_filter(filter)
        self._containers.follow(self)
        self.turn()

    def set_filter(self, filter: FilterSpec) -> None:
        """Selects other pods."""
        self._containers.set_filter(filter)

    def turn(self) -> None:
        """Processes changes of cgroups."""
        self._containers.drain()
        self._containers.take_changes()
        self._containers.take_removed()

    def set_owner(self, cgroup: int, container: ContainerIdentity | None, wanted: bool) -> None:
        if container is not None and wanted:
            # The program itself adds cgroups that the container makes later.
            self._wanted[cgroup] = [cgroup, *self._containers.some_below(cgroup)]
            for each in self._wanted[cgroup]:
                self._put(each)
        else:
            self.forget(cgroup)

    def forget(self, cgroup: int) -> None:
        for each in self._wanted.pop(cgroup, ()):
            if self._map is not None:
                self._map.remove(each.to_bytes(8, "little"))

    def attach(self, pid: int) -> bool:
        """Finds the map of the process and fills it. Returns False while the process does not have it yet."""
        if self._map is None and (found := find_map(pid, self._name)) is not None:
            self._map = found
            for each in itertools.chain.from_iterable(self._wanted.values()):
                self._put(each)
        return self._map is not None

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        self._containers.close()

    def _put(self, cgroup: int) -> None:
        if self._map is None:
            return
        try:
            self._map.put(cgroup.to_bytes(8, "little"), (1).to_bytes(self._map.value_size, "little"))
        except Failure:
            if not self._is_full:
                self._is_full = True
                what = f"there are more cgroups than the {self._map.entries} that a bpftrace map can hold"
                remedy = "fewer pods, or config = { max_map_keys = N } in the program"
                self.warnings.append(f"{what}, so some containers are missing (try: {remedy})")


def is_irrelevant(line: str) -> bool:
    """True if a line on bpftrace's standard error is not worth showing."""
    return bool(_IRRELEVANT.search(line))


def find_map(pid: int, name: str) -> OpenMap | None:
    """Returns the map @name of a bpftrace process, or None."""
    opened = (_open_if(id, name) for _, id in procfs.bpf_objects(pid, b"map_id"))
    return next(filter(None, opened), None)


def _open_if(id: int, name: str) -> OpenMap | None:
    """Opens a map by its id, if it has this name."""
    try:
        found = OpenMap(libbpf.load().call("bpf_map_get_fd_by_id", id))
    except Failure:
        return None
    if name and found.name in (f"AT_{name}", name) and found.key_size == 8:
        return found
    found.close()
    return None


# Tools of bcc and scripts, and how they run.

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


def problems(request: Request, known: list[str], found_headers: str) -> list[Problem]:
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


def command(request: Request, folder: str) -> list[str]:
    """Returns the command line. A user's script is written into `folder`."""
    arguments = [str(item) for item in request.get("arguments") or []]
    if (tool := request.get("tool")) and _NAME.fullmatch(tool):
        return [f"{TOOLS}/{tool}{_SUFFIX}", *arguments]
    name = "program.c" if request.get("language") == "c" else "script.py"
    path = f"{folder}/{name}"
    with open(path, "wb") as file:
        file.write(base64.b64decode(request["script"]))
    return [_PYTHON, "-c", _C_RUNNER, path] if name == "program.c" else [_PYTHON, path, *arguments]


def undeclared(request: dict[str, object], declared: str | None, in_pod: bool) -> str | None:
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
        self._pods: ChosenPods | None = None
        self._attached = False
        self._is_bpftrace = False
        self._hidden = ""
        """prefix of the lines that bpftrace prints about our map"""

    def run(self) -> int:
        """Runs until the tool has ended. Returns this program's exit code, 0: the client gets the tool's."""
        request = self._next()
        known, found = tools(), headers()
        if "bpftrace" in request:
            missing = bpftrace_problems()
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
                    bpftrace_command(request, folder) if "bpftrace" in request else command(request, folder),
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

    def _choose_pods(self, request: dict[str, object]) -> None:
        self._is_bpftrace = "bpftrace" in request
        if name := request.get("map"):
            self._hidden = f"@{name}["
            self._pods = ChosenPods(str(name), FilterSpec.from_json(request.get("filter") or {}, "FILTER"))

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
        if not (self._is_bpftrace and is_irrelevant(line)):
            self._say(err=line)

    def _say(self, **members: object) -> None:
        try:
            self._output.write(json.dumps(members).encode() + b"\n")
            self._output.flush()
        except BrokenPipeError:
            return  # the client is gone, which reading the input shows as well

    def _next(self) -> dict[str, object]:
        line = self._input.readline()
        found: dict[str, object] = json.loads(line) if line.strip() else {}
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
