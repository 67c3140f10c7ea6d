"""The fake cluster as a whole: start it, add nodes and pods, and get a kubeconfig for it.

It runs in the event loop of the test, so a test must not block while it talks to it; run a command line against it as a
child process, or in a thread.
"""

import functools
import json
import ssl
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets import pack_payload
from tests.fake_cluster.exec import AGENT, ServeExec, serve_exec
from tests.fake_cluster.faults import Faults
from tests.fake_cluster.kubelet import Kubelet
from tests.fake_cluster.server import Server
from tests.fake_cluster.store import Object, Store, now


@functools.cache
def build_payload() -> None:
    """Builds the agent from the current sources, once: runs send it to the cluster."""
    if not (pack_payload.BUILT / "contained.json").is_file():
        return  # nothing was compiled: only fake agents run, see tests/conftest.py
    try:
        pack_payload.build()
    except (GadgetError, OSError) as error:
        warnings.warn(f"runs send an agent that may be older than its sources: {error}", stacklevel=1)


class FakeCluster:
    """An async context manager. `agent` is the command that a session runs, on all nodes or by node; `serve_exec`
    replaces it as a handler."""

    def __init__(
        self,
        nodes: int | Sequence[str] = 2,
        agent: Sequence[str] | Mapping[str, Sequence[str]] = AGENT,
        tls: bool = False,
        port: int = 0,
        environment: Mapping[str, str] | None = None,
        serve_exec: ServeExec = serve_exec,
    ) -> None:
        self._serve_exec = serve_exec
        self.nodes = [f"node-{number + 1}" for number in range(nodes)] if isinstance(nodes, int) else list(nodes)
        self.faults = Faults()
        self.store = Store()
        self.url = ""
        self.token = "the-token"
        self.certificate_authority: str | None = None
        self._agent = agent
        self._tls = tls
        self._port = port
        self._environment = dict(environment or {})

    async def __aenter__(self) -> Self:
        build_payload()
        self.kubelet = Kubelet(self.store, self.faults)
        self.server = Server(self.store, self.faults, self.kubelet, self._agent_of, self._environment, self._serve_exec)
        self._runner = web.AppRunner(self.server.app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._make_tls() if self._tls else None)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http{'s' if self._tls else ''}://{host}:{port}"
        self.add_namespace("default")
        for node in self.nodes:
            self.add_node(node)
        return self

    async def __aexit__(self, *error: Any) -> None:
        # Exec and watch handlers wait for their clients, which a failed test may not have closed.
        await self._runner.cleanup()
        await self.kubelet.close()

    def _agent_of(self, node: str) -> tuple[str, ...]:
        return tuple(self._agent[node] if isinstance(self._agent, Mapping) else self._agent)

    def _make_tls(self) -> ssl.SSLContext:
        import trustme

        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "kubernetes.test").configure_cert(context)
        self.certificate_authority = authority.cert_pem.bytes().decode()
        return context

    def break_watches(self) -> None:
        """Cuts the connections of all watches."""
        self.server.break_watches()

    def add_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> Object:
        metadata = {"name": name, "labels": dict(labels or {})}
        return self.store.add("namespaces", "", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def add_node(self, name: str, labels: Mapping[str, str] | None = None, ready: bool = True) -> Object:
        """Adds a node; `labels` are added to kubernetes.io/os=linux."""
        metadata = {"name": name, "labels": {"kubernetes.io/os": "linux", **(labels or {})}}
        condition = {"type": "Ready", "status": "True" if ready else "Unknown", "reason": "NodeStatusUnknown"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"conditions": [condition]}}
        return self.store.add("nodes", "", node)

    def add_pod(
        self,
        name: str,
        node: str | None,
        namespace: str = "default",
        labels: Mapping[str, str] | None = None,
        containers: Sequence[str] = ("main",),
        phase: str = "Running",
        annotations: Mapping[str, str] | None = None,
        owners: Sequence[Object] = (),
        uid: str | None = None,
    ) -> Object:
        """Adds a user's pod, which is already running. `uid`: that of an existing container."""
        metadata: dict[str, Any] = {"name": name, "labels": dict(labels or {}), "annotations": dict(annotations or {})}
        metadata |= {"ownerReferences": list(owners)} if owners else {}
        metadata |= {"uid": uid} if uid else {}
        spec: dict[str, Any] = {"containers": [{"name": container, "image": "busybox"} for container in containers]}
        if node:
            spec["nodeName"] = node
        statuses = [
            {"name": container, "image": "busybox", "state": {"running": {"startedAt": now()}}, "restartCount": 0}
            for container in containers
        ]
        status = {"phase": phase, "containerStatuses": statuses}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
        return self.store.add("pods", namespace, pod)

    def delete_pod(self, name: str, namespace: str = "default") -> None:
        self.store.remove("pods", namespace, name)

    def pods(self, namespace: str) -> list[Object]:
        return self.store.list("pods", namespace)

    def kubeconfig(self, user: Mapping[str, Any] | None = None, namespace: str | None = None) -> dict[str, Any]:
        """A kubeconfig for this cluster; `user` replaces the user's token."""
        cluster: dict[str, Any] = {"server": self.url}
        if self.certificate_authority:
            import base64

            cluster["certificate-authority-data"] = base64.b64encode(self.certificate_authority.encode()).decode()
        context = {"cluster": "fake", "user": "tester"} | ({"namespace": namespace} if namespace else {})
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": cluster}],
            "users": [{"name": "tester", "user": dict(user) if user is not None else {"token": self.token}}],
            "contexts": [{"name": "fake", "context": context}],
        }

    def write_kubeconfig(self, path: Path, user: Mapping[str, Any] | None = None, namespace: str | None = None) -> Path:
        """Writes the kubeconfig to a file and returns the file. It is JSON, which is YAML and is written sooner."""
        path.write_text(json.dumps(self.kubeconfig(user, namespace)))
        return path
