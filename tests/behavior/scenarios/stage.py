"""Starts the workloads as pods under runc, loads and stops them, with other names, addresses and PIDs in each run.

Whether a program is ready is asked from outside, of the kernel's list of sockets, since a probe that connects would be
something that its pod is seen to do.
"""

import os
import random
import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubectl_gadget.demo.pods import DemoContainer, DemoPod, DemoPods, ip_lines, namespace_of
from tests.behavior.scenarios.image import image
from tests.behavior.scenarios.workloads import LOAD_FILES, Workload
from tests.bpf.network import ip
from tests.waiting import wait_until

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""of the names that Kubernetes generates (apimachinery, util/rand)"""
_DNS = (Path(__file__).resolve().parents[3] / "kubectl_gadget/demo/dns_server.py").read_text()
_LISTEN = "0A"
OUTSIDE, METADATA = "203.0.113.7", "169.254.169.254"
"""addresses outside of the pods' network (RFC 5737), and of the metadata service of clouds"""
OUTSIDE_PORTS = (80, 443, 4444)
_OUTSIDE = f"""import select, socket
listeners = [socket.create_server(("", port)) for port in {OUTSIDE_PORTS}]
while True:
    for listener in select.select(listeners, [], [])[0]:
        listener.accept()[0].close()
"""
PATIENCE = 180.0
"""Seconds that anything here may take."""


