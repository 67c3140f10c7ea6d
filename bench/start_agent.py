"""The stages of an agent's start for trace open, as JSON; run by bench/start.py.

The agent imports before it does anything, so its modules are imported here after the first timestamp.
"""

import time

seen = {"interpreter": time.time()}

from kubectl_gadget.agent.bpf import libbpf  # noqa: E402
from kubectl_gadget.agent.bpf.object import BpfObject  # noqa: E402
from kubectl_gadget.agent.containers.tracking import Containers  # noqa: E402
from kubectl_gadget.agent.session.session import hello  # noqa: E402
from kubectl_gadget.agent.sources.source import node_context  # noqa: E402
from kubectl_gadget.agent.sources.stream import StreamSource  # noqa: E402
from kubectl_gadget.wire.client_messages import FilterSpec, GadgetSpec  # noqa: E402

libbpf.load()
seen["imports"] = time.time()


def main() -> None:
    """Runs the stages in the order of a session."""
    hello()
    seen["HELLO"] = time.time()
    containers = Containers()
    containers.set_filter(FilterSpec(host=True))
    seen["containers"] = time.time()

    import json
    import os
    import sys

    from kubectl_gadget.gadgets import load_gadget, object_bytes
    from kubectl_gadget.run.request import build
    from kubectl_gadget.run.run_options import GadgetRun

    request = build([GadgetRun(load_gadget("trace_open"))], [{}], 4 << 20)
    spec = request.gadgets[0]
    assert isinstance(spec, GadgetSpec)
    elf = object_bytes("trace_open", os.uname().machine)
    skipped = time.time() - seen["containers"]  # done by the client

    def stage(name: str, method: str) -> None:
        function = getattr(BpfObject, method)

        def called(*words: object) -> object:
            found = function(*words)
            seen[name] = time.time() - skipped
            return found

        setattr(BpfObject, method, called)

    stage("opened", "__init__")
    stage("loaded", "load")
    stage("attached", "attach")
    context = node_context(FilterSpec(), containers)
    source = StreamSource(spec, elf, context)
    sys.stdout.write(json.dumps(seen))
    source.detach()
    source.close()
    context.close()
    containers.close()


if __name__ == "__main__":
    main()
