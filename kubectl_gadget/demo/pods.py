"""A set of pods on this machine, each with a sandbox and containers, which lasts as long as a `with` block.

Containers would outlive this process, so a separate process (`shim`) starts them, and removes them when this
one has ended. Everything is below one folder and one cgroup, and so can be removed without knowing its contents.
"""

import fcntl
import hashlib
import ipaddress
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from kubectl_gadget.demo.runc import BundleSpec, Runc, find_program, find_runc, sweep, write_bundle, write_image_root
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.python_process import module_command

CgroupDriver = Literal["cgroupfs", "systemd"]
IMAGE = "docker.io/library/busybox:1.37"
_PAUSE = ["/bin/sleep", "2147483647"]
_BRIDGE = "pods"
_SHIM_ENDED = "the process that runs the demo's containers has ended"
_NO_IPV6 = {"net.ipv6.conf.default.disable_ipv6": "1"}
"""sysctl of the network namespace of a pod with one IPv4 address, which then does not solicit IPv6 routers"""


@dataclass(frozen=True)
class DemoContainer:
    """One container. `cgroup` is its folder in the mounted cgroup v2 tree; `exit_code` is None if it was left
    running."""

    id: str
    name: str | None
    pid: int
    cgroup: Path
    bundle: Path
    exit_code: int | None = None


@dataclass(frozen=True)
class DemoPod:
    """One pod: the properties in its containers' bundles, and the containers by name."""

    namespace: str
    name: str
    uid: str
    sandbox: DemoContainer
    containers: dict[str, DemoContainer] = field(default_factory=dict)


