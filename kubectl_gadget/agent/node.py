"""Small facts about the node and this process: its name, clocks, and what the agent itself uses.

The trap: a pod's host name is the pod's, so the node's name comes from $NODE_NAME there.
"""

import os
import time

PAGE = os.sysconf("SC_PAGE_SIZE")


def name() -> str:
    """The node's name: $NODE_NAME, which the pod's manifest sets, or else the host's."""
    return os.environ.get("NODE_NAME") or os.uname().nodename


def pod_uid() -> str:
    """The uid of the pod that this agent runs in: $POD_UID, which the pod's manifest sets; empty outside of one."""
    return os.environ.get("POD_UID", "")


def host() -> str:
    """Where the node's file system is mounted: $KUBECTL_GADGET_HOST in a pod, else "" for "right here"."""
    return os.environ.get("KUBECTL_GADGET_HOST", "").rstrip("/")


def pins() -> str:
    """Where installed policies are pinned on this node, as this process sees it."""
    return os.environ.get("KUBECTL_GADGET_PINS") or f"{host()}/sys/fs/bpf/kubectl-gadget"


def clocks() -> dict[str, int]:
    """Both clocks at the same moment, in ns; the realtime one is read between two readings of the other."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    real = time.time_ns()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return {"boot_ns": (before + after) // 2, "realtime_ns": real}


def usage() -> dict[str, int]:
    """CPU time of this process in ns, and its resident memory in bytes (mapped rings count)."""
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1])
    return {"cpu_ns": time.process_time_ns(), "rss_bytes": resident * PAGE}
