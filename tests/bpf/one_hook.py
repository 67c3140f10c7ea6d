"""One of a gadget's alternative hooks, whichever this kernel would choose by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.gadgets.schema import ProgramChoice
from tests.bpf.tracer import Tracer


@contextmanager
def one_hook(name: str, *programs: str, **parameters: Any) -> Iterator[Tracer]:
    """The gadget with these programs alone. Skips the test when this kernel refuses them."""
    tracer = Tracer(name, **parameters)
    tracer.gadget = replace(tracer.gadget, agent=replace(tracer.gadget.agent, programs=(ProgramChoice((programs,)),)))
    try:
        tracer.__enter__()
    except Failure as failure:
        pytest.skip(f"this kernel does not take {' and '.join(programs)}: {failure}")
    try:
        yield tracer
    finally:
        tracer.__exit__(None, None, None)
