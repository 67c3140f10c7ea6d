"""Containers by runc: their OCI bundles, how runc starts them, and how all that is left of them is removed.

Bundles have the layout of containerd's CRI plugin: `config.json` with its annotations, and `rootfs`, which is
Debian's static busybox. Bundles request no rlimits, no oom_score_adj and no cgroup limits, since a machine
may lack the capability or the controller, and runc would refuse the container.

Format: github.com/opencontainers/runtime-spec (config.md, config-linux.md). Annotations: containerd,
pkg/cri/annotations.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubectl_gadget.errors import GadgetError

# Bundles

_CAPABILITIES = [
    *("CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD"),
    *("CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"),
    "CAP_SYS_CHROOT",
]
"""The capabilities that containerd gives a container by default (pkg/oci/spec.go)."""
_EVERY_CAPABILITY = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ"
)
"""In the kernel's order, without those added after Linux 3.16."""
_TMP = ["nosuid", "nodev", "mode=1777", "size=16m"]
_MASKED = ["/proc/kcore", "/proc/keys", "/proc/sched_debug", "/proc/timer_list", "/sys/firmware"]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_CGROUPS = {"destination": "/sys/fs/cgroup", "type": "bind", "source": "/sys/fs/cgroup", "options": ["rbind", "rw"]}
"""The place where runc expects cgroup v2."""
_FILES = {
    "etc/passwd": (0o644, "root:x:0:0:root:/root:/bin/sh\npilot:x:1000:1000:pilot:/tmp:/bin/sh\n"),
    "etc/group": (0o644, "root:x:0:\npilot:x:1000:\n"),
    "etc/shadow": (0o600, "root:*:20000:0:99999:7:::\n"),
    "etc/hosts": (0o644, "127.0.0.1 localhost\n"),
    "etc/resolv.conf": (0o644, ""),
}


@dataclass(frozen=True)
class BundleSpec:
    """The properties of one container of a pod. `sandbox_pid` is None for the sandbox itself."""

    id: str
    sandbox_id: str
    namespace: str
    pod: str
    pod_uid: str
    container: str | None
    image: str
    command: list[str]
    uid: int
    cgroups_path: str
    sandbox_pid: int | None
    privileged: bool = False
    """True if it has every capability, and the node's whole cgroup tree"""
    shares_processes: bool = False
    """True if it sees the sandbox's processes, as with shareProcessNamespace"""
    files: Mapping[str, str] = field(default_factory=dict)
    """files added to the image, or replacing its files: path below the root → text"""
    host_folders: tuple[Path, ...] = ()
    """folders of this machine that it may read, if they exist"""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """network sysctls, for the sandbox"""

    def annotations(self) -> dict[str, str]:
        """The annotations that containerd writes for the runtime; the agent names the container by them."""
        prefix = "io.kubernetes.cri."
        annotations = {
            prefix + "container-type": "sandbox" if self.container is None else "container",
            prefix + "sandbox-id": self.sandbox_id,
            prefix + "sandbox-name": self.pod,
            prefix + "sandbox-namespace": self.namespace,
            prefix + "sandbox-uid": self.pod_uid,
        }
        if self.container is not None:
            annotations |= {prefix + "container-name": self.container, prefix + "image-name": self.image}
        return annotations

    def config(self) -> dict[str, object]:
        """The whole config.json."""
        own = ["mount"] if self.shares_processes and self.sandbox_pid else ["pid", "mount"]
        shared = ["network", "ipc", "uts", *(["pid"] if "pid" not in own else [])]
        namespaces: list[dict[str, str]] = [{"type": kind} for kind in own]
        own_ones = _own_capabilities()
        capabilities = own_ones if self.privileged else [name for name in _CAPABILITIES if name in own_ones]
        for kind in shared:
            namespace = {"type": kind}
            if self.sandbox_pid is not None:
                namespace["path"] = f"/proc/{self.sandbox_pid}/ns/{'net' if kind == 'network' else kind}"
            namespaces.append(namespace)
        config: dict[str, Any] = {
            "ociVersion": "1.1.0",
            "process": {
                "user": {"uid": self.uid, "gid": self.uid},
                "args": self.command,
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"HOSTNAME={self.pod}"],
                "cwd": "/",
                "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
                "noNewPrivileges": not self.privileged,
            },
            "root": {"path": "rootfs"},
            "mounts": [*_mounts(), *map(_shown, self.host_folders), *([_CGROUPS] if self.privileged else [])],
            "annotations": self.annotations(),
            "linux": {
                "cgroupsPath": self.cgroups_path,
                "namespaces": namespaces,
                "maskedPaths": [] if self.privileged else _MASKED,
                "readonlyPaths": [] if self.privileged else _READ_ONLY,
            },
        }
        if self.sandbox_pid is None:
            config["hostname"] = self.pod
            config["linux"]["sysctl"] = dict(self.sysctls)
        return config


