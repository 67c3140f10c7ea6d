"""The policies that come with the program, all at once, in a container: each is triggered by what it is about, and an
ordinary workload triggers none.

The container is made of what makes one: a cgroup that the agent knows as a pod's, namespaces, and mounts of its own.
A policy that is loaded beside others may match what they are tested with, so only its own message counts.
"""

import ctypes
import functools
import http.client
import http.server
import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.host.cgroups import find_root
from kubectl_gadget.policies.read.policy_files import read_builtin_policies
from tests.bpf import deeds
from tests.bpf.network_pods import CLONE_NEWPID, Worker
from tests.bpf.policy_engine import Enforcer, in_force
from tests.bpf.test_policy import in_child
from tests.bpf.verified import POLICY_CEILING, check, verified

pytestmark = pytest.mark.bpf
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_PRIVATE, MS_REC = 1 << 18, 16384
PTRACE_SEIZE = 0x4206
X86 = deeds.X86
BPF, SETNS, INIT_MODULE, FINIT_MODULE = (321, 308, 175, 313) if X86 else (280, 268, 105, 273)
MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT = 429, 430, 431, 432
AT_FDCWD, CONFIG_CREATE, MOVE_FROM_FD = -100, 6, 4
PUBLIC = "192.88.99.1"
OWN = Path("/usr/local/bin")
"""A folder of programs that this container alone has, so that it may write there."""
TMP = Path("/opt")
CAPABILITY_VERSION_3 = 0x20080522
WAYS_OUT = (2, 12, 16, 17, 19, 21, 39)
"""CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_BPF"""
PROT_READ, PROT_WRITE, MAP_SHARED = 1, 2, 1
FILE_CAPABILITIES = bytes([1, 0, 0, 2, *[0xFF] * 4, *[0] * 12])
"""struct vfs_cap_data, of revision 2"""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)


class Host(NamedTuple):
    """What of the container its node knows."""

    container: Worker
    first: int
    """its first process"""
    cgroup: Path
    enforcer: Enforcer
    verified: dict[str, int]
    """instructions of each program"""

    def told(self) -> set[tuple[str, str]]:
        """Policies and messages since the last call."""
        matches = self.enforcer.matches()
        assert self.enforcer.lost == {}
        return {(match.place.policy.name, match.place.hook.message) for match in matches}


def prepare() -> None:
    """As a runtime does: mounts that are the container's own. All addresses are reached through loopback."""
    for source, target, kind, flags in (
        (None, "/", None, MS_PRIVATE | MS_REC),
        ("tmpfs", str(OWN), "tmpfs", 0),
        ("tmpfs", str(TMP), "tmpfs", 0),
        ("proc", "/proc", "proc", 0),
    ):
        texts = [value and value.encode() for value in (source, target, kind)]
        if _libc.mount(*texts, ctypes.c_ulong(flags), None):
            raise OSError(ctypes.get_errno(), f"mount {target}")
    for name in ("program", "other"):
        (OWN / name).write_text("x" * 4096)
    for name in ("xmrig", "busybox", "tool", "setuid"):
        shutil.copy("/bin/true", TMP / name)
    (TMP / "setuid").chmod(0o4755)
    (TMP / "module.ko").write_text("no module")
    (TMP / "id_rsa").write_text("no key")
    (TMP / "nr_hugepages").write_text("0")
    (TMP / "core_pattern").write_text("core")
    (TMP / "group-folder").mkdir()
    subprocess.run(["ip", "route", "add", "default", "dev", "lo"], check=True)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    cgroup = Path(find_root()) / f"builtin-policies-{uuid.uuid4().hex[:8]}"
    cgroup.mkdir()
    container = Worker(cgroup, CLONE_NEWPID | CLONE_NEWNS)
    try:
        container.run(prepare)
        (first,) = map(int, Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split())
        known = ContainerIdentity(
            "id", cgroup.stat().st_ino, "shop", "web", "uid", "main", "", "containerd", "container"
        )
        own = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip()
        containers = {known.cgroup: known, (Path(find_root()) / own.lstrip("/")).stat().st_ino: None}
        policies = [builtin.policy for builtin in read_builtin_policies()]
        with verified() as found, in_force(*policies, pid=0, containers=containers) as enforcer:
            yield Host(container, first, cgroup, enforcer, found)
    finally:
        container.close()
        cgroup.rmdir()


