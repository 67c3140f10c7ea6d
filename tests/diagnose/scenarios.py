"""Scenarios: for each rule, a pod that is ill in its way, and a healthy twin that looks like it. They are data.

A program is a script of a shell, or Python if it begins with `#!python`; Python has the names of `PRELUDE`. It is the
main process of a container, and begins when the run is attached, unless it is `early`. In programs and objects,
{server} is the address of the other pod, {nobody} one that no pod has, {service} one that belongs to the other pod,
too, and {other} the address of the pod that talks to the server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PRELUDE = """
import contextlib, ctypes, os, resource, signal, socket, ssl, struct, subprocess, sys, threading, time

def every(seconds):
    while True:
        yield
        time.sleep(seconds)

def connect(host, port, timeout=1.0):
    try:
        return socket.create_connection((host, port), timeout)
    except OSError:
        return None

def reach(host, port):
    # Of what may start later.
    while (found := connect(host, port, 10)) is None:
        time.sleep(0.3)
    return found

def run(*words):
    try:
        return subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    except OSError:
        return -1

def write(path, data, mode=0o755):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)

def serve(handler, port, host=""):
    def whole(accepted):
        with accepted, contextlib.suppress(OSError):
            handler(accepted)
    with socket.create_server((host, port), backlog=64) as server:
        while True:
            threading.Thread(target=whole, args=(server.accept()[0],), daemon=True).start()

def answers(status):
    def handler(connection):
        while connection.recv(65536):
            connection.sendall(b"HTTP/1.1 %d X\\r\\nContent-Length: 2\\r\\n\\r\\nok" % status)
    return handler

def ask(connection, host="web"):
    connection.sendall(b"GET / HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n" % host.encode())
    return connection.recv(65536)

def tls_server(name, port=443, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"/srv/{name}.pem")
    for option, value in options.items():
        setattr(context, option, value)
    def handler(connection):
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(10)
    serve(handler, port)

def tls_client(host, name="shop.test", **options):
    context = ssl.create_default_context(cafile="/srv/ca.pem")
    for option, value in options.items():
        setattr(context, option, value)
    with contextlib.suppress(OSError), socket.create_connection((host, 443), 2) as plain:
        with context.wrap_socket(plain, server_hostname=name) as wrapped:
            wrapped.send(b"hello")
"""
SLEEP = "exec sleep 1000"
_HTTP_CLIENT = """#!python
for _ in every(0.4):
    with reach("{server}", 80) as connection:
        ask(connection)
"""
_LOCKS = """#!python
libc = ctypes.CDLL(None)
mutexes = [ctypes.create_string_buffer(64) for _ in range(2)]
def work(first, second):
    while True:
        libc.pthread_mutex_lock(first); time.sleep(0.2); libc.pthread_mutex_lock(second)
        libc.pthread_mutex_unlock(second); libc.pthread_mutex_unlock(first); time.sleep(0.1)
threading.Thread(target=work, args=(mutexes[0], mutexes[1])).start()
work(mutexes[ILL], mutexes[1 - ILL])
"""
_NO_PROGRAM = "while :; do /usr/local/bin/no-such-program; sleep 1; done"
_PATH_SEARCH = """#!python
os.environ["PATH"] = "/opt/bin:/usr/local/sbin:" + os.environ["PATH"]  # execvp() tries each of them
for _ in every(1.0): run("true")
"""
_SECCOMP = """#!python
libc = ctypes.CDLL(None, use_errno=True)
# Load the number; if it is that of unshare(), fail with EPERM; else allow.
number = 97 if os.uname().machine == "aarch64" else 272
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
buffer = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
libc.prctl(38, 1, 0, 0, 0)
libc.prctl(22, 2, struct.pack("HxxxxxxQ", len(code), ctypes.addressof(buffer)), 0, 0)
time.sleep(1)
"""
_UNSHARES = "for _ in every(1.0): libc.unshare(0x10000000)\n"
_PATCHED = """#!python
write("/tmp/start", open("/usr/bin/true", "rb").read().replace(b"OLD", b"NEW"))
for _ in every(1.0): run("/tmp/start")
"""
_OF_OTHER_MACHINE = """#!python
data = bytearray(open("/usr/bin/true", "rb").read())
data[18:20] = b"\\xb7\\0" if data[18] != 0xb7 else b"\\x3e\\0"
write("/tmp/start", data)
for _ in every(1.0): run("/tmp/start")
"""
_COPIED = '#!python\nwrite("/tmp/start", open("/usr/bin/true", "rb").read())\nfor _ in every(1.0): run("/tmp/start")'
_CONFIG_THEN_CONNECT = """#!python
for _ in every(1.0):
    with contextlib.suppress(OSError):
        open("/etc/app/client.conf")
    connect("ADDRESS", 6379)
"""
_SLOW_MUTEX = """#!python
libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)
def work():
    while True:
        libc.pthread_mutex_lock(mutex)
        libc.usleep(HELD)
        libc.pthread_mutex_unlock(mutex)
        libc.usleep(1000)
for _ in range(8): threading.Thread(target=work).start()
"""
_EACH_ADDRESS = """#!python
for _ in every(0.5):
    for address in socket.gethostbyname_ex("NAME")[2]:
        if connection := connect(address, 80, 0.7):
            connection.close()
            break
"""
_WAITERS = """#!python
def work():
    connection = reach("{server}", 80)
    connection.settimeout(None)
    while True: connection.recv(10)
for _ in range(6): threading.Thread(target=work).start()
"""
_OPENS = """#!python
for _ in every(1.0):
    with contextlib.suppress(OSError):
        open("PATH")
