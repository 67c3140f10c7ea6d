"""Ill pods for `diagnose` on a real cluster: what is started, whom the finding must be about, and which rule finds it.

Programs are Python, and run in any image that has python3. A `{NAME}` in a program or a spec is the IP address of the
pod NAME, which has to be among the servers.
"""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Ill:
    """One cause."""

    name: str
    rules: tuple[str, ...]
    """each of these names the cause; the first on a kernel with all features"""
    about: str
    """the workload that the finding is about, such as pod/db"""
    servers: tuple[Object, ...] = ()
    """are started first, and their addresses are known to the others"""
    clients: tuple[Object, ...] = ()
    others: tuple[Object, ...] = ()
    """objects that are no pods"""


def python(program: str, **fields: Any) -> Object:
    """Return a container that runs this program."""
    command = ["python3", "-u", "-c", textwrap.dedent(program).strip()]
    return {"name": "app", "command": command, **fields}


def pod(name: str, *containers: Object, **spec: Any) -> Object:
    metadata = {"name": name, "labels": {"app": name}}
    spec = {"terminationGracePeriodSeconds": 1, **spec, "containers": list(containers)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def deployment(name: str, replicas: int, container: Object, **spec: Any) -> Object:
    template = pod(name, container, **spec)
    template = {"metadata": {"labels": {"app": name}}, "spec": template["spec"]}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def service(name: str, app: str, port: int, target: int) -> Object:
    spec = {"selector": {"app": app}, "ports": [{"port": port, "targetPort": target}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def config(name: str, **files: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}


def connects(address: str, port: int, seconds: float = 1.0) -> str:
    """Return a program that connects again and again, and says something else. `address`: may be a $VARIABLE."""
    return f"""
        import os, socket, time
        while True:
            try: socket.create_connection((os.path.expandvars("{address}"), {port}), 3).close()
            except OSError: print("database is busy, trying again")
            time.sleep({seconds})
    """


def asks(address: str, port: int) -> str:
    """Return a program that sends HTTP requests and tells nobody about the answers."""
    return f"""
        import time, http.client
        while True:
            connection = http.client.HTTPConnection("{address}", {port}, timeout=3)
            try:
                connection.request("GET", "/orders")
                connection.getresponse().read()
            except OSError: pass
            time.sleep(0.5)
    """


def answers(status: int) -> str:
    return f"""
        from http.server import BaseHTTPRequestHandler
        from socketserver import ThreadingTCPServer  # http.server's asks for a name first
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response({status}); self.send_header("Content-Length", "0"); self.end_headers()
            def log_message(self, *_): pass
        ThreadingTCPServer(("", 8000), Answers).serve_forever()
    """


NAMES = """
    import socket, struct
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", 53))
    while True:
        query, client = server.recvfrom(1500)
        {answer}
"""
"""A DNS server."""
NOWHERE = 'server.sendto(query[:2] + struct.pack("!HHHHH", 0x8183, 1, 0, 0, 0) + query[12:], client)'
FAILURE = 'server.sendto(query[:2] + struct.pack("!HHHHH", 0x8182, 1, 0, 0, 0) + query[12:], client)'


def resolver(name: str) -> Object:
    """Return the parts of a pod's spec that let it ask this pod for names."""
    return {
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": [f"{{{name}}}"], "searches": ["shop.svc.cluster.local", "svc.cluster.local"]},
    }


RESOLVES = """
    import socket, time
    while True:
        try: socket.create_connection(("payments.billing", 443), 2)
        except OSError: print("payment service is slow")
        time.sleep(1)
"""
EXECUTES = """
    import os, subprocess, time
    {prepare}
    while True:
        try: subprocess.run(["/tmp/tool"], check=True)
        except OSError: print("tool: license not found")
        time.sleep(1)
"""


def executes(prepare: str) -> Object:
    return python(EXECUTES.format(prepare=prepare))


def writes_script(text: str) -> str:
    return f'open("/tmp/tool", "w").write({text!r}); os.chmod("/tmp/tool", 0o755)'


FOREIGN = (
    'data = bytearray(open("/bin/true", "rb").read()); data[18:20] = b"\\xb7\\x00";'
    ' open("/tmp/tool", "wb").write(data); os.chmod("/tmp/tool", 0o755)'
)
OTHER_LOADER = (
    'data = open("/bin/true", "rb").read();'
    ' data = data.replace(b"/lib64/ld-linux-x86-64.so.2", b"/lib/ld-musl-x86_64.so.1".ljust(27, b"\\0"));'
    ' open("/tmp/tool", "wb").write(data); os.chmod("/tmp/tool", 0o755)'
)

ILL = (
    Ill(
        "loopback",
        ("listens-on-loopback",),
        "deploy/db",
        (
            deployment(
                "db", 1, {"name": "db", "command": ["python3", "-m", "http.server", "--bind", "127.0.0.1", "5432"]}
            ),
        ),
        (deployment("web", 3, python(connects("{db}", 5432))),),
    ),
    Ill(
        "wrong port",
        ("wrong-target-port",),
        "pod/ledger",
        (pod("ledger", python(answers(200))),),
        (pod("clerk", python(connects("$LEDGER_SERVICE_HOST", 80))),),
        (service("ledger", "ledger", 80, 9090),),
    ),
    Ill(
        "no image",
        ("image-not-pulled",),
        "pod/noimage",
        clients=(pod("noimage", {"name": "app", "image": "registry.invalid/shop/app:2.0"}),),
    ),
    Ill(
        "no config map",
        ("config-missing",),
        "pod/noconfig",
        clients=(pod("noconfig", python("pass", envFrom=[{"configMapRef": {"name": "app-settings"}}])),),
    ),
    Ill(
        "no command",
        ("program-cannot-start",),
        "pod/nocommand",
        clients=(pod("nocommand", {"name": "app", "command": ["/usr/local/bin/serve"]}),),
    ),
    Ill(
        "no file",
        ("config-file-missing",),
        "pod/nofile",
        clients=(
            pod(
                "nofile",
                python(
                    """
                    import sys, time
                    time.sleep(1)
                    try: open("/etc/shop/app.conf")
                    except OSError: sys.exit("cannot reach license server")
                    """
                ),
            ),
        ),
    ),
    Ill(
        "no volume",
        ("volume-not-mounted", "config-missing"),
        "pod/novolume",
        clients=(
            pod(
                "novolume",
                python("pass", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
                volumes=[{"name": "v", "secret": {"secretName": "nosuch"}}],
            ),
        ),
    ),
    Ill(
        "no node",
        ("not-scheduled",),
        "pod/nonode",
        clients=(pod("nonode", python("pass"), nodeSelector={"disk": "ssd"}),),
    ),
    Ill(
        "no account",
        ("pods-not-created",),
        "deploy/noaccount",
        others=(deployment("noaccount", 1, python("pass"), serviceAccountName="nosuch"),),
    ),
    Ill(
        "probe port",
        ("probe-wrong-port",),
        "pod/probed",
        clients=(
            pod("probed", python(answers(200), readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 2})),
        ),
    ),
    Ill(
        "slow health",
        ("liveness-probe-kills",),
        "pod/tight",
        clients=(
            pod(
                "tight",
                python(
                    """
                    import signal, sys, time
                    from http.server import BaseHTTPRequestHandler
                    from socketserver import ThreadingTCPServer
                    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                    class Slow(BaseHTTPRequestHandler):
                        def do_GET(self):
                            time.sleep(3); self.send_response(200); self.end_headers()
                    ThreadingTCPServer(("", 8000), Slow).serve_forever()
                    """,
                    livenessProbe={"httpGet": {"port": 8000}, "periodSeconds": 2, "failureThreshold": 2},
                ),
            ),
        ),
    ),
    Ill(
        "secret of root",
        ("permission-denied",),
        "pod/reader",
        clients=(
            pod(
                "reader",
                python(
                    """
                    import time
                    while True:
                        try: open("/keys/password").read()
                        except OSError: print("wrong password")
                        time.sleep(1)
                    """,
                    volumeMounts=[{"name": "keys", "mountPath": "/keys"}],
                    securityContext={"runAsUser": 1000},
                ),
                volumes=[{"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}}],
            ),
        ),
        others=({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"password": "x"}},),
    ),
    Ill(
        "read-only root",
        ("read-only-file-system",),
        "pod/writer",
        clients=(
            pod(
                "writer",
                python(
                    """
                    import time
                    while True:
                        try: open("/var/cache/out.txt", "w")
                        except OSError: print("cache is cold")
                        time.sleep(1)
                    """,
                    securityContext={"readOnlyRootFilesystem": True},
                ),
            ),
        ),
    ),
    Ill(
        "full volume",
        ("file-system-full",),
        "pod/full",
        clients=(
            pod(
                "full",
                python(
                    """
                    import time
                    while True:
                        try: open("/data/log", "ab").write(b"x" * 3_000_000)
                        except OSError: print("queue is stuck")
                        time.sleep(1)
                    """,
                    volumeMounts=[{"name": "data", "mountPath": "/data"}],
                ),
                volumes=[{"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}}],
            ),
        ),
    ),
    Ill(
        "no endpoints",
        ("service-without-endpoints",),
        "pod/lonely",
        clients=(
            pod(
                "lonely",
                python(
                    """
                    import os, socket, time
                    while True:
                        try: socket.create_connection((os.environ["STOCK_SERVICE_HOST"], 80), 2)
                        except OSError: print("stock is empty")
                        time.sleep(1)
                    """
                ),
            ),
        ),
        others=(service("stock", "stok", 80, 80),),
    ),
    Ill(
        "no name",
        ("name-does-not-exist",),
        "pod/caller",
        (pod("names", python(NAMES.format(answer=NOWHERE))),),
        (pod("caller", python(RESOLVES), **resolver("names")),),
    ),
    Ill(
        "silent dns",
        ("dns-not-answered",),
        "pod/waiter",
        (pod("deaf", python(NAMES.format(answer="pass"))),),
        (pod("waiter", python(RESOLVES), **resolver("deaf")),),
    ),
    Ill(
        "failing dns",
        ("dns-server-fails",),
        "pod/asker",
        (pod("broken", python(NAMES.format(answer=FAILURE))),),
        (pod("asker", python(RESOLVES), **resolver("broken")),),
    ),
    Ill(
        "old address",
        ("address-of-no-pod",),
        "pod/cacher",
        clients=(pod("cacher", python(connects("{NOBODY}", 80))),),
    ),
    Ill(
        "leak",
        ("descriptors-used-up", "too-many-files"),
        "pod/leaky",
        clients=(
            pod(
                "leaky",
                python(
                    """
                    import os, resource, time
                    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
                    kept = []
                    while True:
                        try: kept.append(open("/etc/passwd"))
                        except OSError: print("user database is locked")
                        time.sleep(0.1)
                    """
                ),
            ),
        ),
    ),
    Ill(
        "close wait",
        ("connections-leak",),
        "pod/keeper",
        (
            pod(
                "keeper",
                python(
                    """
                    import socket
                    server, kept = socket.create_server(("", 8000)), []
                    while True: kept.append(server.accept())
                    """
                ),
            ),
        ),
        (pod("hasty", python(connects("{keeper}", 8000, 0.2))),),
    ),
    Ill(
        "backlog",
        ("accept-queue-full",),
        "pod/busy",
        (
            pod(
                "busy",
                python(
                    """
                    import socket, time
                    server = socket.create_server(("", 8000), backlog=2)
                    while True:
                        time.sleep(5); server.accept()[0].close()
                    """
                ),
            ),
        ),
        (
            pod(
                "eager",
                python(
                    """
                    import socket, time
                    kept = []
                    while True:
                        for _ in range(4):
                            one = socket.socket(); one.setblocking(False)
                            one.connect_ex(("{busy}", 8000)); kept.append(one)
                        time.sleep(1)
                        for one in kept[:-8]: one.close()
                        del kept[:-8]
                    """
                ),
            ),
        ),
    ),
    Ill(
        "port in use",
        ("port-in-use",),
        "pod/twice",
        clients=(
            pod(
                "twice",
                python(answers(200)),
                python(
                    """
                    import socket, sys, time
                    time.sleep(3)
                    while True:
                        try: socket.create_server(("", 8000))
                        except OSError: print("not allowed")
                        time.sleep(1)
                    """
                )
                | {"name": "second"},
            ),
        ),
    ),
    Ill(
        "script",
        ("interpreter-not-found", "program-cannot-be-run"),
        "pod/script",
        clients=(pod("script", executes(writes_script("#!/usr/bin/bash5\necho\n"))),),
    ),
    Ill(
        "windows",
        ("script-with-carriage-return", "program-cannot-be-run"),
        "pod/windows",
        clients=(pod("windows", executes(writes_script("#!/bin/sh\r\necho\r\n"))),),
    ),
    Ill(
        "foreign",
        ("wrong-architecture", "program-of-wrong-format"),
        "pod/foreign",
        clients=(pod("foreign", executes(FOREIGN)),),
    ),
    Ill(
        "loader",
        ("loader-not-found", "program-cannot-be-run"),
        "pod/alpine",
        clients=(pod("alpine", executes(OTHER_LOADER)),),
    ),
    Ill(
        "crash",
        ("crashed",),
        "pod/wrapper",
        clients=(
            pod(
                "wrapper",
                python(
                    """
                    import subprocess, time
                    while True:
                        subprocess.run(["python3", "-c", "import ctypes; ctypes.string_at(0)"])
                        print("worker done"); time.sleep(2)
                    """
                ),
            ),
        ),
    ),
    Ill(
        "zombies",
        ("zombies",),
        "pod/parent",
        clients=(
            pod(
                "parent",
                python(
                    """
                    import os, time
                    while True:
                        os.fork() or os._exit(0)
                        time.sleep(0.2)
                    """
                ),
            ),
        ),
    ),
    Ill(
        "lock",
        ("lock-held",),
        "pod/second",
        (
            pod(
                "first",
                python(
                    """
                    import fcntl, time
                    file = open("/shared/ill-lock", "w"); fcntl.flock(file, fcntl.LOCK_EX); time.sleep(100000)
                    """,
                    volumeMounts=[{"name": "shared", "mountPath": "/shared"}],
                ),
                volumes=[{"name": "shared", "hostPath": {"path": "/tmp"}}],
                nodeName="{NODE}",
            ),
        ),
        (
            pod(
                "second",
                python(
                    """
                    import fcntl, time
                    time.sleep(3)
                    file = open("/shared/ill-lock", "w"); fcntl.flock(file, fcntl.LOCK_EX)
                    """,
                    volumeMounts=[{"name": "shared", "mountPath": "/shared"}],
                ),
                volumes=[{"name": "shared", "hostPath": {"path": "/tmp"}}],
                nodeName="{NODE}",
            ),
        ),
    ),
    Ill(
        "deadlock",
        ("mutex-deadlock",),
        "pod/embrace",
        clients=(
            pod(
                "embrace",
                python(
                    """
                    import ctypes, threading, time
                    libc = ctypes.CDLL(None)
                    locks = [ctypes.create_string_buffer(64) for _ in range(2)]
                    def take(first, second):
                        libc.pthread_mutex_lock(first); time.sleep(1); libc.pthread_mutex_lock(second)
                    for pair in (locks, locks[::-1]): threading.Thread(target=take, args=pair).start()
                    """
                ),
            ),
        ),
    ),
    Ill(
        "unauthorized",
        ("not-authorized",),
        "pod/guest",
        (pod("gate", python(answers(401))),),
        (pod("guest", python(asks("{gate}", 8000))),),
    ),
    Ill(
        "server errors",
        ("serves-errors",),
        "pod/backend",
        (pod("backend", python(answers(503))),),
        (pod("shop", python(asks("{backend}", 8000))),),
    ),
    Ill(
        "exit",
        ("exits-with-error", "crash-loop"),
        "pod/quitter",
        clients=(pod("quitter", python("import sys, time; time.sleep(1); sys.exit(3)")),),
    ),
    Ill(
        "ports",
        ("ports-used-up",),
        "pod/greedy",
        (
            pod(
                "target",
                python(
                    """
                    import socket
                    server, kept = socket.create_server(("", 8000)), []
                    while True: kept.append(server.accept())
                    """
                ),
            ),
        ),
        (
            pod(
                "greedy",
                python(
                    """
                    import socket, time
                    kept = []
                    while True:
                        try: kept.append(socket.create_connection(("{target}", 8000), 3))
                        except OSError: print("database down")
                        time.sleep(0.5)
                    """
                ),
                securityContext={"sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "32768 32773"}]},
            ),
        ),
    ),
)


def objects(which: str, image: str, addresses: Mapping[str, str]) -> list[Object]:
    """Return the objects of this kind: servers, clients or others; with an image and with addresses put in."""
    text = json.dumps([one for ill in ILL for one in getattr(ill, which)])
    for name, address in addresses.items():
        text = text.replace(f"{{{name}}}", address)
    found: list[Object] = json.loads(text)
    for one in found:
        spec = one["spec"].get("template", one).get("spec", {}) if one["kind"] in ("Pod", "Deployment") else {}
        for container in spec.get("containers", ()):
            container.setdefault("image", image)
            container["imagePullPolicy"] = "IfNotPresent"
    return found