def tried(deed: Callable[[], object]) -> None:
    """In a process of its own. It may fail: what counts is that it was tried."""

    def trying() -> None:
        with suppress(OSError):
            deed()

    assert os.WIFEXITED(in_child(trying))


def run(*arguments: str) -> None:
    os.execv(arguments[0], arguments)


def connect(port: int) -> None:
    with socket.socket() as client:
        client.setblocking(False)
        client.connect((PUBLIC, port))


def connect_unix() -> None:
    socket.socket(socket.AF_UNIX).connect("/run/containerd/containerd.sock")


def load_module_from_a_file() -> None:
    deeds.syscall(FINIT_MODULE, os.open(TMP / "module.ko", os.O_RDONLY), b"", 0)


def load_module_from_memory() -> None:
    deeds.syscall(INIT_MODULE, ctypes.create_string_buffer(64), 64, b"")


def load_program() -> None:
    deeds.syscall(BPF, 5, ctypes.create_string_buffer(128), 128)


def enter_namespace() -> None:
    deeds.syscall(SETNS, os.open("/proc/self/ns/uts", os.O_RDONLY), 0)


def mount() -> None:
    _libc.mount(b"none", b"/mnt", b"tmpfs", ctypes.c_ulong(0), None)


def mount_by_descriptor() -> None:
    """As mount(8) does it."""
    context = deeds.syscall(FSOPEN, b"tmpfs", 0)
    deeds.syscall(FSCONFIG, context, CONFIG_CREATE, None, None, 0)
    mounted = deeds.syscall(FSMOUNT, context, 0, 0)
    deeds.syscall(MOVE_MOUNT, mounted, b"", AT_FDCWD, b"/mnt", MOVE_FROM_FD)


def trace_the_first_process() -> None:
    _libc.ptrace(PTRACE_SEIZE, 1, None, None)


def write(path: Path, flags: int = 0) -> None:
    os.write(os.open(path, os.O_WRONLY | flags), b"x")


def map_for_writing() -> None:
    import mmap

    with (OWN / "program").open("r+b") as file:
        mmap.mmap(file.fileno(), 4096)


def make_writable_in_memory() -> None:
    with (OWN / "program").open("r+b") as file:
        address = _libc.mmap(None, 4096, PROT_READ, MAP_SHARED, file.fileno(), 0)
        _libc.mprotect(ctypes.c_void_p(address), 4096, PROT_READ | PROT_WRITE)


def create_with_setuid() -> None:
    os.umask(0)
    os.open(TMP / "created", os.O_CREAT | os.O_WRONLY, 0o4755)


def become_root_again() -> None:
    os.seteuid(1000)
    os.seteuid(0)


def set_capabilities(change: Callable[[int], int]) -> None:
    """Changes the effective ones of this thread: capget() and capset()."""
    head = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if _libc.capget(head, sets):
        raise OSError(ctypes.get_errno(), "capget")
    effective = change(sets[3] << 32 | sets[0])
    sets[0], sets[3] = effective & 0xFFFFFFFF, effective >> 32
    if _libc.capset(head, sets):
        raise OSError(ctypes.get_errno(), "capset")


def lose(capability: int) -> None:
    set_capabilities(lambda effective: effective & ~(1 << capability))


def gain(capability: int) -> None:
    """It is among those that the process may have, and not among those that it has."""
    lose(capability)
    set_capabilities(lambda effective: effective | 1 << capability)


