"""The agents' images. The texts that start agents in pods name the default one, too, as a remedy.

The agent travels with the run, or lies in a ConfigMap, so any image with Python does; ours, which has it already, is
the faster choice. The trap: a release replaces the tag by the digest that it resolves here, and nowhere else.
"""

from kubectl_gadget import __version__
from kubectl_gadget.cluster.options import AgentOptions

DEFAULT_IMAGE = "docker.io/library/python:3.13-slim"
OUR_IMAGE = f"ghcr.io/kubectl-gadget/agent:{__version__}"
"""As `make image` names it."""


def image_of(options: AgentOptions) -> str:
    """The image that agents run in. bcc's tools are not in Python's, so for them it is one of ours."""
    image = options.image or (f"{OUR_IMAGE}-bcc" if options.bcc else DEFAULT_IMAGE)
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
