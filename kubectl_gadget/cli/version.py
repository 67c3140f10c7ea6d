"""`kubectl gadget version`: the versions of this program and, if a cluster is reachable, of the agents.

It prints the client's version even without a cluster, so it reports an unreachable cluster on standard error and does
not fail.
"""

import json
import platform
import re
import sys
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget import __version__
from kubectl_gadget.cli.cluster import connect, wait_for
from kubectl_gadget.cli.flags import SHOW, ClusterFlags, ScopeFlags, Switch, Text, TypedOnly, flag, format_flag
from kubectl_gadget.cli.printing import print_json, say
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.output.registry import VERSIONS
from kubectl_gadget.wire.frames import VERSION

if TYPE_CHECKING:
    from kubectl_gadget.agents.node_status import NodeStatus

_SECONDS = 10.0
RELEASES = "https://api.github.com/repos/kubectl-gadget/kubectl-gadget/releases/latest"
Format = Annotated[Text, format_flag(VERSIONS)]
ClientOnly = Annotated[Switch, flag(SHOW, "--client", "Do not ask the cluster"), TypedOnly.ACTION]

Check = Annotated[
    Switch, flag(SHOW, "--check", "Ask github.com for the latest release; no other command does"), TypedOnly.ACTION
]


def version(
    scope: ScopeFlags, cluster: ClusterFlags, client: ClientOnly = None, check: Check = None, output: Format = None
) -> int:
    ours: dict[str, str | int] = {
        "version": __version__,
        "protocol": VERSION,
        "python": platform.python_version(),
        "platform": f"{platform.system()}/{platform.machine()}".lower(),
    }
    if check:
        ours["latest"] = latest_release()
    agents = None if client else _agents(cluster)
    if output == "json":
        print_json({"client": ours} | ({} if agents is None else {"agents": agents}))
        return 0
    sys.stdout.write(f"Client: {__version__} (protocol {VERSION}, Python {ours['python']}, {ours['platform']})\n")
    if check:
        newer = _numbers(str(ours["latest"])) > _numbers(__version__)
        upgrade = "; to upgrade: pipx upgrade kubectl-gadget" if newer else ""
        sys.stdout.write(f"Latest release: {ours['latest']}{upgrade}\n")
    for found in sorted({str(agent["version"]) for agent in agents or ()}):
        count = sum(agent["version"] == found for agent in agents or ())
        sys.stdout.write(f"Agents: {found} on {count} of {len(agents or ())} nodes\n")
    return 0


def latest_release(url: str = RELEASES) -> str:
    """Returns the version of the latest release. Raises GadgetError."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=_SECONDS) as answer:
            tag = json.loads(answer.read(1 << 20))["tag_name"]
    except HTTPError as error:
        why = "there is none yet" if error.code == 404 else f"{error.code} {error.reason}"
        raise GadgetError(f"cannot find the latest release: {why}", url) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = str(getattr(error, "reason", None) or error)
        raise GadgetError(f"cannot ask for the latest release: {why}", "check the network, or HTTPS_PROXY") from error
    if not _numbers(str(tag)):
        raise GadgetError(f"the latest release has no version: {tag!r:.60}", url)
    return str(tag).removeprefix("v")


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version such as 0.1.0 or v0.1.0; empty when it is none."""
    found = re.fullmatch(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version)
    return tuple(map(int, found.groups())) if found else ()


def _agents(cluster: ClusterFlags) -> list[dict[str, object]] | None:
    """The deployed agents; None if no cluster could be reached."""
    from kubectl_gadget.kube.kubeconfig import has_kubeconfig

    if not has_kubeconfig(cluster.options()):
        return None
    try:
        nodes = wait_for(_ask(cluster))
    except GadgetError as error:
        say(f"the agents did not answer: {error}")
        return None
    except TimeoutError:
        say(f"the agents did not answer: the cluster did not answer within {_SECONDS:.0f} s")
        return None
    return [
        {"node": node.node, "version": node.hello.agent if node.hello else None, "image": node.image}
        for node in nodes
        if node.pod is not None
    ]


async def _ask(cluster: ClusterFlags) -> "list[NodeStatus]":
    import asyncio

    from kubectl_gadget.agents.node_status import status

    async with asyncio.timeout(_SECONDS):
        return await status(connect(cluster), cluster.agents())
