"""The way from the command line's flags to the API server, for commands that are not runs."""

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, TypeVar

from kubectl_gadget.cli.flags.flag_sets import ClusterFlags

if TYPE_CHECKING:
    from kubectl_gadget.cluster.api.requests import Api

Answer = TypeVar("Answer")


def wait_for(work: Coroutine[object, None, Answer]) -> Answer:
    """Runs `work` to its end. asyncio is imported here, since `deploy --help` needs none of it."""
    import asyncio

    return asyncio.run(work)


def connect(cluster: ClusterFlags) -> "Api":
    """The API server that these flags and the kubeconfig name. Connects to nothing yet; warnings go to standard error.

    Raises ClusterError or UsageError when the kubeconfig does not say which.
    """
    from kubectl_gadget.cluster.api.kubeconfig import load
    from kubectl_gadget.cluster.api.requests import Api

    return Api(load(cluster.options()), lambda warning: say(f"Warning: {warning}"))


def say(text: str) -> None:
    """A line on standard error; what came from the cluster cannot send escapes to the terminal."""
    from kubectl_gadget.output.escape import escape

    sys.stderr.writelines(escape(line) + "\n" for line in text.split("\n"))
    sys.stderr.flush()
