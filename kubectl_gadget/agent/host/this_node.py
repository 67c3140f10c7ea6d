"""Small facts about the node and this process: its name, clocks, and the agent's own usage.

The trap: a pod's host name is the pod's, so the node's name comes from $NODE_NAME there.
"""

import os
import time

from kubectl_gadget.agent.host import procfs

PAGE = os.sysconf("SC_PAGE_SIZE")
_OWN_V4 = "/32 host LOCAL"
"""The line after a local address in /proc/net/fib_trie."""
_LOOPBACK_OR_LINK_LOCAL_V4 = ("127.", "169.254.")
_LOOPBACK, _LINK_LOCAL = "10", "20"
"""Scopes in /proc/net/if_inet6."""
TRACEFS_FOLDERS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
NO_NAMESPACE = "_local"
"""In place of the namespace of agents that are not in a pod; no namespace can have this name."""


def name() -> str:
    """Returns the node's name: $NODE_NAME, which the pod's manifest sets, or else the host name."""
    return os.environ.get("NODE_NAME") or os.uname().nodename


def pod_uid() -> str:
    """Returns the uid of the agent's pod: $POD_UID, which the pod's manifest sets; "" outside of a pod."""
    return os.environ.get("POD_UID", "")


def pod_namespace() -> str:
    """Returns the namespace of that pod: $POD_NAMESPACE."""
    return os.environ.get("POD_NAMESPACE", "")


def is_contained() -> bool:
    """Returns True if this agent was deployed for contained sessions only."""
    return os.environ.get("KUBECTL_GADGET_CONTAINED") == "1"


def client() -> int:
    """Returns the PID of the client that started this agent on a machine without a cluster; 0 in a pod."""
    number = os.environ.get("KUBECTL_GADGET_CLIENT", "")
    return int(number) if number.isdecimal() else 0


def host() -> str:
    """Returns where the node's file system is mounted: $KUBECTL_GADGET_HOST in a pod, else "" for this root."""
    return os.environ.get("KUBECTL_GADGET_HOST", "").rstrip("/")


def pins() -> str:
    """Returns where the policies of this agent's deployment are pinned on this node, as this process sees it."""
    return f"{all_pins()}/{pod_namespace() or NO_NAMESPACE}"


def all_pins() -> str:
    """Returns the folder that has one folder for each deployment on this node, named by its namespace. It is in the bpf
    file system: $KUBECTL_GADGET_PINS, or where nodes have it. Pods that do not mount it reach it through the node's
    first process."""
    path = f"{host()}/sys/fs/bpf"
    mount = os.environ.get("KUBECTL_GADGET_PINS") or (path if os.path.isdir(path) else "/proc/1/root/sys/fs/bpf")
    return f"{mount}/kubectl-gadget-policies"


def boot_id() -> str:
    """Identifies the present boot of the machine, since boot time starts at 0 with each; "" when it cannot be read."""
    return procfs.read("/proc/sys/kernel/random/boot_id").decode().strip()


def addresses() -> list[str]:
    """Returns the node's own addresses, without loopback and link-local ones; IPv6 addresses with all zeros. Probes of
    the kubelet come from one of them, and the API server may not know it. They are read in the network namespace of our
    parent, the runtime, since a pod has its own. Empty when they cannot be read."""
    network = f"/proc/{os.getppid()}/net"
    v4, v6 = (procfs.read(f"{network}/{name}").decode().splitlines() for name in ("fib_trie", "if_inet6"))
    pairs = zip(v4, v4[1:], strict=False)  # noqa: RUF007  Python 3.9 has no pairwise()
    own = {line.split()[-1] for line, next_line in pairs if next_line.strip() == _OWN_V4 and "|--" in line}
    found = {address for address in own if not address.startswith(_LOOPBACK_OR_LINK_LOCAL_V4)}
    for digits, _, _, scope, *_ in map(str.split, v6):
        if scope not in (_LOOPBACK, _LINK_LOCAL):
            found.add(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
    return sorted(found)


def clocks() -> dict[str, int]:
    """Returns both clocks at the same moment, in ns; the realtime clock is read between two readings of the other."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    real = time.time_ns()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return {"boot_ns": (before + after) // 2, "realtime_ns": real}


def usage() -> dict[str, int]:
    """Returns CPU time of this process in ns, and its resident memory in bytes (including mapped rings)."""
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1])
    return {"cpu_ns": time.process_time_ns(), "rss_bytes": resident * PAGE}


def tracefs() -> str | None:
    """Returns where tracefs is mounted, which lists tracepoints and traceable functions; None when it is not."""
    return next((folder for folder in TRACEFS_FOLDERS if os.path.isdir(f"{folder}/events")), None)
