"""Pods of two nodes, each with a cable to its node's bridge, and a router between the bridges.

Deeds run as processes of a pod: in its cgroup and in its network namespace. Both belong to a process from its first
socket on, so each deed is a process of its own, and talks to the test through a pipe.
"""

import ctypes
import json
import multiprocessing
import os
import subprocess
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from kubectl_gadget.demo.pods import DemoPod, DemoPods, lay_cable, make_bridge, namespace_of
from tests.bpf.network import CLONE_NEWNET, ip
from tests.flows.command import flows
from tests.vm import modules

_FORK = multiprocessing.get_context("fork")
_SLEEP = ["/bin/sleep", "100003"]
_LIBC = ctypes.CDLL(None, use_errno=True)
_MOST_SECONDS = 120.0
"""Longer than anything here takes on the slowest machine."""


class Deed:
    """A process in a pod. What it says with its pipe is heard here, in its order."""

    def __init__(self, pod: DemoPod, deed: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._pipe, theirs = _FORK.Pipe()
        self._process = _FORK.Process(target=_inside, args=(pod, deed, theirs, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid

    def heard(self) -> Any:
        """The next thing it says, or what it returns."""
        assert self._pipe.poll(_MOST_SECONDS), "it says nothing"
        found = self._pipe.recv()
        assert not isinstance(found, _Failure), found
        return found

    @property
    def has_spoken(self) -> bool:
        """True if heard() would return at once."""
        return self._pipe.poll()

    def say(self, value: Any) -> None:
        """To the deed, which receives it from its pipe."""
        self._pipe.send(value)

    def end(self) -> None:
        """Ends it, if it has not ended. With -9: a fork may have inherited a handler of SIGTERM."""
        self._process.kill()
        self._process.join()


class _Failure(str):
    """What the deed raised."""


def _inside(pod: DemoPod, deed: Callable[..., Any], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    try:
        container = next(iter(pod.containers.values()))
        (container.cgroup / "cgroup.procs").write_text(str(os.getpid()))
        with open(namespace_of(pod.sandbox.pid)) as namespace:
            if _LIBC.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        Path("/proc/self/comm").write_text(deed.__name__[:15])
        pipe.send(deed(pipe, *arguments))
    except BaseException:
        pipe.send(_Failure(traceback.format_exc()))


class PodNetwork:
    """A context manager. `nodes` are the folders of each node's pods, and the names of their cgroups."""

    def __init__(self, run: Path) -> None:
        self.name = f"flows-{uuid.uuid4().hex[:8]}"
        self.nodes = [DemoPods(run / f"{self.name}-{number}") for number in (1, 2)]
        self._router = f"/run/netns/{self.name}"
        self.cgroups = [f"{self.name}-{number}" for number in (1, 2)]
        self.block = f"10.{100 + uuid.uuid4().int % 100}"
        """how its addresses begin; ends of flows find each other by addresses, so another run here has others"""
        self.addresses: dict[str, str] = {}
        self.pods: dict[str, DemoPod] = {}
        self.cables: dict[str, str] = {}
        """the router's ends of the pods' cables"""
        self._count = 0
        self._deeds: list[Deed] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        modules.load("bridge", "veth", "nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_reject_inet", "nft_ct")
        for node in self.nodes:
            self._stack.enter_context(node)
        ip("netns", "add", self.name)
        self._stack.callback(ip, "netns", "del", self.name)
        subprocess.run(
            ["ip", "netns", "exec", self.name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"], check=True
        )
        for number in (1, 2):
            make_bridge(f"br{number}", f"{self.block}.{number}.1/24", self._router)
        return self

    def __exit__(self, *error: object) -> None:
        self.forget_deeds()
        self._stack.close()

    def router(self, *words: str) -> None:
        """`ip` in the router."""
        ip(*words, within=self._router)

    def nft(self, rules: str, pod: DemoPod | None = None) -> None:
        """Replaces all rules of the router, or of a pod."""
        namespace = self._router if pod is None else namespace_of(pod.sandbox.pid)
        # A closing brace has to be followed by the end of the line.
        text = "flush ruleset\n" + rules.replace("} }", "}\n}") + "\n"
        subprocess.run(["nsenter", f"--net={namespace}", "nft", "-f", "-"], input=text, text=True, check=True)

    def pod(self, node: int, namespace: str, name: str) -> DemoPod:
        """Starts a pod on node 1 or 2. Its namespace is nobody else's; flows() gives it as it is said here."""
        pod = self.nodes[node - 1].start_pod(f"{namespace}-{self.name}", name, {"main": _SLEEP})
        self.pods[name] = pod
        self._count += 1
        address = self.addresses[name] = f"{self.block}.{node}.{9 + self._count}"
        cable = self.cables[name] = f"cable{self._count}"
        lay_cable(pod.sandbox.pid, cable, f"br{node}", [f"{address}/24"], self._router)
        ip("route", "add", "default", "via", f"{self.block}.{node}.1", within=namespace_of(pod.sandbox.pid))
        return pod

    @contextmanager
    def flows(self, *arguments: str) -> Iterator[list[dict[str, Any]]]:
        """What `kubectl gadget flows` tells of the pods here, as command.flows() gives it; others on this machine talk,
        too."""
        found: list[dict[str, Any]] = []
        # All that comes, also from others, lies in the node's memory until the client has read it.
        with flows("--local", "-A", "--ring-size", "32Mi", *arguments) as told:
            yield found
        mark = f"-{self.name}"
        found += [json.loads(text.replace(mark, "")) for text in map(json.dumps, told) if mark in text]

    def start(self, pod: DemoPod, deed: Callable[..., Any], *arguments: Any) -> Deed:
        """Starts a deed as a process of the pod: it gets its pipe and the arguments."""
        started = Deed(pod, deed, arguments)
        self._deeds.append(started)
        return started

    def forget_deeds(self) -> None:
        """Ends all that still run."""
        while self._deeds:
            self._deeds.pop().end()
