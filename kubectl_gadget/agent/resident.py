"""`python3 -I /agent …`: the agent in the pods of `deploy`, from the ConfigMaps that are mounted at /agent.

It is /agent/__main__.py, beside one payload for each architecture. The trap: it must be valid for old Pythons, and
everything that runs in these pods comes this way: the main process, the probe of it, the process for installed policies
and all that contained agents do.
"""

import os
import sys

OTHER = "try: kubectl gadget deploy --image docker.io/library/python:3.13-slim"


def fail(text: str) -> None:
    sys.stderr.write(f"kubectl-gadget: {text}\n")
    sys.exit(3)


if sys.version_info < (3, 11):  # noqa: UP036
    fail(f"this image has Python {sys.version.split()[0]}, and the agent needs 3.11 or newer. {OTHER}")
try:
    if not os.confstr("CS_GNU_LIBC_VERSION"):
        raise ValueError
except ValueError:
    fail(f"this image has another C library than glibc (musl, as in Alpine). {OTHER}")
payload = f"{os.path.dirname(__file__)}/{os.uname().machine}.zip"
if not os.path.exists(payload):
    fail(f"this node is {os.uname().machine}, and there is no agent for it")
sys.path[0] = payload
try:
    import zlib  # noqa: F401

    from kubectl_gadget.agent.__main__ import main
except ImportError as error:
    fail(f"this image's Python is incomplete, or the ConfigMap is: {error}. {OTHER}")
sys.exit(main(sys.argv[1:]))
