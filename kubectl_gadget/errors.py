"""Every error that a user can meet, as one small tree.

    GadgetError                 something failed; the message says what, where and why, `remedy` says what to do
    ├── UsageError              the command line, a filter or a gadget description is wrong (exit code 2)
    ├── FrameError              a node's byte stream is not what the protocol allows
    ├── AgentError              a node cannot run the gadget (no BTF, verifier, not root, …)
    ├── InternalError           a fault of kubectl-gadget itself; its traceback is kept in a file
    └── ClusterError            the API server refused, or could not be reached
        ├── ForbiddenError      RBAC: verb, resource and namespace are named, and nothing is retried
        └── DeployError         an agent pod did not come up

An error that is caught but not shown is useless, so only `cli.main` turns these into text.
"""

import importlib
import os
from typing import Any

DEBUG = "KUBECTL_GADGET_DEBUG"
"""Environment variable: when set, an unexpected error shows where it came from."""


class GadgetError(Exception):
    """Something failed. `str(error)` is one or more complete lines for people, without a traceback.

    `remedy`, if there is one, is what the user can do; it is printed on its own line after "try: ".
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class UsageError(GadgetError):
    """The user's command line or file cannot be understood."""

    exit_code = 2


class FrameError(GadgetError):
    """A byte stream broke the protocol of docs/protocol.md."""


class AgentError(GadgetError):
    """A node cannot do what it was asked to do."""


class InternalError(GadgetError):
    """A bug in kubectl-gadget. It must not be blamed on the sender of the data that triggered it."""


def internal_error(error: BaseException) -> InternalError:
    """An unexpected exception as one line. Its traceback goes to a file, since the error may not occur again for a long
    time."""
    import traceback

    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    what = str(error).partition("\n")[0]
    message = f"internal error: {type(error).__name__}: {what}"
    return InternalError(message, _kept("".join(traceback.format_exception(error))))


def _kept(details: str) -> str:
    """Keeps a traceback in a file, or prints it if the user asked for that; returns what the user can do."""
    import sys
    import tempfile

    if os.environ.get(DEBUG):
        sys.stderr.write(details)
        return "report it with the traceback above"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="kubectl-gadget-", suffix=".txt", delete=False) as file:
            file.write(details)
    except OSError:
        return f"run it again with {DEBUG}=1 in the environment, and report its output"
    return f"report it with the traceback in {file.name}"


class ClusterError(GadgetError):
    """The API server refused a request or could not be reached."""


class ForbiddenError(ClusterError):
    """RBAC denies the request. It is never retried."""


class DeployError(ClusterError):
    """An agent pod did not come up."""


# Packages that only some commands need (`pip install 'kubectl-gadget[query]'`), imported when they are used.


def require(module: str, what: str, extra: str = "query") -> Any:
    """Imports a module of this extra. Raises UsageError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UsageError(
            f"{what} needs the package {package}: {error}", f"pip install 'kubectl-gadget[{extra}]'"
        ) from None