def write_bundle(bundle: Path, image_root: Path, spec: BundleSpec) -> None:
    """Makes the folder `bundle` with its own root file system, hard-linked from `image_root`, and finally
    config.json."""
    bundle.mkdir(parents=True, mode=0o711)
    for folder, folders, files in os.walk(image_root):
        copy = bundle / "rootfs" / Path(folder).relative_to(image_root)
        copy.mkdir()
        linked = [name for name in folders if os.path.islink(f"{folder}/{name}")]  # such as bin → usr/bin
        for file in (*files, *linked):  # including symbolic links, for which shutil.copytree takes five times as long
            os.link(f"{folder}/{file}", f"{copy}/{file}", follow_symlinks=False)
    for name, text in spec.files.items():
        path = bundle / "rootfs" / name
        path.unlink(missing_ok=True)  # the image has this file as well
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (bundle / "config.json").write_text(json.dumps(spec.config()))


def write_image_root(root: Path, busybox: str) -> None:
    """Makes a busybox root file system at `root`: every applet is a link to one static binary."""
    for folder in ("bin", "etc", "dev", "proc", "sys", "root", "tmp"):
        (root / folder).mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    for path, (mode, text) in _FILES.items():
        (root / path).write_text(text)
        (root / path).chmod(mode)


def _shown(folder: Path) -> dict[str, object]:
    options = ["rbind", "ro", "nosuid", "nodev"]
    return {"destination": str(folder), "type": "bind", "source": str(folder), "options": options}


def _own_capabilities() -> list[str]:
    """The capabilities that containers can get: those that this process itself may have."""
    status = Path("/proc/self/status").read_text()
    bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
    return [f"CAP_{name}" for number, name in enumerate(_EVERY_CAPABILITY.split()) if bounding >> number & 1]


def _mounts() -> list[dict[str, object]]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": _TMP},
    ]


# runc uses cgroup v2 only if /sys/fs/cgroup itself is a cgroup2 mount. On a hybrid machine each call runs in its own
# mount namespace, in which it is; the machine's own mounts are unchanged.

_RUNC_CGROUP = "/sys/fs/cgroup"
_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


Call = Callable[[list[str], Path], int]
"""Runs a command in a folder and returns its exit code."""


@dataclass(frozen=True)
class Runc:
    """runc with its own state directory. `cgroup_mount` is where this machine mounts cgroup v2; `call` runs it."""

    program: str
    state: Path
    cgroup_mount: Path
    call: Call

    def run(self, container_id: str, bundle: Path, *, detach: bool) -> int:
        """Starts the container of `bundle` and returns the PID of its first process, or, without `detach`, its exit
        code when it has ended. Raises GadgetError with runc's message if it cannot be started."""
        pid_file = bundle / "init.pid"
        where = ["--bundle", str(bundle), "--pid-file", str(pid_file)]
        code = self._run(bundle, ["run", *where, *(["--detach"] if detach else []), container_id])
        if not pid_file.exists() or (detach and code):
            raise GadgetError(f"runc could not start the container in {bundle}: {_reason(self._log(bundle))}")
        return int(pid_file.read_text()) if detach else code

    def _run(self, bundle: Path, arguments: list[str]) -> int:
        log = ["--log", str(self._log(bundle)), "--log-format", "json"]
        command = [self.program, "--root", str(self.state), *log, *arguments]
        if str(self.cgroup_mount) != _RUNC_CGROUP:
            script = 'mount --bind "$1" "$2"; shift 2; exec "$@"'
            command = ["unshare", "--mount", "sh", "-ec", script, "sh", str(self.cgroup_mount), _RUNC_CGROUP, *command]
        return self.call(command, bundle)

    def _log(self, bundle: Path) -> Path:
        return bundle / "log.json"