class Stage:
    """A context manager. `namespace` is that of the pods; the DNS server is in another one, which is not compared."""

    def __init__(self, folder: Path, namespace: str, root: Path | None = None) -> None:
        """`root`: the root file system of the pods, if it is not the usual one."""
        self.namespace = namespace
        self._root = root
        self._network = ip_network(f"10.{random.randint(64, 95)}.{random.randint(0, 255)}.0/24")
        self._free = [str(address) for address in list(self._network.hosts())[1:]]
        random.shuffle(self._free)
        gateway = f"{self._network[1]}/{self._network.prefixlen}"
        self._pods = DemoPods(folder / f"noise-{uuid.uuid4().hex[:8]}", gateway=gateway)
        self._names: dict[str, str] = {}
        self._dns = ""
        self.running: list[tuple[Workload, DemoContainer]] = []

    def __enter__(self) -> Self:
        self._image = self._root or image()
        self._pods.__enter__()
        self._pause = self._pods.image_root
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pods.__exit__(kind, error, trace)

    def serve_names(self, services: Sequence[str]) -> None:
        """Starts the DNS server. Each service has an address, which its first pod gets."""
        self._names = {name: self._free.pop() for name in services}
        self._dns = self._free.pop()
        hosts = "".join(f"{at} {name}.{self.namespace}.svc.cluster.local\n" for name, at in self._names.items())
        files = {"srv/dns.py": _DNS, "srv/dns.txt": hosts}
        pod = self._start_pod_in("kube-system", "coredns", self._dns)
        self._pods.add_container(pod, "coredns", ["python3", "/srv/dns.py", "/srv/dns.txt"], files=files)
        wait_until(lambda: _has_socket(pod, "udp", 53), "the DNS server")

    def serve_outside(self) -> None:
        """Starts what answers at addresses outside of the pods' network, without a word."""
        pod = self._start_pod_in("elsewhere", "outside", self._free.pop())
        ip_lines([f"address add {at}/32 dev eth0" for at in (OUTSIDE, METADATA)], namespace_of(pod.sandbox.pid))
        self._pods.add_container(pod, "outside", ["python3", "-c", _OUTSIDE])
        for port in OUTSIDE_PORTS:
            wait_until(partial(_has_socket, pod, "tcp", port, _LISTEN), f"a listener outside on port {port}")

    def start(self, workload: Workload, called: str = "", replicas: int = 0) -> None:
        """Starts all replicas of a workload, or so many, and returns when they listen. `called`: its name, if it is
        another one than that of its container."""
        self.wait_for(workload, self.begin(workload, called, replicas))

    def begin(self, workload: Workload, called: str = "", replicas: int = 0) -> list[DemoPod]:
        """As start(), without waiting. Returns the pods."""
        return [self._pod(workload, called or workload.name, at) for at in range(replicas or workload.replicas)]

    def wait_for(self, workload: Workload, pods: Iterable[DemoPod]) -> None:
        """Returns when pods of a workload listen."""
        for pod in pods:
            wait_until(partial(_has_socket, pod, "tcp", workload.port, _LISTEN), f"{pod.name} to listen")
            started = pod.containers[workload.name].bundle / "rootfs" / workload.started
            wait_until(started.exists, f"{pod.name} to write /{workload.started}")

    def load(self, workloads: Sequence[Workload]) -> None:
        """Runs the loads of workloads at the same time, until they end. Fails if one fails."""
        started = []
        for workload in workloads:
            name = f"load-{workload.name}-{_random(5)}"
            pod = self._start_pod(name, self._free.pop())
            # The container is no child of this process, so its exit code is not known here.
            command = ["/bin/sh", "-c", f"exec 2>/data/errors\nset -e\n{workload.load}\necho >/data/done\n"]
            container = self._pods.add_container(pod, "load", command, files=self._files(name, LOAD_FILES))
            started.append((workload, container))
        for workload, container in started:
            _wait_for(container, f"the load of {workload.name}")
            data = container.bundle / "rootfs/data"
            assert (data / "done").exists(), f"the load of {workload.name}: {(data / 'errors').read_text()}"

    def stop(self, at_once: bool = False) -> None:
        """Stops all workloads, the last first or all at once, and returns when their processes are gone."""
        running = list(reversed(self.running))
        for group in [running] if at_once else [[one] for one in running]:
            for workload, container in group:
                os.kill(container.pid, workload.stop)
            for workload, container in group:
                _wait_for(container, workload.name)
        self.running.clear()

    def _pod(self, workload: Workload, of: str, number: int) -> DemoPod:
        numbered = workload.kind == "StatefulSet"
        name = f"{of}-{number}" if numbered else f"{of}-{_random(10)}-{_random(5)}"
        known = self._names.get(of)
        pod = self._start_pod(name, known if known and not number else self._free.pop())
        files = self._files(name, {**workload.files, "srv/start.sh": workload.script})
        image = f"docker.io/library/{workload.name}:1"
        container = self._pods.add_container(pod, workload.name, ["/bin/sh", "/srv/start.sh"], image, files=files)
        self.running.append((workload, container))
        return pod

    def _start_pod(self, name: str, address: str) -> DemoPod:
        return self._start_pod_in(self.namespace, name, address)

    def _start_pod_in(self, namespace: str, name: str, address: str) -> DemoPod:
        self._pods.image_root = self._pause
        pod = self._pods.start_pod(namespace, name, {}, address=self._with_length(address))
        self._pods.image_root = self._image
        ip("route", "add", "default", "dev", "eth0", within=namespace_of(pod.sandbox.pid))
        return pod

    def _files(self, pod: str, files: Any) -> dict[str, str]:
        search = f"{self.namespace}.svc.cluster.local svc.cluster.local cluster.local"
        token = "var/run/secrets/kubernetes.io/serviceaccount/token"
        return {
            "etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.0.1 {pod}\n",
            "etc/hostname": f"{pod}\n",
            "etc/resolv.conf": f"search {search}\nnameserver {self._dns}\noptions ndots:5\n",
            token: "a token\n",
            "root/.ssh/id_rsa": "a key\n",
            "etc/shadow": "root:*:20000:0:99999:7:::\n",
            **files,
        }

    def _with_length(self, address: str) -> str:
        return f"{address}/{self._network.prefixlen}"


def _random(length: int) -> str:
    return "".join(random.choices(_LETTERS, k=length))


def _has_socket(pod: DemoPod, protocol: str, port: int, state: str = "") -> bool:
    """True if the pod has a socket with this local port (proc_net_tcp: the port in hex, then the other end, the
    state)."""
    for name in (protocol, f"{protocol}6"):
        lines = Path(f"/proc/{pod.sandbox.pid}/net/{name}").read_text().splitlines()[1:]
        fields = (line.split() for line in lines)
        if any(int(field[1].rpartition(":")[2], 16) == port and state in ("", field[3]) for field in fields):
            return True
    return False


def _wait_for(container: DemoContainer, name: str) -> None:
    """Returns when all processes of a container are gone."""
    wait_until(lambda: _is_empty(container.cgroup), f"the end of {name}")


def _is_empty(cgroup: Path) -> bool:
    try:
        return "populated 0" in (cgroup / "cgroup.events").read_text()
    except FileNotFoundError:
        return True
