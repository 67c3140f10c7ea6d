"""How many instructions the verifier processed in each program that a test loads."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kubectl_gadget.agent.bpf.object import BpfObject, Turns, program_info

POLICY_CEILING = 60_000
"""Of a policy's program, which asks all tests of all policies at its hook. Linux 7.3's verifier, which looks at most,
goes through 45,000."""


@contextmanager
def verified() -> Iterator[dict[str, int]]:
    """The highest number of instructions of each program that is loaded inside the block."""
    found: dict[str, int] = {}
    load = BpfObject.load

    def loading(object: BpfObject, turns: Turns | None = None) -> None:
        load(object, turns)
        for program in object.chosen:
            count = program_info(object.program_fd(program)).verified_insns
            found[program] = max(count, found.get(program, 0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BpfObject, "load", loading)
        yield found


def check(found: dict[str, int], ceiling: int) -> None:
    if found and not any(found.values()):
        pytest.skip("the kernel tells only since Linux 5.16")
    assert found
    assert max(found.values()) <= ceiling, found