def _reason(log: Path) -> str:
    lines = log.read_text().splitlines() if log.exists() else []
    messages = [str(json.loads(line).get("msg")) for line in lines if '"error"' in line]
    return messages[-1] if messages else "it gave no reason"


def find_runc(state: Path, call: Call) -> Runc:
    """runc, ready for use. Raises GadgetError, which names what is missing, if this machine cannot run containers."""
    if sys.platform != "linux":
        raise GadgetError("the demo runs containers, which needs Linux", "a cluster: kubectl gadget trace open -A")
    if os.geteuid() != 0:
        raise GadgetError(
            "the demo starts containers and loads BPF programs, which needs root", "sudo kubectl gadget demo"
        )
    program = find_program("runc", "runc")
    mount = cgroup2_mount()
    if not os.access(mount, os.W_OK):
        raise GadgetError(
            f"cgroup v2 at {mount} is read-only here, so no container can be started",
            "run it on the machine, not in a container",
        )
    return Runc(program, state, mount, call)


def find_program(name: str, package: str) -> str:
    """The path of a program. Raises GadgetError, which names Debian's package, if it is missing."""
    found = shutil.which(name, path=_SEARCH)
    if found is None:
        raise GadgetError(f"the demo needs {name}, which is not installed", f"sudo apt-get install {package}")
    return found


def cgroup2_mount(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path:
    """The mount point of cgroup v2 (proc_pid_mountinfo(5)). Raises GadgetError if there is none."""
    for line in mountinfo.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 "):
            return Path(fields.split()[4])
    raise GadgetError(
        "cgroup v2 is not mounted on this machine, and containers are distinguished by it",
        "boot with systemd.unified_cgroup_hierarchy=1, or: mount -t cgroup2 none /mnt",
    )


# Removal: processes, cgroups and the state folder, in this order; only the folder and the cgroup that contain
# everything have to be known. A killed process leaves its cgroup a moment later, and until then the kernel refuses to
# remove the cgroup.

DEADLINE = 10.0
"""Maximum seconds for killed processes to leave their cgroups."""


def sweep(state: Path, cgroup: Path) -> None:
    """Kills all processes below `cgroup` and removes it and the folder `state`. Raises TimeoutError if it stays
    busy."""
    give_up = time.monotonic() + DEADLINE
    while cgroup.is_dir() and kill_all(cgroup):
        if time.monotonic() > give_up:
            raise TimeoutError(f"processes in {cgroup} do not end")
        time.sleep(0.01)
    while cgroup.is_dir() and not remove_cgroups(cgroup):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{cgroup} cannot be removed")
        time.sleep(0.01)
    if state.is_dir():
        shutil.rmtree(state)


def kill_all(cgroup: Path) -> int:
    """Kills every process below `cgroup` once and returns their number."""
    pids = [int(pid) for procs in cgroup.rglob("cgroup.procs") for pid in _read(procs).split()]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended by itself
            continue
    return len(pids)


def remove_cgroups(cgroup: Path) -> bool:
    """Removes the cgroups from the leaves up. Returns False if the kernel reports one as busy."""
    folders = [Path(folder) for folder, _, _ in os.walk(cgroup, topdown=False)]
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # EBUSY: a process is still exiting
            return False
    return True


def _read(procs: Path) -> str:
    try:
        return procs.read_text()
    except OSError:  # the cgroup is gone, or cannot hold processes (EOPNOTSUPP)
        return ""
