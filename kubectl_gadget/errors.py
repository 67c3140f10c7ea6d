"""Every error that a user can meet, as one small tree.

    GadgetError                 something failed; the message says what, where and why, `remedy` says what to do
    ├── UsageError              the command line, a filter or a gadget description is wrong (exit code 2)
    ├── FrameError              a node's byte stream is not what the protocol allows
    ├── AgentError              a node cannot run the gadget (no BTF, verifier, not root, …)
    └── ClusterError            the API server refused, or could not be reached
        ├── ForbiddenError      RBAC: verb, resource and namespace are named, and nothing is retried
        └── DeployError         an agent pod did not come up

The trap: an error that is caught and not shown helps nobody, so only `cli.main` turns these into text.
"""


class GadgetError(Exception):
    """Something failed. `str(error)` is one or more finished lines for people, without a traceback.

    `remedy`, when there is one, is what the user can do; it is printed on its own line after "try: ".
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class UsageError(GadgetError):
    """What the user typed, or wrote in a file, cannot be understood."""

    exit_code = 2


class FrameError(GadgetError):
    """A byte stream broke the protocol of docs/protocol.md."""


class AgentError(GadgetError):
    """A node cannot do what was asked of it."""


class ClusterError(GadgetError):
    """The API server refused a request or could not be reached."""


class ForbiddenError(ClusterError):
    """RBAC does not allow it. Never retried."""


class DeployError(ClusterError):
    """An agent pod did not come up."""