def make_user_namespace() -> None:
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    _libc.unshare(CLONE_NEWUSER)


def from_memory() -> None:
    fd = os.memfd_create("dropped", 0)
    os.write(fd, Path("/bin/true").read_bytes())
    os.execve(fd, ["x"], {})


def shell_by_busybox() -> None:
    (TMP / "ash").symlink_to(TMP / "busybox")
    run(str(TMP / "ash"))


ESCAPE, CREDENTIALS, MINER, FILES = "container-escape", "credential-access", "crypto-miner", "file-integrity"
GAIN, SHELL = "privilege-gain", "shell-in-container"
WAY = "A container opens a way to the node"
MODULE = "A container loads a kernel module or a kernel"
PERMISSIONS = "A file that belongs to the image gets other permissions"
SETUID = "A file gets the setuid or setgid bit"
GAINED = "Capabilities are gained with which a container can be left"
DEEDS: tuple[tuple[str, str, Callable[[], object]], ...] = (
    (ESCAPE, "A container mounts something", mount),
    (ESCAPE, "A container mounts something", mount_by_descriptor),
    (ESCAPE, "A container makes a mount namespace", functools.partial(_libc.unshare, CLONE_NEWNS)),
    (ESCAPE, MODULE, load_module_from_a_file),
    (ESCAPE, MODULE, load_module_from_memory),
    (ESCAPE, "A container loads a BPF program", load_program),
    (ESCAPE, WAY, functools.partial(write, TMP / "core_pattern")),
    (ESCAPE, WAY, functools.partial(os.open, "/proc/kcore", os.O_RDONLY)),
    (ESCAPE, "A container talks to the container runtime", connect_unix),
    (ESCAPE, "A container enters other namespaces", enter_namespace),
    (CREDENTIALS, "A file with credentials is opened", Path("/etc/shadow").read_bytes),
    (CREDENTIALS, "A file with credentials is opened", functools.partial(run, "/bin/cat", str(TMP / "id_rsa"))),
    (CREDENTIALS, "The memory of another process is read, or it is traced", trace_the_first_process),
    (MINER, "A connection to a port that mining pools use", functools.partial(connect, 3333)),
    (MINER, "A program with a miner's name is run", functools.partial(run, str(TMP / "xmrig"))),
    (
        MINER,
        "Huge pages or registers of the CPU are set, which miners do",
        functools.partial(write, TMP / "nr_hugepages"),
    ),
    (FILES, "A file that belongs to the image is written", functools.partial(write, OWN / "program")),
    (FILES, "A file that belongs to the image is mapped for writing", map_for_writing),
    (FILES, "A file that belongs to the image is mapped for writing", make_writable_in_memory),
    (FILES, PERMISSIONS, functools.partial(os.chmod, OWN / "program", 0o700)),
    (FILES, "A file that belongs to the image gets another owner", functools.partial(os.chown, OWN / "program", 1, 1)),
    (FILES, "A link is put among the files of the image", functools.partial(os.symlink, "/opt/x", OWN / "symbolic")),
    (FILES, "A link is put among the files of the image", functools.partial(os.link, OWN / "program", OWN / "hard")),
    (FILES, "A file that belongs to the image is cut", functools.partial(os.truncate, OWN / "program", 5)),
    (FILES, "A file that belongs to the image is cut", functools.partial(write, OWN / "program", os.O_TRUNC)),
    (FILES, "A file that belongs to the image is removed", (OWN / "other").unlink),
    (
        FILES,
        "A file that belongs to the image is renamed or replaced",
        functools.partial(os.rename, OWN / "program", OWN / "renamed"),
    ),
    ("package-manager", "A package manager is run", functools.partial(run, "/usr/bin/apt-get", "--version")),
    *((GAIN, GAINED, functools.partial(gain, capability)) for capability in WAYS_OUT),
    (GAIN, "A process that was not root becomes root", become_root_again),
    (GAIN, "A user namespace is made, in which its maker has all capabilities", make_user_namespace),
    (GAIN, "A program with the setuid or setgid bit is run", functools.partial(run, str(TMP / "setuid"))),
    (GAIN, SETUID, functools.partial(os.chmod, TMP / "tool", 0o4755)),
    (GAIN, SETUID, create_with_setuid),
    (
        GAIN,
        "A file gets capabilities",
        functools.partial(os.setxattr, TMP / "tool", "security.capability", FILE_CAPABILITIES),
    ),
    (SHELL, "A shell is run", functools.partial(run, "/bin/sh", "-c", ":")),
    (SHELL, "A shell is run", shell_by_busybox),
    ("dropped-program", "A program is run that does not come from the image", from_memory),
    ("unexpected-egress", "A connection leaves the private networks", functools.partial(connect, 443)),
)


