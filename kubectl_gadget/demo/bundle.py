"""OCI bundles as laid out by containerd's CRI plugin: `config.json` with its annotations, and `rootfs`.

The root file system is Debian's static busybox. The trap: bundles request no rlimits, no oom_score_adj and no cgroup
limits, since a machine may lack the capability or the controller, and runc would refuse the container.

Format: github.com/opencontainers/runtime-spec (config.md, config-linux.md). Annotations: containerd,
pkg/cri/annotations.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CAPABILITIES = [
    *("CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD"),
    *("CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"),
    "CAP_SYS_CHROOT",
]
"""What containerd gives a container that does not ask for others (pkg/oci/spec.go)."""
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
"""The place where runc expects cgroup v2 (demo/runc.py)."""
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
    """whether it has every capability, and the node's whole cgroup tree"""
    shares_processes: bool = False
    """whether it sees the sandbox's processes, as with shareProcessNamespace"""
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

    def config(self) -> dict[str, Any]:
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


def _shown(folder: Path) -> dict[str, Any]:
    options = ["rbind", "ro", "nosuid", "nodev"]
    return {"destination": str(folder), "type": "bind", "source": str(folder), "options": options}


def _own_capabilities() -> list[str]:
    """The capabilities that containers can get: those that this process itself may have."""
    status = Path("/proc/self/status").read_text()
    bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
    return [f"CAP_{name}" for number, name in enumerate(_EVERY_CAPABILITY.split()) if bounding >> number & 1]


def _mounts() -> list[dict[str, Any]]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": _TMP},
    ]
