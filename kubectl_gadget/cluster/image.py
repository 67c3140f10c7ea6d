"""The agent's image: the one place that names it.

The trap: a release replaces the tag by a digest here, and nowhere else.
"""

from kubectl_gadget import __version__
from kubectl_gadget.cluster.options import AgentOptions

DEFAULT_IMAGE = f"ghcr.io/kubectl-gadget/agent:{__version__}"


def image_of(options: AgentOptions) -> str:
    """The image that agents are started from."""
    image = options.image or DEFAULT_IMAGE + ("-bcc" if options.bcc else "")
    return mirrored(image, options.image_mirror) if options.image_mirror else image


def mirrored(image: str, mirror: str) -> str:
    """The image with `mirror` in the place of its registry. As container runtimes read names: a first part with a dot
    or a colon, or localhost, is a registry, and a name without one is Docker Hub's."""
    first, slash, rest = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path = rest
    else:
        path = image if slash else f"library/{image}"
    return f"{mirror.rstrip('/')}/{path}"
