"""The agents' images. The texts that start agents in pods also name the default image, as a remedy.

The agent is sent by the run, or lies in a ConfigMap, so any image with Python will do; our own image already has the
agent and starts faster. The trap: texts and help name the default image by its tag, but a release pulls it by digest.
"""

from kubectl_gadget import __version__
from kubectl_gadget.kube.cluster_options import AgentOptions

DEFAULT_IMAGE = "docker.io/library/python:3.13-slim"
DEFAULT_DIGEST = ""
"""Of the default image's index of all architectures. `make digest` writes it; empty: the tag decides."""
OUR_IMAGE = f"ghcr.io/kubectl-gadget/agent:{__version__}"
"""The name that `make image` gives it."""


def image_of(options: AgentOptions) -> str:
    """Returns the agents' image. A plain Python image does not have the bcc tools, so they use one of ours."""
    default = f"{DEFAULT_IMAGE}@{DEFAULT_DIGEST}" if DEFAULT_DIGEST else DEFAULT_IMAGE
    image = options.image or (f"{OUR_IMAGE}-bcc" if options.bcc else default)
    return mirrored(image, options.image_mirror) if options.image_mirror else image


def mirrored(image: str, mirror: str) -> str:
    """Replaces the image's registry by `mirror`. The first part of a name counts as a registry, as in container
    runtimes, if it has a dot or a colon, or is localhost; a name without one belongs to Docker Hub."""
    first, slash, rest = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path = rest
    else:
        path = image if slash else f"library/{image}"
    return f"{mirror.rstrip('/')}/{path}"