class DemoPods:
    """Starts pods, and removes them all at the end. Use it as a context manager.

    `state` is a folder that must not exist, or is left from an earlier run; the bundles are below it where containerd
    keeps its own below /run/containerd. `driver` selects one of kubelet's two forms of cgroup paths. `gateway`, an
    address such as 10.213.77.1/24, is the address of the pods' node in their network, which is separate from the
    machine's; without it, pods have no network.
    """

    def __init__(
        self,
        state: Path = Path("/run/kubectl-gadget-demo"),
        driver: CgroupDriver = "cgroupfs",
        gateway: str | None = None,
    ) -> None:
        self._state = state
        self._driver = driver
        self._gateway = gateway
        self._cables = 0
        self._tasks = state / "io.containerd.runtime.v2.task" / "k8s.io"
        self.image_root = state / "image"
        """the root file system of every container"""
        self._one_at_a_time = threading.Lock()
        self._runc: Runc | None = None
        self._shim: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Raises GadgetError if this machine cannot run containers, or if another run uses the same state folder."""
        self._runc = find_runc(self._state / "runc" / "k8s.io", self._ask_shim)
        busybox = find_program("busybox", "busybox-static")
        lock = self._lock()
        try:
            sweep(self._state, self._cgroup_root)
            os.close(lock)
            lock = self._lock()
            self._shim = self._start_shim(lock)
        except TimeoutError as error:
            raise GadgetError(f"the remains of an earlier demo cannot be removed: {error}") from error
        finally:
            os.close(lock)
        try:
            write_image_root(self.image_root, busybox)
            self._heard()
            if self._gateway is not None:
                make_bridge(_BRIDGE, self._gateway, namespace_of(self._shim.pid))
        except BaseException:
            self._shim.communicate()  # the shim removes everything
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes every pod. Blocks until they are gone; raises GadgetError if they cannot be removed."""
        assert self._shim is not None
        self._shim.communicate()
        if self._shim.returncode:
            raise GadgetError(f"the demo's pods could not be removed from {self._state} and {self._cgroup_root}")

    def start_pod(
        self,
        namespace: str,
        name: str,
        containers: Mapping[str, Sequence[str]],
        image: str = IMAGE,
        uid: int = 0,
        *,
        privileged: bool = False,
        shares_processes: bool = False,
        address: str | None = None,
        pod_uid: str | None = None,
        files: Mapping[str, str] | None = None,
    ) -> DemoPod:
        """Starts a pod with its sandbox and `containers` (name → command), which are left running. `image` is only a
        name in the bundle; all containers have busybox. `uid` is the user of the containers' processes. Privileged
        containers have every capability and the node's cgroups; `shares_processes` is shareProcessNamespace. With
        `address`, such as 10.213.77.2/24, the pod is in the pods' network. `files` are added to all containers
        (bundle.py)."""
        pod = self._start_sandbox(namespace, name, uid, pod_uid, address)
        for container, command in containers.items():
            spec = self._spec(pod, container, list(command), image, uid)
            spec = replace(spec, privileged=privileged, shares_processes=shares_processes, files=files or {})
            pod.containers[container] = self._start(spec, detach=True)
        return pod

    def add_container(
        self,
        pod: DemoPod,
        name: str,
        command: Sequence[str],
        image: str = IMAGE,
        uid: int = 0,
        *,
        privileged: bool = False,
        files: Mapping[str, str] | None = None,
        host_folders: Sequence[Path] = (),
        until_end: bool = False,
    ) -> DemoContainer:
        """Starts another container of a pod. It is left running, or this waits `until_end`. It may read the machine's
        `host_folders`."""
        spec = self._spec(pod, name, list(command), image, uid)
        spec = replace(spec, privileged=privileged, files=files or {}, host_folders=tuple(host_folders))
        pod.containers[name] = self._start(spec, detach=not until_end)
        return pod.containers[name]

    def run_short(
        self,
        namespace: str,
        name: str,
        command: Sequence[str],
        container: str = "main",
        image: str = IMAGE,
        uid: int = 0,
    ) -> DemoPod:
        """Runs a pod with one container until that container ends. Its sandbox keeps running."""
        pod = self.start_pod(namespace, name, {}, uid=uid)
        self.add_container(pod, container, command, image, uid, until_end=True)
        return pod

    @property
    def _cgroup_root(self) -> Path:
        """The cgroup of all these pods. It is in its own folder, since a kubelet removes unknown pods from its
        `kubepods`."""
        assert self._runc is not None
        return self._runc.cgroup_mount / self._state.name

    def _lock(self) -> int:
        """An open file that locks the state folder. The lock is held until the shim has also ended."""
        while True:
            self._state.mkdir(mode=0o711, parents=True, exist_ok=True)
            lock = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise GadgetError(
                    f"another demo is running, {self._state} is in use", "wait until it has ended"
                ) from None
            if self._state.is_dir() and os.path.samestat(os.fstat(lock), self._state.stat()):
                return lock
            os.close(lock)  # it was removed between the two calls

    def _start_shim(self, lock: int) -> subprocess.Popen[str]:
        network = ["network"] if self._gateway else []
        arguments = [str(self._state), str(self._cgroup_root), *network]
        command = module_command("kubectl_gadget.demo.shim", *arguments, isolated=False)
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[lock], start_new_session=True
        )

    def _ask_shim(self, command: list[str], bundle: Path) -> int:
        shim = self._shim
        assert shim is not None, "DemoPods must be entered first"
        assert shim.stdin is not None
        with self._one_at_a_time:
            try:
                shim.stdin.write(json.dumps({"command": command, "bundle": str(bundle)}) + "\n")
                shim.stdin.flush()
            except BrokenPipeError as error:
                raise GadgetError(_SHIM_ENDED) from error
            return self._heard()

    def _heard(self) -> int:
        """Reads the shim's next answer."""
        assert self._shim is not None
        assert self._shim.stdout is not None
        try:
            return int(self._shim.stdout.readline())
        except ValueError as error:
            raise GadgetError(_SHIM_ENDED) from error

    def _start_sandbox(
        self, namespace: str, name: str, uid: int, pod_uid: str | None = None, address: str | None = None
    ) -> DemoPod:
        identity = DemoPod(namespace, name, pod_uid or str(uuid.uuid4()), DemoContainer("", None, 0, Path(), Path()))
        spec = self._spec(identity, None, _PAUSE, "registry.k8s.io/pause:3.10", uid)
        if address is not None and Path("/proc/sys/net/ipv6").exists():
            spec = replace(spec, sysctls=_NO_IPV6)
        sandbox = self._start(spec, detach=True)
        if address is not None:
            assert self._shim is not None
            assert self._gateway is not None, "these pods have no network"
            self._cables += 1
            within = namespace_of(self._shim.pid)
            lay_cable(sandbox.pid, f"pod{self._cables}", _BRIDGE, [address], within)
        return DemoPod(namespace, name, identity.uid, sandbox)

    def _spec(self, pod: DemoPod, container: str | None, command: list[str], image: str, uid: int) -> BundleSpec:
        container_id = hashlib.sha256(uuid.uuid4().bytes).hexdigest()
        return BundleSpec(
            id=container_id,
            sandbox_id=container_id if container is None else pod.sandbox.id,
            namespace=pod.namespace,
            pod=pod.name,
            pod_uid=pod.uid,
            container=container,
            image=image,
            command=command,
            uid=uid,
            cgroups_path=f"/{self._state.name}/" + cgroup_path(self._driver, pod.uid, container_id),
            sandbox_pid=None if container is None else pod.sandbox.pid,
        )

    def _start(self, spec: BundleSpec, *, detach: bool) -> DemoContainer:
        assert self._runc is not None, "DemoPods must be entered first"
        bundle = self._tasks / spec.id
        write_bundle(bundle, self.image_root, spec)
        result = self._runc.run(spec.id, bundle, detach=detach)
        cgroup = self._runc.cgroup_mount / spec.cgroups_path.removeprefix("/")
        pid = int((bundle / "init.pid").read_text())
        return DemoContainer(spec.id, spec.container, pid, cgroup, bundle, None if detach else result)


