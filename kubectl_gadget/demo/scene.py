"""The four pods of `kubectl gadget demo`, and what they do: a few opens, execs and calls per second, some of which
fail.

A shell's `sleep` is one more program to execute, and would be every second row of `trace exec`. The scripts wait in a
built-in instead, on a pipe that nothing writes to.
"""

import datetime
import ipaddress
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubectl_gadget.demo.pods import DemoPods, free_block
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.python_process import is_self_contained
from kubectl_gadget.wire.policy_events import rfc3339

NETWORK_POLICIES = Path(__file__).parent / "network-policies.yaml"
"""the demo's network policies; its pods also do what these deny"""
PODS = ("default/xwing", "default/tiefighter", "empire/deathstar", "kube-system/coredns")
_STATE = Path("/run/kubectl-gadget-demo")
_IMAGE = "docker.io/library/python:3"
_LABELS = {
    "xwing": {"class": "xwing", "org": "alliance"},
    "tiefighter": {"class": "tiefighter", "org": "empire"},
    "deathstar": {"class": "deathstar", "org": "empire"},
    "coredns": {"k8s-app": "kube-dns"},
}
_SERVICES = {
    "deathstar": ("empire", "deathstar", {"http": ("TCP", 80), "https": ("TCP", 443)}),
    "coredns": ("kube-system", "kube-dns", {"dns": ("UDP", 53)}),
}
"""by the pod that serves them. A service here has no address of its own: its name resolves to the pod's."""

_WAIT = "mkfifo /tmp/clock; exec 9<>/tmp/clock; wait_a_bit() { read -r -t 1 _ <&9; }\n"
_SPACESHIP = """while :; do
  cat /etc/passwd; wait_a_bit
  wget -q -T 2 -O /dev/null http://deathstar.empire/v1/; wait_a_bit
  cat /etc/hyperdrive.conf; wait_a_bit
  nc -w 1 deathstar.empire 23 </dev/null; wait_a_bit
  head -n 1 /etc/hosts; ping -c 1 -W 1 deathstar.empire; wait_a_bit
done"""
_ENGINE = """while :; do
  cat /proc/loadavg; wait_a_bit
  wget -q -T 2 -O /dev/null --post-data ship=tiefighter http://deathstar.empire/v1/request-landing; wait_a_bit
  date > /tmp/engine.log; wait_a_bit
done"""
_LASER = """while :; do
  /usr/bin/aim --target xwing; wait_a_bit
  cp /etc/hosts /tmp/targets; wait_a_bit
  wget -q -T 2 -O /dev/null --no-check-certificate https://deathstar.empire/v1/; wait_a_bit
  wget -q -T 2 -O /dev/null http://deathstar.empire/v1/exhaust-port; wait_a_bit
done"""
_DEATHSTAR = """while :; do
  cat /etc/shadow; wait_a_bit
  ls /etc; wait_a_bit
  grep -c pilot /etc/passwd; wait_a_bit
done"""

# The same pods, ill, for `diagnose`: a file that its user may not read, a name that does not exist, and a server that
# only its own pod can reach, which is the cause of what fails in two other pods.
_ILL_SPACESHIP = """while :; do
  cat /etc/shadow; wait_a_bit
  nc -w 1 deathstar.empire 80 </dev/null; wait_a_bit
done"""
_ILL_LASER = """while :; do
  wget -q -T 2 -O /dev/null http://alderaan.republic/v1/; wait_a_bit
  nc -w 1 deathstar.empire.svc.cluster.local. 80 </dev/null; wait_a_bit
done"""
_HEALTHY = "while :; do ls /etc; wait_a_bit; done"