def test_no_program_takes_the_verifier_long(host: Host) -> None:
    check(host.verified, POLICY_CEILING)


@pytest.mark.parametrize("number", range(len(DEEDS)), ids=[f"{deed[0]}-{n}" for n, deed in enumerate(DEEDS)])
def test_what_a_policy_is_about_triggers_it(number: int, host: Host) -> None:
    policy, message, _ = DEEDS[number]
    host.told()
    host.container.run(try_number, number)
    assert (policy, message) in host.told()


def try_number(number: int) -> None:
    """In the container: functions that are made of others cannot be sent there."""
    tried(DEEDS[number][2])


def enter(host: Host, flags: int, names: tuple[str, ...]) -> None:
    """From outside, as kubectl exec and nsenter do: a process of the node's goes into the container."""
    fds = [os.open(f"/proc/{host.first}/ns/{name}", os.O_RDONLY) for name in names]
    (host.cgroup / "cgroup.procs").write_text(str(os.getpid()))
    for fd in fds:
        if _libc.setns(fd, flags):
            raise OSError(ctypes.get_errno(), "setns")
    tried(lambda: run("/bin/true"))


def test_a_process_that_enters_from_outside_is_not_a_child_of_the_container(host: Host) -> None:
    host.told()
    tried(lambda: enter(host, 0, ("pid", "net", "mnt")))
    assert host.told() == {("kubectl-exec", "A program is run that does not come from the container's first process")}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        (TMP / "access.log").write_text("GET")
        body = Path("/etc/hostname").read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


def work() -> None:
    """What a web server and its helpers do: serve, ask, write logs and temporary files, read settings and a token, run
    programs, become a user."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for _ in range(7):
        requester = http.client.HTTPConnection(*server.server_address[:2])
        requester.request("GET", "/")
        assert requester.getresponse().status == 200
        requester.close()
    server.shutdown()
    server.server_close()
    with socket.socket() as client:
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.connect(("10.96.0.1", 443))
    for name in ("/etc/hosts", "/etc/resolv.conf", "/etc/passwd", "/proc/sys/kernel/core_pattern", "/proc/1/stat"):
        Path(name).read_bytes()
    token = TMP / "token"
    token.write_text("token")
    token.rename(TMP / "renamed-token")
    (TMP / "renamed-token").read_text()
    (TMP / "renamed-token").chmod(0o600)
    (TMP / "renamed-token").unlink()
    (TMP / "group-folder").chmod(0o2755)
    for program in ("/bin/true", "/bin/cat", str(TMP / "busybox")):
        tried(functools.partial(run, program, "/etc/hosts"))
    tried(lambda: os.setresuid(1000, 1000, 1000))
    for capability in WAYS_OUT:
        tried(functools.partial(lose, capability))


def test_an_ordinary_workload_triggers_none(host: Host) -> None:
    host.told()
    host.container.run(work)
    assert host.told() == set()


def test_every_builtin_policy_is_tried() -> None:
    assert {builtin.name for builtin in read_builtin_policies()} == {deed[0] for deed in DEEDS} | {"kubectl-exec"}