def cgroup_path(driver: CgroupDriver, pod_uid: str, container_id: str) -> str:
    """The cgroup path that kubelet and containerd give a container of a best-effort pod, without a leading slash."""
    if driver == "cgroupfs":
        return f"kubepods/besteffort/pod{pod_uid}/{container_id}"
    pod = f"kubepods-besteffort-pod{pod_uid.replace('-', '_')}.slice"
    return f"kubepods.slice/kubepods-besteffort.slice/{pod}/cri-containerd-{container_id}.scope"


# Networks: bridges, and cables (veth pairs) from them to pods, with iproute2.
#
# A namespace is named by its file, /proc/PID/ns/net or /run/netns/NAME; the empty name is this machine's. A cable
# disappears with either of the namespaces that it connects, so nothing here is ever removed by name.
#
# Pods get addresses that no route of this machine covers. Their network is separate from the machine's, so both could
# have the same address, but people could not tell the two apart: gadgets show addresses, and `flows` matches the two
# sides of a connection by them.


_BLOCKS = tuple(
    map(ipaddress.IPv4Network, ("10.213.77.0/24", "172.29.213.0/24", "192.168.213.0/24", "198.18.213.0/24"))
)
"""private blocks (RFC 1918), and finally one for benchmarks between networks (RFC 2544), which real networks do not
use"""


def namespace_of(pid: int | None) -> str:
    """The file of a process's network namespace."""
    return f"/proc/{pid}/ns/net"


def ip_lines(lines: Sequence[str], within: str = "") -> None:
    """Runs several ip commands in one process, up to the first that fails. Raises GadgetError with ip's message."""
    enter = [find_program("nsenter", "util-linux"), f"--net={within}"] if within else []
    command = [*enter, find_program("ip", "iproute2"), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().partition("\n")[0] or f"exit code {done.returncode}"
        raise GadgetError(f"the network between pods cannot be created: ip: {reason}")


def make_bridge(name: str, address: str, within: str) -> None:
    """Makes a bridge with an address, such as 10.9.0.1/24."""
    ip_lines([f"link add {name} type bridge", f"address add {address} dev {name}", f"link set {name} up"], within)


def lay_cable(pid: int | None, end: str, bridge: str, addresses: Sequence[str], within: str) -> None:
    """Connects a process's namespace to the bridge. The cable is called `end` at the bridge, and eth0 with these
    addresses in the namespace. IPv6 duplicate address detection is off."""
    outside = f"link add {end} type veth peer name eth0 netns {pid}", f"link set {end} master {bridge} up"
    ip_lines(outside, within)
    inside = [f"address add {address} dev eth0 {'nodad' if ':' in address else ''}" for address in addresses]
    ip_lines([*inside, "link set lo up", "link set eth0 up"], namespace_of(pid))


def free_block(routes: Path = Path("/proc/net/route")) -> ipaddress.IPv4Network:
    """The first block that overlaps with no route; the last one if all of them do."""
    taken = list(_routed(routes))
    return next((block for block in _BLOCKS if not any(map(block.overlaps, taken))), _BLOCKS[-1])


def _routed(routes: Path) -> list[ipaddress.IPv4Network]:
    """The destinations of routes, except the default route (proc(5))."""
    if not routes.exists():  # a kernel without IPv4, or without routes in /proc
        return []
    fields = [line.split() for line in routes.read_text().splitlines()[1:]]
    pairs = [(_number(line[1]), _number(line[7])) for line in fields if len(line) > 7]
    return [ipaddress.IPv4Network((address & mask, mask.bit_count())) for address, mask in pairs if mask]


def _number(text: str) -> int:
    """Parses an address: the kernel prints its four bytes as one number in host byte order."""
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")