Object = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """The pods and their addresses, before anything is started."""

    network: ipaddress.IPv4Network = field(default_factory=free_block)
    uids: Mapping[str, str] = field(default_factory=lambda: {name: str(uuid.uuid4()) for name in PODS})
    """UIDs by pod"""
    is_ill: bool = False
    """three pods fail, in three ways"""

    @property
    def gateway(self) -> str:
        """The node's address in the pods' network."""
        return f"{self.network[1]}/{self.network.prefixlen}"

    def address(self, pod: str) -> str:
        return str(self.network[10 + PODS.index(pod)])

    def objects(self, node: str) -> Object:
        """The API objects of the pods, their services, their namespaces and the node, as a List."""
        namespaces = sorted({pod.partition("/")[0] for pod in PODS})
        items = [
            *(
                {"kind": "Namespace", "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}}
                for name in namespaces
            ),
            {
                "kind": "Node",
                "metadata": {"name": node},
                "status": {"addresses": [{"type": "InternalIP", "address": str(self.network[1])}]},
            },
            *(self._pod(pod, node) for pod in PODS),
            *(_service(*service, _LABELS[name]) for name, service in _SERVICES.items()),
        ]
        return {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", **item} for item in items]}

    def start(self, pods: DemoPods) -> None:
        """Starts all pods, servers first."""
        self._start_servers(pods)
        shell = {"spaceship": _shell(_ILL_SPACESHIP if self.is_ill else _SPACESHIP)}
        pods.start_pod("default", "xwing", shell, uid=1000 if self.is_ill else 0, **self._place("default/xwing"))
        shell = {"engine": _shell(_HEALTHY if self.is_ill else _ENGINE)}
        shell["laser"] = _shell(_ILL_LASER if self.is_ill else _LASER)
        pods.start_pod("default", "tiefighter", shell, **self._place("default/tiefighter"))

    def _start_servers(self, pods: DemoPods) -> None:
        hosts = [
            f"{self.address(f'{namespace}/{pod}')} {name}.{namespace}.svc.cluster.local\n"
            for pod, (namespace, name, _) in _SERVICES.items()
        ]
        dns = pods.start_pod("kube-system", "coredns", {}, **self._place("kube-system/coredns"))
        pods.add_container(
            dns,
            "coredns",
            _python("dns_server"),
            _IMAGE,
            files=_program("dns_server", "".join(hosts)),
            host_folders=python_folders(),
        )
        shell = {"reactor": _shell(_HEALTHY if self.is_ill else _DEATHSTAR)}
        deathstar = pods.start_pod("empire", "deathstar", shell, uid=1000, **self._place("empire/deathstar"))
        certificate = make_certificate("deathstar.empire.svc.cluster.local")
        pods.add_container(
            deathstar,
            "web",
            [*_python("web"), *(["127.0.0.1"] if self.is_ill else [])],
            _IMAGE,
            files=_program("web", certificate),
            host_folders=python_folders(),
        )

    def _place(self, pod: str) -> dict[str, Any]:
        """The arguments of start_pod other than names and commands."""
        namespace, _, name = pod.partition("/")
        search = f"{namespace}.svc.cluster.local svc.cluster.local cluster.local"
        files = {
            "etc/hosts": f"127.0.0.1 localhost\n{self.address(pod)} {name}\n",
            "etc/resolv.conf": f"search {search}\nnameserver {self.address('kube-system/coredns')}\noptions ndots:5\n",
        }
        address = f"{self.address(pod)}/{self.network.prefixlen}"
        return {"address": address, "pod_uid": self.uids[pod], "files": files}

    def _pod(self, pod: str, node: str) -> Object:
        namespace, _, name = pod.partition("/")
        ports = _SERVICES[name][2] if name in _SERVICES else {}
        container = {
            "name": name,
            "ports": [{"name": port, "protocol": kind, "containerPort": at} for port, (kind, at) in ports.items()],
        }
        address, now = self.address(pod), rfc3339(time.time_ns())
        running = {"name": name, "ready": True, "restartCount": 0, "state": {"running": {"startedAt": now}}}
        return {
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": self.uids[pod], "labels": _LABELS[name]},
            "spec": {"nodeName": node, "containers": [container]},
            "status": {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [running],
            },
        }


@contextmanager
def stage(scene: Scene, state: Path = _STATE) -> Iterator[DemoPods]:
    """Pods on which the scene can be started; they are removed after the block. Raises GadgetError as DemoPods does."""
    if is_self_contained():
        raise GadgetError("the demo needs a Python installation", "pipx install kubectl-gadget")
    with DemoPods(state, gateway=scene.gateway) as pods:
        yield pods


@contextmanager
def demo_pods(state: Path = _STATE) -> Iterator[DemoPods]:
    """A started scene: `default/xwing` with container `spaceship`, `default/tiefighter` with `engine` and `laser`,
    `empire/deathstar` with `reactor`, whose user may not read everything it tries to, and `web`, and
    `kube-system/coredns`."""
    scene = Scene()
    with stage(scene, state) as pods:
        scene.start(pods)
        yield pods


def python_folders() -> list[Path]:
    """The folders of this machine that a container needs to run this Python."""
    system = [folder for name in ("usr", "lib", "lib64") if (folder := Path("/", name)).is_dir()]
    own = {Path(sys.base_prefix).resolve(), Path(os.path.realpath(sys.executable)).parent.parent}
    return [*system, *(folder for folder in sorted(own) if not any(map(folder.is_relative_to, system)))]


def _shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", _WAIT + script]


def _python(program: str) -> list[str]:
    return [os.path.realpath(sys.executable), "-I", "-S", "-B", f"/srv/{program}.py", f"/srv/{program}.txt"]


def _program(name: str, data: str) -> dict[str, str]:
    """The files of a server: its program and its data."""
    return {f"srv/{name}.py": Path(__file__).with_name(f"{name}.py").read_text(), f"srv/{name}.txt": data}


def _service(namespace: str, name: str, ports: Mapping[str, tuple[str, int]], selector: Mapping[str, str]) -> Object:
    listed = [{"name": port, "protocol": kind, "port": number} for port, (kind, number) in ports.items()]
    spec = {"clusterIP": "None", "selector": dict(selector), "ports": listed}
    return {"kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def make_certificate(name: str) -> str:
    """Return a key and its self-signed certificate, as PEM.

    They are made anew each time, so the package contains no secret, and none expires.
    """
    from cryptography import x509  # slow to import, and only the demo needs it
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=24))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return (key.private_bytes(pem, *plain) + certificate.public_bytes(pem)).decode()
