"""How much work the verifier has with each program: it is what a user waits for, and the kernel refuses a million."""

import os

import pytest

from kubectl_gadget.agent.containers import Containers
from kubectl_gadget.catalogue.load import load_index
from kubectl_gadget.errors import GadgetError
from tests.vm.check import attached, instructions

pytestmark = pytest.mark.bpf
CEILING = 100_000
"""Instructions looked at; about 0.1 s. A program that needs more says why here."""
HIGHER = {"trace_deadlock": 200_000}
"""It searches the graph of locks."""
TOGETHER = 300_000
"""Of all programs of a gadget."""
MORE_TOGETHER = {"trace_fileuse": 700_000, "trace_fdpass": 450_000, "trace_lsm": 650_000}
"""A walk to the root in each of many programs; trace_lsm loads only those of the hooks that are asked for."""


@pytest.fixture(scope="module")
def containers() -> Containers:
    return Containers()


@pytest.mark.parametrize("name", [entry.name for entry in load_index()])
def test_no_program_takes_the_verifier_long(name: str, containers: Containers) -> None:
    try:
        with attached(name, containers) as gadget:
            found = instructions(gadget)
            loaded = gadget.program_fds()
    except GadgetError as error:
        pytest.skip(f"{name} does not load on Linux {os.uname().release}: {error}")
    if loaded and not found:
        pytest.skip("the kernel tells only since Linux 5.16")
    assert max(found.values(), default=0) <= HIGHER.get(name, CEILING), found
    assert sum(found.values()) <= MORE_TOGETHER.get(name, TOGETHER), found
