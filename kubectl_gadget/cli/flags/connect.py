"""Connects to the API server according to the command line's flags, for commands that are not runs."""

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, TypeVar

from kubectl_gadget.cli.flags.flag_sets import ClusterFlags

if TYPE_CHECKING:
    from kubectl_gadget.kube.api.requests import Api

Answer = TypeVar("Answer")


def wait_for(work: Coroutine[object, None, Answer]) -> Answer:
    """Runs `work` to completion. asyncio is imported here, since `deploy --help` does not need it."""
    import asyncio

    return asyncio.run(work)


def connect(cluster: ClusterFlags) -> "Api":
    """The API server that these flags and the kubeconfig specify. Does not connect yet; prints warnings to standard
    error.

    Raises ClusterError or UsageError if the kubeconfig does not specify one.
    """
    from kubectl_gadget.kube.api.kubeconfig import load
    from kubectl_gadget.kube.api.requests import Api

    return Api(load(cluster.options()), lambda warning: say(f"Warning: {warning}"))


def say(text: str) -> None:
    """Prints a line to standard error; text from the cluster cannot send escapes to the terminal."""
    from kubectl_gadget.output.escape import escape

    sys.stderr.writelines(escape(line) + "\n" for line in text.split("\n"))
    sys.stderr.flush()
