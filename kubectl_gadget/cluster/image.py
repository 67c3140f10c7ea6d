"""The agent's image: the one place that names it.

The trap: a release replaces the tag by a digest here, and nowhere else.
"""

from kubectl_gadget import __version__
from kubectl_gadget.cluster.options import AgentOptions

DEFAULT_IMAGE = f"ghcr.io/kubectl-gadget/agent:{__version__}"


def image_of(options: AgentOptions) -> str:
    """The image that agents are started from."""
    return options.image or DEFAULT_IMAGE + ("-bcc" if options.bcc else "")
