"""One agent per node: the resident one if there is one, else one started on demand; and a session in it.

A thousand nodes ask at the same moment, so requests to the API server that serve all of them are made once.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.boot import open_agent, open_command
from kubectl_gadget.agents.on_demand import REMEDY, OnDemandAgents, Say
from kubectl_gadget.agents.pod_readiness import is_running, wait_running
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.exec import ExecStream, open_exec
from kubectl_gadget.kube.failure import Access, StatusError, UnreachableError
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import PODS, Object
from kubectl_gadget.wire.session_command import NO_GADGETS, SessionCommand

USER_REMEDY = "ask to be added to the group kubectl-gadget-users, see manifests/rbac-user.yaml"
FRESH_SECONDS = 1.0
"""Seconds for which a list of resident agents stays valid."""
_HANDSHAKES = 64
"""Handshakes in parallel. A thousand together would all end late, many of them too late."""
_Pod = tuple[str, str]
"""Namespace and name."""
RETURN_SECONDS = 30.0
"""Seconds to wait for a resident agent that is gone: its DaemonSet replaces it only after its complete end."""


class Agents:
    """The agents of one run. Callers must await `close` at the end; it removes what this run started, and only that."""

    def __init__(
        self,
        api: Api,
        options: AgentOptions,
        tasks: Tasks,
        say: Say = lambda _node, _text: None,
        run: str | None = None,
        note: Callable[[str], object] = lambda _text: None,
        session: SessionCommand = NO_GADGETS,
    ) -> None:
        """`tasks` owns what keeps started agents alive. `say` gets progress of starting agents, and `note` what users
        should know about running ones. `session` is what the commands of sessions declare."""
        self._session = session
        self._api = api
        self._options = options
        self._say = say
        self._note = note
        self._is_noted = False
        self.run = run or secrets.token_hex(4)
        gadgets = (f"bcc {options.bcc_tool}".strip(),) if options.bcc else session.gadgets or ()
        self._on_demand = OnDemandAgents(api, options, tasks, self.run, say, gadgets)
        self._pods: dict[str, _Pod] = {}
        self._residents: dict[str, Object] = {}
        self._had_residents: set[str] = set()
        """nodes that had one at some time during this run"""
        self._listed_at = float("-inf")
        self._lock = asyncio.Lock()
        self._handshakes = asyncio.Semaphore(_HANDSHAKES)
        self._reached = False
        """True if any handshake of this run succeeded"""

    async def open(self, node: str) -> ExecStream:
        """Opens a session with the agent on `node`, which is started if there is none. Also used to reconnect.

        Raises ForbiddenError, DeployError or another ClusterError. Cancelling it leaves the pod to `close`.
        """
        known = node in self._pods
        pod = self._pods.get(node) or await self._find_or_start(node)
        try:
            return await self._exec(node, pod)
        except StatusError as error:
            self._pods.pop(node, None)
            self._residents.pop(node, None)
            # The pod may have been deleted or replaced since the last session.
            if not known or error.code not in (400, 404, 500):
                raise
        return await self._exec(node, await self._find_or_start(node))

    async def open_resident(self, node: str) -> ExecStream | None:
        """Opens a session with the resident agent on `node`, if any. None also after errors, which `open` reports."""
        with suppress(GadgetError):
            resident = (await self._list_residents()).get(node)
            if resident is not None and is_running(resident):
                pod = self._options.namespace, resident["metadata"]["name"]
                stream = await self._exec(node, pod)
                self._pods[node] = pod
                self._note_unchanged(resident)
                return stream
        return None

    async def look_ahead(self) -> None:
        """Lists the resident agents while the run still looks for its nodes, so that no session waits for it. If there
        are none, also checks what starting agents needs."""
        with suppress(GadgetError):  # which the sessions get as well
            if not await self._list_residents():
                self._on_demand.look_ahead()

    async def require(self, wanted: Sequence[Access]) -> None:
        """Checks all rights that a run needs, `wanted` and those to reach agents, before anything is started.

        Raises ForbiddenError that lists everything missing, also the rights to start agents if no resident ones exist.
        """
        listing = Access("list", PODS.plural, self._options.namespace)
        session = Access("create", PODS.plural, self._options.namespace, "exec")
        missing = await self._api.missing([*wanted, listing, session])
        if not missing:
            return
        remedy = USER_REMEDY
        if listing not in missing and not await self._list_residents():
            missing += await self._on_demand.missing()
            remedy = REMEDY
        raise self._api.forbidden(list(dict.fromkeys(missing)), "trace", remedy)

    async def close(self) -> list[str]:
        """Removes the pods that this run started, and returns the names of what may remain."""
        return await self._on_demand.close()

    async def _exec(self, node: str, pod: _Pod) -> ExecStream:
        resident = self._residents.get(node)
        where = (*pod, manifests.CONTAINER)
        async with self._handshakes:
            try:
                stream = await self._start(resident, where, node)
            except UnreachableError:
                if not self._reached:
                    raise
                # Others got through, so the API server or this machine is overloaded.
                stream = await self._start(resident, where, node)
        self._reached = True
        return stream

    async def _start(self, resident: Object | None, where: tuple[str, str, str], node: str) -> ExecStream:
        """Contained agents run only what their pod contains; other pods receive the agent of this client."""
        if self._options.bcc:
            return await open_exec(
                self._api, *where, (*manifests.AGENT_COMMAND, "bcc", f"--tool={self._options.bcc_tool}"), node
            )
        if resident is not None and manifests.is_contained(resident):
            return await open_command(self._api, *where, manifests.contained_command(self._session, resident), node)
        return await open_agent(self._api, *where, manifests.session_words(self._session), node)

    async def _find_or_start(self, node: str) -> _Pod:
        resident = await self._find_resident(node)
        self._note_unchanged(resident)
        namespace = self._options.namespace
        if resident is None:
            pod = await self._on_demand.start(node)
            namespace = pod["metadata"]["namespace"]
        elif is_running(resident):
            pod = resident
        else:
            name, seconds = resident["metadata"]["name"], self._options.start_timeout
            pod = await wait_running(self._api, namespace, name, seconds, lambda text: self._say(node, text))
        self._pods[node] = namespace, pod["metadata"]["name"]
        return self._pods[node]

    def _note_unchanged(self, resident: Object | None) -> None:
        """Reports, once, which agent flags have no effect on a running agent, and whether its version differs."""
        if resident is None or self._is_noted:
            return
        container = resident["spec"]["containers"][0]
        flags = ["--image"] if self._options.image not in (None, container["image"]) else []
        if self._options.privileged and not (container.get("securityContext") or {}).get("privileged"):
            flags.append("--privileged")
        if flags:
            self._is_noted = True
            have = "has" if len(flags) == 1 else "have"
            text = f"using resident agents; {' and '.join(flags)} {have} no effect on them"
            self._note(f"warning: {text} (try: kubectl gadget deploy {flags[0]} …)")
        elif manifests.is_of_another_client(resident):
            self._is_noted = True
            text = "resident agents have another version, so this client sends its own agent to each node"
            self._note(f"note: {text} (try: kubectl gadget deploy)")

    async def _find_resident(self, node: str) -> Object | None:
        until = time.monotonic() + RETURN_SECONDS
        while True:
            resident = (await self._list_residents()).get(node)
            if resident is not None or node not in self._had_residents or time.monotonic() > until:
                return resident
            await asyncio.sleep(FRESH_SECONDS)

    async def _list_residents(self) -> dict[str, Object]:
        if self._options.bcc:
            return {}
        asked = time.monotonic()  # those that wait for the lock share the next list
        async with self._lock:
            if asked - self._listed_at > FRESH_SECONDS:
                keep = partial(_kept, [])
                pods = await self._api.find(
                    PODS, self._options.namespace, labels=manifests.RESIDENT_SELECTOR, keep=keep
                )
                self._residents = {
                    pod["spec"]["nodeName"]: pod
                    for pod in pods.items
                    if pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]
                }
                self._had_residents |= self._residents.keys()
                self._listed_at = time.monotonic()
            return self._residents


def _kept(shared: list[object], pod: Object) -> Object:
    """Returns what is read here of a resident agent's pod: a fiftieth, for each of thousands of nodes. What pods of one
    DaemonSet have in common is collected in `shared`."""

    def common(part: object) -> object:
        if part not in shared:
            shared.append(part)
        return shared[shared.index(part)]

    metadata, spec = pod["metadata"], pod["spec"]
    container = {key: spec["containers"][0].get(key) for key in ("image", "command", "securityContext")}
    states = [dict.fromkeys(one.get("state") or ()) for one in pod.get("status", {}).get("containerStatuses") or ()]
    kept = {name: metadata[name] for name in ("name", "deletionTimestamp") if name in metadata}
    return {
        "metadata": {**kept, "labels": common(metadata.get("labels") or {})},
        "spec": {"nodeName": spec.get("nodeName"), "containers": common([container])},
        "status": common({"containerStatuses": [{"state": state} for state in states]}),
    }