"""
_DEAF = """#!python
subprocess.run(["ip", "neigh", "replace", "{other}", "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "permanent"])
serve(answers(200), 80)
"""


@dataclass(frozen=True)
class Scenario:
    """One rule's scenario. `ill` and `twin` are programs of pods ill-NAME and twin-NAME; `server` and `twin_server` of
    the pods that they talk to, ill-NAME-server and twin-NAME-server."""

    rule: str
    ill: str = ""
    twin: str = SLEEP
    server: str = ""
    twin_server: str | None = None
    """None: the same as `server`; "": the twin has none"""
    name: str = ""
    about: str = ""
    """"server" if the finding is about that pod"""
    below: Sequence[str] = ()
    """rules that may be the root of it, since they say more"""
    also: Sequence[str] = ()
    """rules that may say something about the same pods besides: another cause in it"""
    says: str = ""
    """what is in the title"""
    needs: str = ""
    """what the kernel must have (fexit; limits of cgroup v2: the controllers cpu and memory) or lack (no fexit)"""
    limits: Mapping[str, str] = field(default_factory=dict)
    """contents of files in the cgroups of both, such as memory.max"""
    filter: str = ""
    """a rule of nftables for what the ill one sends"""
    uid: int = 0
    twin_uid: int | None = None
    """None: the same"""
    privileged: bool = False
    ends: bool = False
    """both get SIGTERM and, two seconds later, SIGKILL from the node"""
    has_volume: bool = False
    """the ill one has /tmp/volume, whose server never answers"""
    early: bool = False
    """it begins when its container starts"""
    is_slow: bool = False
    """only a second look at processes or sockets, 15 seconds after the first one, shows it"""
    pod: Mapping[str, Any] = field(default_factory=dict)
    """what differs in the ill pod's object"""
    log: str = ""
    """of the ill pod's last run"""
    twin_log: str = ""
    twin_pod: Mapping[str, Any] = field(default_factory=dict)
    objects: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """objects of the API for the ill ones, by kind"""
    twin_objects: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.name or self.rule

    @property
    def has_program(self) -> bool:
        """True if a container runs; otherwise only the API knows of the pod."""
        return bool(self.ill)


def _service(port: int, target: int, ready: bool | None, name: str = "{title}") -> dict[str, list[dict[str, Any]]]:
    """A service at {service} with one endpoint, the other pod, or without one if `ready` is None."""
    spec: dict[str, Any] = {"clusterIP": "{service}", "clusterIPs": ["{service}"], "selector": {"app": name}}
    spec["ports"] = [{"port": port, "targetPort": target, "protocol": "TCP"}]
    ends = [] if ready is None else [{"addresses": ["{server}"], "conditions": {"ready": ready}}]
    labels = {"kubernetes.io/service-name": name}
    return {
        "services": [{"metadata": {"name": name}, "spec": spec}],
        "endpointslices": [{"metadata": {"name": name, "labels": labels}, "endpoints": ends, "ports": []}],
    }


def _events(reason: str, message: str, kind: str = "Pod", count: int = 3) -> dict[str, list[dict[str, Any]]]:
    name = "{title}" if kind == "Pod" else "{title}-5d4f8c9b7c"
    about = {"kind": kind, "namespace": "shop", "name": name, "fieldPath": "spec.containers{app}"}
    found = {"metadata": {"name": "{title}.1"}, "involvedObject": about, "reason": reason, "message": message}
    return {"events": [found | {"count": count, "type": "Warning", "lastTimestamp": "{now}"}]}


def _waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    status = {"name": "app", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": reason}}, **more}
    status["state"]["waiting"]["message"] = message
    return {"status": {"phase": "Pending", "containerStatuses": [status]}, "ready": False}


def _ended(**ended: Any) -> dict[str, Any]:
    status = {"name": "app", "ready": True, "restartCount": 1, "state": {"running": {"startedAt": "{now}"}}}
    return {"status": {"phase": "Running", "containerStatuses": [status | {"lastState": {"terminated": ended}}]}}


def _crashed(code: int) -> dict[str, Any]:
    """Waits for its next start; the last run ended with this exit code."""
    reason = "Error" if code else "Completed"
    ended = {"exitCode": code, "reason": reason, "containerID": "containerd://{title}", "finishedAt": "{now}"}
    found = _waiting("CrashLoopBackOff", "back-off 5m0s restarting", lastState={"terminated": ended})
    found["status"]["phase"] = "Running"
    found["status"]["containerStatuses"][0]["restartCount"] = 4
    return found


def _probe(port: int, kind: str = "readinessProbe") -> dict[str, Any]:
    probe = {"httpGet": {"port": port, "path": "/healthz"}, "timeoutSeconds": 1}
    return {"container": {kind: probe}}


def _of_job(code: int) -> dict[str, Any]:
    ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
    status = {"name": "app", "ready": False, "restartCount": 0, "state": {"terminated": ended}}
    owner = {"kind": "Job", "apiVersion": "batch/v1", "name": "{title}", "uid": "{title}", "controller": True}
    return {
        "ready": False,
        "metadata": {"ownerReferences": [owner]},
        "status": {"phase": "Failed" if code else "Succeeded", "containerStatuses": [status]},
    }


_EGRESS = {
    "networkpolicies": [
        {
            "metadata": {"name": "{title}"},
            "spec": {"podSelector": {"matchLabels": {"app": "{title}"}}, "policyTypes": ["Egress"]},
        }
    ]
}
DNS = """#!python
seen = set()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 53))
while True:
    message, sender = sock.recvfrom(4096)
    labels, at = [], 12
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode())
        at += 1 + length
    name = ".".join(labels)
    if name.startswith("silent") or (name.startswith("lossy") and sender[0] not in seen):
        seen.add(sender[0])
        continue
    if name.startswith("slow") and (sender[0], "slow") not in seen:
        seen.add((sender[0], "slow"))  # each second packet is lost
        continue
    seen.discard((sender[0], "slow"))
    is_known = name == "api.shop.svc.cluster.local" or ("." in name and not name.endswith(".cluster.local"))
    code = 2 if name.startswith("servfail") else 0 if is_known else 3
    addresses = ["{nobody}"]
    if name.endswith("first.example"):  # the addresses are in the name
        addresses = [".".join(labels[place : place + 4]) for place in (0, 4)]
    if message[at + 2] != 1 or code:
        addresses = []
    answer = message[:2] + struct.pack("!5H", 0x8580 | code, 1, len(addresses), 0, 0) + message[12 : at + 5]
    for address in addresses:
        answer += struct.pack("!HHHIH4s", 0xC00C, 1, 1, 30, 4, socket.inet_aton(address))
    sock.sendto(answer, sender)
"""
PROGRAMS: tuple[Scenario, ...] = (
    # Network.
    Scenario(
        "accept-queue-full",
        """#!python
kept = []
for _ in every(1.0):
    kept.append(connect("{server}", 8000, 2.0))
""",
        """#!python
for _ in every(1.0):
    reach("{server}", 8000).close()
""",
        """#!python
server = socket.create_server(("", 8000), backlog=1)
time.sleep(1000)
""",
        """#!python
server = socket.create_server(("", 8000), backlog=1)
while True:
    server.accept()[0].close()
""",
        about="server",
        early=True,
        says="port 8000",
        is_slow=True,
    ),
    Scenario(
        "address-of-no-pod",
        """#!python
for _ in every(0.5):
    connect("{nobody}", 80, 1.0)
""",
        """#!python
for _ in every(0.5):
    reach("{server}", 80).close()
""",
        "#!python\nserve(answers(200), 80)",
        says="an address that no pod, service or node has",
    ),
    Scenario(
        "connection-refused",
        """#!python
for _ in every(0.5):
    connect("{server}", 80)
""",
        """#!python
for _ in every(0.5):
    connect("{server}", 80)
""",
        "#!python\ntime.sleep(1000)",
        "#!python\ntime.sleep(3)\nserve(answers(200), 80)",  # refused at first, as at each rollout
        says="port 80",
    ),
    Scenario(
        "wrong-port",
        """#!python
for _ in every(0.5):
    connect("{server}", 81)
""",
        """#!python
for _ in every(0.5):
    connect("{server}", 80)
""",
        "#!python\nserve(answers(200), 80)",
        says="port 81",
        is_slow=True,
    ),
    Scenario(
        "egress-policy-drops",
        """#!python
for _ in every(0.5):
    connect("{server}", 80)
""",
        """#!python
for _ in every(0.5):
    connect("{server}", 80)
""",
        _DEAF,
        "#!python\nserve(answers(200), 80)",
        privileged=True,
        says="network policy",
        objects=_EGRESS,
        twin_objects=_EGRESS,
        is_slow=True,
    ),
    Scenario(
        "listens-on-loopback",
        """#!python
for _ in every(0.5):
    connect("{server}", 5432)
""",
        """#!python
for _ in every(0.5):
    connect("{server}", 5432)
""",
        """#!python
print("ready to accept connections", flush=True)
serve(answers(200), 5432, "127.0.0.1")
""",
        "#!python\nserve(answers(200), 5432)",
        about="server",
        says="port 5432",
        is_slow=True,
    ),
    Scenario(
        "wrong-target-port",
        """#!python
for _ in every(0.5):
    connect("{service}", 80)
""",
        """#!python
for _ in every(0.5):
    connect("{service}", 8080)
""",
        "#!python\nserve(answers(200), 8080)",
        about="server",
        says="8080",
        objects=_service(80, 9090, True),
        twin_objects=_service(8080, 8080, True),
        is_slow=True,
    ),
    Scenario(
        "connects-to-own-pod",
        '#!python\nfor _ in every(0.5): connect("127.0.0.1", 6379)',
        '#!python\nfor _ in every(0.5): connect("{server}", 6379)',
        SLEEP,
        "#!python\nserve(answers(200), 6379)",
        says="127.0.0.1:6379",
    ),
    Scenario(
        "service-has-no-port",
        """#!python
for _ in every(0.5):
    connect("{service}", 8080)
""",
        """#!python
for _ in every(0.5):
    connect("{service}", 80)
""",
        SLEEP,
        "#!python\nserve(answers(200), 80)",
        says="port 8080 of service ill-service-has-no-port",
        objects=_service(80, 8080, True),
        twin_objects=_service(80, 80, True),
    ),
    Scenario(
        "service-without-endpoints",
        """#!python
for _ in every(0.5):
    connect("{service}", 80)
""",
        """#!python
for _ in every(0.5):
    connect("{service}", 80)
""",
        SLEEP,
        "#!python\nserve(answers(200), 80)",
        says="service ill-service-without-endpoints",
        objects=_service(80, 80, None),
        twin_objects=_service(80, 80, True),
    ),
    Scenario(
        "service-pods-not-ready",
        """#!python
for _ in every(0.5):
    connect("{service}", 80)
""",
        """#!python
for _ in every(0.5):
    connect("{service}", 80)
""",
        SLEEP,
        "#!python\nserve(answers(200), 80)",
        about="server",
        objects=_service(80, 80, False),
        twin_objects=_service(80, 80, True),
    ),
    Scenario(
        "network-policy-drops",
        """#!python
for _ in every(0.5):
    connect("{server}", 80)
""",
        """#!python
for _ in every(0.5):
    connect("{server}", 80)
""",
        _DEAF,
        "#!python\nserve(answers(200), 80)",
        privileged=True,
        says="ill-network-policy-drops",
        objects={
            "networkpolicies": [
                {"metadata": {"name": "{title}"}, "spec": {"podSelector": {"matchLabels": {"app": "{title}"}}}}
            ]
        },
        is_slow=True,
    ),
    Scenario(
        "no-answer",
        """#!python
for _ in every(0.5):
    connect("{server}", 80)
""",
        """#!python
for _ in every(0.5):
    connect("{server}", 80)
""",
        _DEAF,
        "#!python\nserve(answers(200), 80)",
        privileged=True,
    ),
    Scenario(
        "connections-leak",
        """#!python
server, kept = socket.create_server(("127.0.0.1", 0)), []
for _ in every(0.3):
    client = connect(*server.getsockname()); kept.append(server.accept()[0]); client.close()
""",
        """#!python
server, kept = socket.create_server(("127.0.0.1", 0)), []
for _ in range(30):
    client = connect(*server.getsockname()); kept.append(server.accept()[0])
    kept.append(client)
time.sleep(1000)
""",
        says="wait in CLOSE_WAIT",
        is_slow=True,
    ),
    Scenario(
        "port-in-use",
        """#!python
if os.fork() == 0:
    first = socket.create_server(("", 8080))
    time.sleep(1000)
for _ in every(1.0):
    with contextlib.suppress(OSError):
        socket.create_server(("", 8080))
""",
        """#!python
for _ in every(1.0):  # restarted beside connections in TIME_WAIT
    with socket.create_server(("", 8080)) as server, connect("127.0.0.1", 8080) as client:
        server.accept()[0].close()
        client.recv(1)
""",
        says="port 8080",
    ),
    Scenario(
        "port-not-allowed",
        """#!python
for _ in every(1.0):
    with contextlib.suppress(OSError):
        socket.create_server(("", 80))
""",
        """#!python
for _ in every(1.0):
    socket.create_server(("", 8080)).close()
""",
        uid=1000,
        says="port 80",
    ),
    Scenario(
        "ports-used-up",
        """#!python
kept = []
for _ in every(0.5):
    kept.append(one := socket.socket())
    one.setsockopt(socket.SOL_IP, 51, struct.pack("I", 40001 << 16 | 40000))  # IP_LOCAL_PORT_RANGE
    with contextlib.suppress(OSError):
        one.connect(("{server}", 80))
""",
        """#!python
kept = []
for _ in every(0.5):
    kept.append(connect("{server}", 80))
""",
        "#!python\nserve(answers(200), 80)",
    ),
    Scenario(
        "peer-vanished",
        """#!python
connection = reach("{server}", 80)
ask(connection)
time.sleep(1)
connection.send(b"GET / HTTP/1.1\\r\\n\\r\\n")
time.sleep(1000)
""",
        """#!python
connection = reach("{server}", 80)
for _ in every(1.0):
    ask(connection)  # answered late
""",
        """#!python
def handler(connection):
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    time.sleep(0.3)
    subprocess.run(["ip", "link", "set", "eth0", "down"])
    time.sleep(1000)
serve(handler, 80)
""",
        """#!python
def handler(connection):
    while connection.recv(65536):
        time.sleep(4)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
serve(handler, 80)
""",
        privileged=True,
    ),
    Scenario(
        "packets-too-large",
        """#!python
connection = reach("{server}", 80)
connection.sendall(b"small"); time.sleep(1)
connection.sendall(b"x" * 1400)
time.sleep(1000)
""",
        """#!python
connection = reach("{server}", 80)
for _ in every(0.5):
    connection.sendall(b"x" * 1400)
""",
        """#!python
def handler(connection):
    connection.recv(10)
    subprocess.run(["ip", "link", "set", "eth0", "mtu", "700"])
    connection.recv(5000)
serve(handler, 80)
""",
        """#!python
def handler(connection):
    while connection.recv(65536): pass
serve(handler, 80)
""",
        privileged=True,
    ),
    Scenario(
        "datagrams-to-no-pod",
        """#!python
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in every(0.3):
    with contextlib.suppress(OSError):
        one.sendto(b"metric:1|c", ("{nobody}", 8125))
""",
        """#!python
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in every(0.3):
    one.sendto(b"metric:1|c", ("{server}", 8125))
""",
        """#!python
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("", 8125))
while True: one.recv(100)
""",
    ),
    Scenario(
        "first-address-dead",
        _EACH_ADDRESS.replace("NAME", "{nobody}.{server}.first.example."),
        _EACH_ADDRESS.replace("NAME", "{server}.{server}.first.example."),
        "#!python\nserve(answers(200), 80)",
    ),
    Scenario(
        "login-refused",
        """#!python
for _ in every(0.5):
    with reach("{server}", 5432) as connection:
        connection.sendall(b"user postgres password 1234"); connection.recv(1000)
""",
        """#!python
for _ in every(0.5):
    with reach("{server}", 5432) as connection:
        connection.sendall(b"user postgres password 1234"); connection.recv(1000)
""",
        "#!python\nserve(lambda one: (one.recv(100), one.sendall(b'E' * 90)), 5432)",
        "#!python\nserve(lambda one: (one.recv(100), one.sendall(b'R' * 900), one.recv(1)), 5432)",
    ),
    Scenario(
        "traffic-after-sigterm",
        """#!python
for _ in every(0.2): connect("{server}", 80)
""",
        """#!python
for _ in every(0.2): connect("{server}", 80)
""",
        """#!python
server = socket.create_server(("", 80))
signal.signal(signal.SIGTERM, lambda *_: server.close())
subprocess.Popen(["sh", "-c", "sleep 5; kill -TERM 1"])
with contextlib.suppress(OSError):
    while True: server.accept()[0].close()
time.sleep(1000)
""",
        """#!python
server = socket.create_server(("", 80))
signal.signal(signal.SIGTERM, lambda *_: None)
subprocess.Popen(["sh", "-c", "sleep 5; kill -TERM 1"])
while True: server.accept()[0].close()
""",
        about="server",
    ),
    # HTTP.
    Scenario(
        "requests-refused",
        _HTTP_CLIENT,
        _HTTP_CLIENT,
        "#!python\nserve(answers(404), 80)",
        """#!python
statuses = [200, 404] * 1000
serve(lambda connection: answers(statuses.pop())(connection), 80)
""",
        says="404",
    ),
    Scenario(
        "upstream-slow",
        _HTTP_CLIENT,
        _HTTP_CLIENT,
        """#!python
def handler(connection):
    connection.recv(1000); time.sleep(1.3)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
serve(handler, 80)
""",
        "#!python\nserve(answers(200), 80)",
    ),
    Scenario(
        "workers-wait-for-peer",
        _WAITERS,
        _WAITERS,
        "#!python\nserve(lambda one: time.sleep(1000), 80)",
        "#!python\nserve(lambda one: [one.sendall(b'ok') for _ in every(0.2)], 80)",
        early=True,
        is_slow=True,
    ),
    Scenario(
        "server-errors",
        _HTTP_CLIENT,
        _HTTP_CLIENT,
        "#!python\nserve(answers(503), 80)",
        "#!python\nserve(answers(200), 80)",
        below=("serves-errors",),
        says="503",
    ),
    Scenario(
        "serves-errors",
        _HTTP_CLIENT,
        _HTTP_CLIENT,
        "#!python\nserve(answers(503), 80)",
        "#!python\nserve(answers(200), 80)",
        about="server",
        says="503",
    ),
    Scenario(
        "not-authorized",
        _HTTP_CLIENT,
        _HTTP_CLIENT,
        "#!python\nserve(answers(401), 80)",
        "#!python\nserve(answers(200), 80)",
        says="401",
    ),
    Scenario(
        "idle-connection-reset",
        """#!python
for _ in every(0.5):
    connection = reach("{server}", 80)
    ask(connection); time.sleep(2)
    with contextlib.suppress(OSError):
        ask(connection)
""",
        """#!python
for _ in every(0.5):
    connection = reach("{server}", 80)
    ask(connection); time.sleep(2); ask(connection)
""",
        """#!python
def handler(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    connection.recv(1)  # its timer is over just when the next request comes: what was not read makes it a reset
serve(handler, 80)
""",
        "#!python\nserve(answers(200), 80)",
    ),
    # TLS.
    Scenario(
        "certificate-expired",
        '#!python\nfor _ in every(0.7): tls_client("{server}")',
        '#!python\nfor _ in every(0.7): tls_client("{server}")',
        '#!python\ntls_server("expired")',
        '#!python\ntls_server("good")',
        says="shop.test",
    ),
    Scenario(
        "certificate-authority-unknown",
        '#!python\nfor _ in every(0.7): tls_client("{server}")',
        '#!python\nfor _ in every(0.7): tls_client("{server}")',
        '#!python\ntls_server("unknown")',
        '#!python\ntls_server("good")',
        says="shop.test",
    ),
    Scenario(
        "certificate-refused",
        '#!python\nfor _ in every(0.7): tls_client("{server}", "cart.test")',
        '#!python\nfor _ in every(0.7): tls_client("{server}")',
        '#!python\ntls_server("good")',
        says="cart.test",
    ),
    Scenario(
        "tls-version-refused",
        '#!python\nfor _ in every(0.7): tls_client("{server}", maximum_version=ssl.TLSVersion.TLSv1_2)',
        '#!python\nfor _ in every(0.7): tls_client("{server}", maximum_version=ssl.TLSVersion.TLSv1_2)',
        '#!python\ntls_server("good", minimum_version=ssl.TLSVersion.TLSv1_3)',
        '#!python\ntls_server("good")',
    ),
    Scenario(
        "tls-fails",
        """#!python
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
with contextlib.suppress(ssl.SSLError):
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname="shop.test").do_handshake()
hello = outgoing.read()
for _ in every(0.7):
    connection = reach("{server}", 443); connection.sendall(hello); connection.recv(5000); connection.close()
""",
        '#!python\nfor _ in every(0.7): tls_client("{server}")',
        '#!python\ntls_server("good")',
    ),
    Scenario(
        "ca-bundle-missing",
        """#!python
for _ in every(0.7):
    with contextlib.suppress(OSError), reach("{server}", 443) as plain:
        ssl.create_default_context().wrap_socket(plain, server_hostname="shop.test")
""",
        '#!python\nfor _ in every(0.7): tls_client("{server}")',
        '#!python\ntls_server("good")',
        says="shop.test",
    ),
    # DNS.
    Scenario(
        "dns-slow",
        """#!python
for _ in every(0.3):
    with contextlib.suppress(OSError):
        socket.getaddrinfo("slow.example.", 80, socket.AF_INET)
""",
        """#!python
for _ in every(0.3):
    socket.getaddrinfo("www.example.org.", 80)
""",
    ),
    Scenario(
        "name-does-not-exist",
        """#!python
for _ in every(1.0):
    with contextlib.suppress(OSError):
        socket.getaddrinfo("no-such-service", 80)
""",
        """#!python
for _ in every(1.0):
    socket.getaddrinfo("api.shop", 80)  # found with the second search domain
""",
        says="no-such-service",
    ),
    Scenario(
        "dns-not-answered",
        """#!python
for _ in every(0.5):
    with contextlib.suppress(OSError):
        socket.getaddrinfo("silent.example.", 80)
""",
        """#!python
for _ in every(0.5):
    socket.getaddrinfo("lossy.example.", 80, socket.AF_INET)  # one packet was lost
""",
    ),
    Scenario(
        "egress-policy-blocks-dns",
        """#!python
for _ in every(0.5):
    with contextlib.suppress(OSError):
        socket.getaddrinfo("silent.example.", 80)
""",
        """#!python
for _ in every(0.5):
    socket.getaddrinfo("lossy.example.", 80, socket.AF_INET)  # one packet was lost
""",
        says="network policy",
        objects=_EGRESS,
        twin_objects=_EGRESS,
    ),
    Scenario(
        "dns-search-storm",
        """#!python
for _ in every(0.2):
    socket.getaddrinfo("www.example.org", 80)
""",
        """#!python
for _ in every(0.2):
    socket.getaddrinfo("www.example.org.", 80)
""",
    ),
    Scenario(
        "dns-server-fails",
        """#!python
for _ in every(0.5):
    with contextlib.suppress(OSError):
        socket.getaddrinfo("servfail.example.", 80)
""",
        """#!python
for _ in every(0.5):
    socket.getaddrinfo("www.example.org.", 80)
""",
        says="servfail.example",
    ),
    # Programs that do not start.
    Scenario(
        "script-with-carriage-return",
        '#!python\nwrite("/tmp/start", b"#!/bin/sh\\r\\ntrue\\r\\n")\nfor _ in every(1.0): run("/tmp/start")',
        '#!python\nwrite("/tmp/start", b"#!/bin/sh\\ntrue\\n")\nfor _ in every(1.0): run("/tmp/start")',
        says="/tmp/start",
        needs="fexit",
    ),
    Scenario(
        "interpreter-not-found",
        '#!python\nwrite("/tmp/start", b"#!/bin/bash4\\ntrue\\n")\nfor _ in every(1.0): run("/tmp/start")',
        '#!python\nwrite("/tmp/start", b"#!/usr/bin/env sh\\ntrue\\n")\nfor _ in every(1.0): run("/tmp/start")',
        says="/bin/bash4",
        needs="fexit",
    ),
    Scenario(
        "loader-not-found",
        """#!python
data = open("/usr/bin/true", "rb").read()
start = data.index(b"/lib64/ld-linux"); end = data.index(b"\\0", start)
write("/tmp/start", data[:start] + b"/lib/ld-uClibc.so.0"[: end - start].ljust(end - start, b"\\0") + data[end:])
for _ in every(1.0): run("/tmp/start")
""",
        '#!python\nwrite("/tmp/start", open("/usr/bin/true", "rb").read())\nfor _ in every(1.0): run("/tmp/start")',
        says="/lib/ld-uClibc.so.0",
        needs="fexit",
    ),
    Scenario(
        "wrong-architecture",
        _OF_OTHER_MACHINE,
        _COPIED,
        says="/tmp/start",
        needs="fexit",
    ),
    Scenario(
        "program-of-wrong-format",
        _OF_OTHER_MACHINE,
        _COPIED,
        says="/tmp/start",
        needs="no fexit",
    ),
    Scenario(
        "program-not-executable",
        '#!python\nwrite("/tmp/start", b"#!/bin/sh\\ntrue\\n", 0o644)\nfor _ in every(1.0): run("/tmp/start")',
        '#!python\nwrite("/tmp/start", b"true\\n", 0o644)\nfor _ in every(1.0): run("/bin/sh", "/tmp/start")',
        says="/tmp/start",
    ),
    # Limits, packet filters and capabilities.
    Scenario(
        "killed-for-memory",
        "#!python\nfor _ in every(0.5): run('python3', '-c', 'bytearray(400 << 20)')",
        "#!python\nfor _ in every(0.5): run('python3', '-c', 'bytearray(1 << 20)')",
        limits={"memory.max": str(100 << 20), "memory.swap.max": "0"},
        needs="limits of cgroup v2",
        also=("cpu-starved",),  # on an emulated processor
        says="of a limit of 100 MiB",
    ),
    Scenario(
        "cpu-throttled",
        "(while :; do :; done) & while :; do :; done",
        limits={"cpu.max": "10000 100000"},
        needs="limits of cgroup v2",
    ),
    Scenario(
        "firewall-drops",
        """#!python
for _ in every(0.5): connect("{server}", 5432, 4)
""",
        """#!python
for _ in every(0.5):
    with reach("{server}", 5432): pass
""",
        server="#!python\nserve(lambda connection: None, 5432)",
        filter="tcp dport 5432 drop",
        says="at port 5432",
    ),
    Scenario(
        "capability-missing",
        "#!python\nsocket.sethostname('other')",
        """#!python
with contextlib.suppress(OSError): socket.sethostname("other")
time.sleep(1000)
""",
        needs="fexit",
        says="CAP_SYS_ADMIN for sethostname",
    ),
    Scenario("program-not-found", _NO_PROGRAM, _PATH_SEARCH, needs="fexit", says="/usr/local/bin/no-such-program"),
    Scenario(
        "program-cannot-be-run", _NO_PROGRAM, _PATH_SEARCH, needs="no fexit", says="/usr/local/bin/no-such-program"
    ),
    # Processes.
    Scenario(
        "crashed",
        "while :; do python3 -c 'import os; os.kill(os.getpid(), 11)'; sleep 1; done",
        "while :; do timeout 0.2 sleep 5; timeout -s KILL 0.2 sleep 5; sleep 1; done",
        says="SIGSEGV",
    ),
    Scenario("exits-with-error", "sleep 1; exit 3", "sleep 1; exit 0", says="exit code 3"),
    Scenario(
        "zombies",
        """#!python
for _ in every(0.3):
    os.fork() or os._exit(0)
""",
        """#!python
for _ in every(0.5):
    for _ in range(5): os.fork() or os._exit(0)
    while True:
        try: os.wait()
        except OSError: break
""",
        says="ended processes",
        is_slow=True,
    ),
    Scenario(
        "process-stopped",
        "sleep 1000 & kill -STOP $!; wait",
        "sleep 1000 & kill -STOP $!; kill -CONT $!; wait",
        says="is stopped",
        early=True,
        is_slow=True,
    ),
    Scenario(
        "sigterm-ignored",
        "while :; do sh -c 'kill -TERM 1'; sleep 2; done",
        "trap : TERM; while :; do sh -c 'kill -TERM 1'; sleep 2; done",
    ),
    Scenario(
        "seccomp-refuses", _SECCOMP + "libc.unshare(0x10000000)\nsys.exit(1)\n", _SECCOMP + _UNSHARES, says="unshare"
    ),
    Scenario(
        "system-call-refused",
        _SECCOMP + _UNSHARES,
        "#!python\nlibc = ctypes.CDLL(None)\nfor _ in every(1.0): libc.unshare(0)",
        says="unshare",
    ),
    Scenario(
        "killed-after-grace",
        "trap '' TERM; exec sleep 1000",
        "trap 'exit 0' TERM; while :; do sleep 0.2; done",
        below=("sigterm-ignored",),
        ends=True,
        says="sleep",
    ),
    Scenario(
        "terminating-slowly",
        SLEEP,
        "trap 'exit 0' TERM; while :; do sleep 0.2; done",
        pod={"metadata": {"deletionTimestamp": "{now}", "deletionGracePeriodSeconds": 30}},
        twin_pod={"metadata": {"deletionTimestamp": "{now}", "deletionGracePeriodSeconds": 30}},
        says="sleep",
        early=True,
    ),
    Scenario(
        "fork-fails",
        """#!python
resource.setrlimit(resource.RLIMIT_NPROC, (5, 5))
for _ in every(0.5):
    with contextlib.suppress(OSError):
        os.fork() or time.sleep(1000)
""",
        "#!python\nfor _ in every(0.5):\n    os.fork() or os._exit(0)\n    os.wait()\n",
        uid=42430,
        twin_uid=42431,
    ),
    Scenario(
        "address-space-limit",
        """#!python
resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
for _ in every(0.5):
    with contextlib.suppress(MemoryError):
        bytearray(1 << 30)
""",
        "#!python\nfor _ in every(0.5): bytearray(10 << 20)",
    ),
    Scenario(
        "library-missing",
        _PATCHED.replace("OLD", "libc.so.6").replace("NEW", "libq.so.6"),
        _PATCHED.replace("OLD", "libc.so.6").replace("NEW", "libc.so.6"),
        says="libq.so.6",
    ),
    Scenario(
        "library-not-loaded",
        "while :; do python3 -c 'import ctypes; ctypes.CDLL(\"libabsent.so.5\")'; sleep 1; done",
        """while :; do
  python3 -c 'import contextlib, ctypes
with contextlib.suppress(OSError): ctypes.CDLL("libabsent.so.5")'
  sleep 1
done""",
        says="libabsent.so.5",
    ),
    Scenario(
        "spins-in-poll",
        """#!python
import select
poll, end = select.poll().poll, time.monotonic() + 60
while time.monotonic() < end:
    for _ in range(1000): poll(0)
time.sleep(1000)
""",
        "#!python\nimport select\nfor _ in every(0): select.select([], [], [], 0.01)",
    ),
    Scenario(
        "spins-on-errors",
        """#!python
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setblocking(False)
end = time.monotonic() + 60
while time.monotonic() < end:
    with contextlib.suppress(BlockingIOError):
        one.recv(1)
time.sleep(1000)
""",
        """#!python
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setblocking(False)
for _ in every(0.01):
    with contextlib.suppress(BlockingIOError):
        one.recv(1)
""",
    ),
    Scenario(
        "memory-grows",
        "#!python\nkept = []\nfor _ in every(0.5): kept.append(b'x' * (3 << 20))",
        "#!python\nkept = b'x' * (40 << 20)\nfor _ in every(0.5): b'x' * (3 << 20)",
        early=True,
        is_slow=True,
    ),
    Scenario(
        "memory-near-limit",
        """#!python
kept = [b"x" * (15 << 20)]
for _ in range(20):
    kept.append(b"x" * (1 << 20))
    time.sleep(0.6)
time.sleep(1000)
""",
        "#!python\nkept = b'x' * (10 << 20)\ntime.sleep(1000)",
        pod={"container": {"resources": {"limits": {"memory": "44Mi"}}}},
        twin_pod={"container": {"resources": {"limits": {"memory": "44Mi"}}}},
        below=("memory-grows",),
        is_slow=True,
    ),
    # Files.
    Scenario(
        "too-many-files",
        """#!python
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
for _ in every(1.0):
    kept = []
    with contextlib.suppress(OSError):
        while True: kept.append(open("/etc/passwd"))
    kept.clear()
""",
        """#!python
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
for _ in every(1.0):
    kept = [open("/etc/passwd") for _ in range(20)]
    kept.clear()
""",
    ),
    Scenario(
        "descriptors-used-up",
        """#!python
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
kept = [open("/etc/passwd") for _ in range(35)]
time.sleep(1000)
""",
        """#!python
kept = [open("/etc/passwd") for _ in range(200)]
time.sleep(1000)
""",
        is_slow=True,
    ),
    Scenario(
        "permission-denied",
        "while :; do cat /etc/shadow; sleep 1; done",
        "while :; do cat /etc/passwd; sleep 1; done",
        uid=1000,
        says="/etc/shadow",
    ),
    Scenario(
        "read-only-file-system",
        "while :; do echo a >/usr/cache; sleep 1; done",
        "while :; do echo a >/tmp/cache; cat /usr/bin/env >/tmp/b; sleep 1; done",
        says="/usr/cache",
    ),
    Scenario(
        "file-system-full",
        "mkdir /tmp/d; mount -t tmpfs -o nr_inodes=2 none /tmp/d; touch /tmp/d/a\n"
        "while :; do touch /tmp/d/b; sleep 1; done",
        "while :; do touch /tmp/b; sleep 1; done",
        privileged=True,
        says="/tmp/d/b",
    ),
    Scenario(
        "read-only-file-system",
        "while :; do mkdir /usr/cache; sleep 1; done",
        "while :; do mkdir /tmp/cache; rm /tmp/nothing; rmdir /tmp; sleep 1; done",
        name="makes-a-directory-where-it-is-read-only",
        says="/usr/cache",
    ),
    Scenario(
        "cannot-change-files",
        "while :; do mkdir /srv/cache; sleep 1; done",
        "while :; do mkdir /tmp/cache; rmdir /tmp/cache; sleep 1; done",
        uid=1000,
        says="/srv/cache",
    ),
    Scenario(
        "file-system-full",
        "while :; do dd if=/dev/zero of=/tmp/full bs=1M count=20; sleep 2; done",
        "while :; do dd if=/dev/zero of=/tmp/full bs=1M count=10; sleep 2; done",
        name="writes-to-a-full-volume",
        says="/tmp/",
    ),
    Scenario(
        "too-many-descriptors",
        """#!python
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
for _ in every(1.0):
    kept = []
    with contextlib.suppress(OSError):
        while True: kept.append(socket.socket())
    kept.clear()
""",
        "#!python\nfor _ in every(1.0):\n    kept = [socket.socket() for _ in range(20)]\n    kept.clear()",
    ),
    Scenario(
        "defaults-used",
        _CONFIG_THEN_CONNECT.replace("ADDRESS", "127.0.0.1"),
        _CONFIG_THEN_CONNECT.replace("ADDRESS", "{server}"),
        SLEEP,
        "#!python\nserve(answers(200), 6379)",
        says="/etc/app/client.conf",
    ),
    Scenario(
        "time-zone-missing",
        _OPENS.replace("PATH", "/usr/share/zoneinfo/Europe/Atlantis"),
        _OPENS.replace("PATH", "/usr/share/zoneinfo/posixrules"),
        says="Europe/Atlantis",
    ),
    Scenario(
        "config-file-missing",
        "cat /etc/app/settings.yaml || exit 1",
        "cat /etc/app/settings.yaml || cat /etc/defaults.yaml; exec sleep 1000",
        says="/etc/app/settings.yaml",
    ),
    Scenario(
        "config-file-missing",
        """#!python
open("/app/config/settings.toml")
""",
        """#!python
with contextlib.suppress(OSError): open("/app/config/settings.toml")
time.sleep(1000)
""",
        name="python-without-its-configuration",
        says="/app/config/settings.toml",
    ),
    Scenario(
        "config-file-missing",
        """#!python
try: open("database.yaml")
except OSError: sys.exit("OSError: [Errno 111] Connection refused")  # it hides what it has not found
""",
        """#!python
with contextlib.suppress(OSError): open("database.yaml")
time.sleep(1000)
""",
        name="python-that-hides-its-missing-configuration",
        says="database.yaml",
    ),
    Scenario(
        "directory-missing",
        "echo started > /var/log/shop/server.log; exit 1",
        "cd /var/log; echo started > shop/server.log || mkdir shop; echo started > shop/server.log; exec sleep 1000",
        says="/var/log/shop/server.log",
    ),
    Scenario(
        "inotify-limit",
        """#!python
libc = ctypes.CDLL(None)
for _ in range(5000):
    if libc.inotify_init1(0) < 0: break
for _ in every(1.0): libc.inotify_init1(0)
""",
        "#!python\nlibc = ctypes.CDLL(None)\nfor _ in range(5): libc.inotify_init1(0)\ntime.sleep(1000)",
        uid=42420,
        twin_uid=42421,
    ),
    Scenario(
        "liveness-probe-wrong-port",
        "#!python\nserve(answers(200), 8080)",
        "#!python\nserve(answers(200), 8080)",
        pod=_probe(8081, "livenessProbe"),
        twin_pod=_probe(8080, "livenessProbe"),
        objects=_events("Unhealthy", "Liveness probe failed: dial tcp {self}:8081: connect: connection refused"),
        says="8081",
        is_slow=True,
    ),
    Scenario(
        "probe-wrong-port",
        "#!python\nserve(answers(200), 8080)",
        "#!python\nserve(answers(200), 8080)",
        pod=_probe(8081) | {"ready": False},
        twin_pod=_probe(8080),
        objects=_events("Unhealthy", "Readiness probe failed: dial tcp {self}:8081: connect: connection refused"),
        says="8081",
        is_slow=True,
    ),
    Scenario(
        "pre-stop-hangs",
        "trap 'exit 0' TERM; while :; do sleep 1; done",
        "trap 'exit 0' TERM; while :; do sleep 1; done",
        pod={
            "metadata": {"deletionTimestamp": "{now}", "deletionGracePeriodSeconds": 30},
            "container": {"lifecycle": {"preStop": {"exec": {"command": ["sleep", "300"]}}}},
        },
        twin_pod={"container": {"lifecycle": {"preStop": {"exec": {"command": ["sleep", "300"]}}}}},
        early=True,
        says="preStop",
        is_slow=True,
    ),
    # Waits.
    Scenario(
        "lock-held",
        "exec flock -x {shared}/lock true",
        "while :; do flock -x {shared}/twin true; sleep 0.1; done",
        "exec flock -x {shared}/lock sleep 1000",
        "while :; do flock -x {shared}/twin sleep 0.5; done",
        early=True,
        is_slow=True,
    ),
    Scenario(
        "lock-contention",
        _SLOW_MUTEX.replace("HELD", "400000"),
        _SLOW_MUTEX.replace("HELD", "1"),
        early=True,
        is_slow=True,
    ),
    Scenario("mutex-deadlock", _LOCKS.replace("ILL", "1"), _LOCKS.replace("ILL", "0"), early=True, is_slow=True),
    Scenario(
        "blocked-on-storage",
        '#!python\nos.stat("/tmp/volume/a")',
        """#!python
# A parent waits for a child of vfork() uninterruptibly, until that executes another program.
libc = ctypes.CDLL(None)
libc.syscall(56, 0x4000 | 0x100 | 17, 0, 0, 0, 0) or time.sleep(1000)
""",
        has_volume=True,
        is_slow=True,
    ),
)
API: tuple[Scenario, ...] = (
    Scenario("image-not-pulled", pod=_waiting("ImagePullBackOff", "no such image"), says="busybox"),
    Scenario(
        "config-missing", pod=_waiting("CreateContainerConfigError", 'configmap "settings" not found'), says="settings"
    ),
    Scenario(
        "runs-as-root",
        pod=_waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
        says="may not run as root",
    ),
    Scenario("program-cannot-start", pod=_waiting("RunContainerError", "exec: no such file")),
    Scenario("container-not-created", pod=_waiting("CreateContainerError", "not a directory"), says="not a directory"),
    Scenario(
        "command-not-found",
        pod=_waiting(
            "CrashLoopBackOff", restartCount=7, lastState={"terminated": {"exitCode": 127, "reason": "Error"}}
        ),
        says="exit code 127",
    ),
    Scenario(
        "crash-loop",
        pod=_waiting("CrashLoopBackOff", restartCount=7, lastState={"terminated": {"exitCode": 1, "reason": "Error"}}),
        says="7 restarts",
    ),
    Scenario(
        "volume-not-mounted",
        pod=_waiting("ContainerCreating"),
        objects=_events("FailedMount", 'secret "tls" not found'),
        twin_objects=_events("FailedMount", "not registered yet"),  # at its start, and then it ran
        says='secret "tls"',
    ),
    Scenario(
        "not-scheduled",
        pod={
            "ready": False,
            "status": {
                "phase": "Pending",
                "containerStatuses": [],
                "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient cpu"}],
            },
        },
        says="Insufficient cpu",
    ),
    Scenario(
        "oom-killed", pod=_ended(exitCode=137, reason="OOMKilled"), twin_pod=_ended(exitCode=0, reason="Completed")
    ),
    Scenario(
        "evicted", pod={"ready": False, "status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}}
    ),
    Scenario(
        "liveness-probe-kills",
        pod=_ended(exitCode=137, reason="Error") | _probe(80, "livenessProbe"),
        objects={
            "events": [
                _events("Killing", "Container app failed liveness probe, will be restarted")["events"][0],
                _events("Unhealthy", "Liveness probe failed: timeout")["events"][0]
                | {"metadata": {"name": "{title}.2"}},
            ]
        },
        says="timeout",
    ),
    Scenario(
        "probe-wrong-path",
        pod={"ready": False},
        objects=_events("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404"),
        says="404",
    ),
    Scenario(
        "init-container-waits",
        pod={
            "ready": False,
            "spec": {"initContainers": [{"name": "wait", "image": "busybox"}]},
            "status": {
                "phase": "Pending",
                "initContainerStatuses": [
                    {"name": "wait", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "restartCount": 0}
                ],
            },
        },
        says="init container wait",
    ),
    Scenario(
        "probe-too-slow",
        pod={"ready": False},
        objects=_events("Unhealthy", "Readiness probe failed: context deadline exceeded (Client.Timeout exceeded)"),
        twin_objects=_events("Unhealthy", "Readiness probe failed: context deadline exceeded", count=1),  # at its start
        says="deadline exceeded",
    ),
    Scenario(
        "probe-command-missing",
        pod={"ready": False, "container": {"readinessProbe": {"exec": {"command": ["curl", "localhost"]}}}},
        objects=_events("Unhealthy", 'Readiness probe errored: exec: "curl": executable file not found in $PATH'),
        twin_objects=_events("Unhealthy", "Readiness probe failed: no connection", count=1),
        says="curl",
    ),
    Scenario(
        "job-failed",
        pod=_of_job(3),
        twin_pod=_of_job(0),
        objects={
            "events": [
                {
                    "metadata": {"name": "{title}.1"},
                    "involvedObject": {"kind": "Job", "namespace": "shop", "name": "{title}"},
                    "reason": "BackoffLimitExceeded",
                    "message": "Job has reached the specified backoff limit",
                    "type": "Warning",
                    "lastTimestamp": "{now}",
                }
            ]
        },
        below=("exits-with-error",),
        says="BackoffLimitExceeded",
    ),
    Scenario(
        "probe-fails",
        pod={"ready": False},
        objects=_events("Unhealthy", "Readiness probe failed: statuscode: 500"),
        twin_objects=_events("Unhealthy", "Readiness probe failed: connection refused", count=2),  # at its start
        says="500",
    ),
    Scenario(
        "pods-not-created", objects=_events("FailedCreate", "exceeded quota", "ReplicaSet"), says="exceeded quota"
    ),
    Scenario(
        "variable-missing",
        pod=_crashed(1),
        log="starting\nsh: DATABASE_URL: parameter not set or null\n",
        twin_log="sh: DATABASE_URL: parameter not set or null\n",  # nothing ended
        says="DATABASE_URL",
    ),
    Scenario(
        "module-missing",
        pod=_crashed(1),
        log="wrong password\nModuleNotFoundError: No module named 'flask'\n",
        twin_log="ModuleNotFoundError: No module named 'flask'\n",  # nothing ended
        says="the module flask",
    ),
    Scenario(
        "entry-of-wrong-format", pod=_crashed(255), log="exec /app/server: exec format error\n", says="/app/server"
    ),
    Scenario(
        "entry-without-interpreter",
        pod=_crashed(255),
        log="exec /app/run.sh: no such file or directory\n",
        says="/app/run.sh",
    ),
    Scenario(
        "entry-not-executable", pod=_crashed(255), log="exec /app/run.sh: permission denied\n", says="/app/run.sh"
    ),
    Scenario(
        "ends-without-library",
        pod=_crashed(127),
        log="app: error while loading shared libraries: libpq.so.5: cannot open shared object file: No such file\n",
        says="libpq.so.5",
    ),
    Scenario(
        "ends-with-system-error",
        pod=_crashed(1),
        log="license expired\nOSError: [Errno 98] Address already in use\n",
        twin_log="OSError: [Errno 98] Address already in use\n",
        says="Address already in use",
    ),
    Scenario("ends-without-error", pod=_crashed(0), twin_pod=_of_job(0), says="ends by itself"),
    Scenario("not-ready", pod={"ready": False}),  # a pod of the double is as old as its container: see staged.py
)
HEALTHY: Mapping[str, tuple[str, str]] = {
    "import-storm": (
        "while :; do python3 -c 'import asyncio, email, http.client, json, sqlite3, ssl, unittest'; sleep 0.5; done",
        "",
    ),
    "cron": (
        "while :; do test -e /nothing; grep -q nobody /etc/hosts; command -v no-such-program; cat /nothing; (exit 3)\n"
        "timeout 0.1 sleep 5; timeout -s KILL 0.1 sleep 5; ls /root /etc | wc -l; date >/tmp/stamp; sleep 0.3; done",
        "",
    ),
    "connection-churn": (
        '#!python\nfor _ in every(0.01): reach("{server}", 80).close()',
        "#!python\nserve(lambda one: one.recv(1), 80)",
    ),
    "batch": ("#!python\nimport hashlib\nos.nice(19)\nwhile True: hashlib.sha256(b'x' * 1000000)", ""),
    "non-blocking": (
        """#!python
import asyncio
async def echo(reader, writer):
    while data := await reader.read(100): writer.write(data)
async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(b"x")
        await reader.read(1)
        await asyncio.sleep(0.005)
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 8000)
    await asyncio.gather(*(ask(8000) for _ in range(5)))
asyncio.run(main())
""",
        "",
    ),
    "web": (
        """#!python
def work():
    while True:
        with contextlib.suppress(OSError), reach("{server}", 80) as connection:
            for _ in range(50):
                ask(connection)
                time.sleep(0.01)
for _ in range(4): threading.Thread(target=work).start()
""",
        """#!python
statuses = [200] * 50 + [404, 304]
def handler(connection):
    for status in statuses:
        if not connection.recv(65536): break
        connection.sendall(b"HTTP/1.1 %d X\\r\\nContent-Length: 2\\r\\n\\r\\nok" % status)
serve(handler, 80)
""",
    ),
    "names": ('#!python\nfor _ in every(0.2): socket.getaddrinfo("api.shop", 80)', ""),
    "log-rotation": (
        r"""cd /tmp
while :; do
  for i in 1 2 3 4 5; do echo line >>app.out; done
  mv app.out app.1; gzip -f app.1; rm -f app.2.gz; mv app.1.gz app.2.gz; sleep 0.3
done""",
        "",
    ),
    "build": (
        r"""cd /tmp; export PATH=/usr/bin:$PATH
printf 'int f(int a) { return a; }\n' >f.c
printf 'all: a.o b.o\n%%.o: f.c\n\tgcc -c -o $@ $<\n' >Makefile
while :; do nice make -j2 -B all; sleep 0.5; done""",
        "",
    ),
    "packages": (
        r"""export PATH=/usr/sbin:/usr/bin:$PATH
mkdir -p /tmp/p/DEBIAN /tmp/r/var/lib/dpkg/updates /tmp/r/var/lib/dpkg/info; : >/tmp/r/var/lib/dpkg/status
printf 'Package: p\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: b\n' >/tmp/p/DEBIAN/control
chmod -R 755 /tmp/p
while :; do
  dpkg-deb --build /tmp/p /tmp/p.deb; dpkg --root=/tmp/r --force-all -i /tmp/p.deb; dpkg --root=/tmp/r -l; sleep 0.5
done""",
        "",
    ),
    "database": (
        """#!python
file = os.open("/tmp/table", os.O_CREAT | os.O_RDWR)
for number in every(0.05):
    os.pwrite(file, b"x" * 8192, 0)
    os.fsync(file)
""",
        "",
    ),
}
"""Programs of healthy pods, and of the pods that they talk to: nothing worse than a note may be said of them."""
_GRPC = "it needs a server and a client of gRPC: tests/bpf/test_trace_grpc.py has its rows, and the rule its examples"
_DISK = "it needs a device that is slow or fails, or a server of NFS"
ELSEWHERE = {
    "memory-pressure": "it needs a file on a disk that is larger than a limit of memory, to be read again and again",
    "cpu-starved": "it needs a busy node; the load of a test's machine is not the same twice",
    "listen-overflow": "the kernel has this reason only for handshakes that end while the queue fills, and no"
    " test can time them; the scenario of accept-queue-full has a queue that stays full",
    "conntrack-full": "the limit of the table of connections is the whole machine's, with all tests that run on it",
    "grpc-errors": _GRPC,
    "requests-pinned": _GRPC,
    "disk-slow": _DISK,
    "disk-errors": _DISK,
    "stale-file-handle": _DISK,
}
"""Rules without a scenario here, and why."""
