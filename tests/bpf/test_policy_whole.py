"""maxData: buffers that are sent as a whole, beyond what an event's memory holds."""

import os
from collections.abc import Iterator

import pytest

from kubectl_gadget.policies.compiler.policies import Match
from kubectl_gadget.policies.model import Argument, HookFilter, Policy, Selector, Subject
from kubectl_gadget.policies.model import Hook as PolicyHook
from tests.bpf.policy_engine import Enforcer, in_force

pytestmark = pytest.mark.bpf
MOST = 327_360


def written(*selectors: Selector, whole: bool = True) -> Policy:
    buffer = Argument(1, "char_buf", size_index=2, max_data=whole)
    hook = PolicyHook("kprobe", "sys_write", syscall=True, arguments=(buffer,), selectors=selectors)
    return Policy("policy", hooks=(hook,))


@pytest.fixture
def sink() -> Iterator[int]:
    descriptor = os.open("/dev/null", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


def text(match: Match) -> tuple[bytes, bool, int]:
    (value,) = match.values
    assert value
    return value.text, value.cut, value.numbers[0]


def data(size: int) -> bytes:
    """Of which no piece is like another."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def test_buffers_are_sent_as_they_are_and_what_is_too_long_is_cut_and_counted(sink: int) -> None:
    sizes = (0, 1, 4095, 4096, 4097, 32768 + 4095, 100_003, MOST)
    with Enforcer(written()) as enforcer:
        for size in sizes:
            os.write(sink, data(size))
        assert [text(match) for match in enforcer.matches()] == [(data(size), False, size) for size in sizes]
        assert enforcer.source.stats().cut_strings == 0
        os.write(sink, data(MOST + 1))
        assert [text(match) for match in enforcer.matches()] == [(data(MOST), True, MOST + 1)]
        assert enforcer.source.stats().cut_strings == 1


def test_without_it_the_first_bytes_are_sent(sink: int) -> None:
    with Enforcer(written(whole=False)) as enforcer:
        os.write(sink, data(MOST))
        (match,) = enforcer.matches()
    assert text(match) == (data(4095), True, MOST)


def test_filters_examine_its_beginning(sink: int) -> None:
    begins = Selector(filters=(HookFilter(Subject("argument"), "prefix", ("needle",)),))
    with Enforcer(written(begins)) as enforcer:
        for size in (1, 5000, 200_000):
            os.write(sink, b"needle" + data(size))
            os.write(sink, data(size) + b"needle")
        assert [len(text(match)[0]) for match in enforcer.matches()] == [7, 5006, 200_006]


def test_what_lies_in_several_buffers_is_sent_as_one() -> None:
    hook = PolicyHook("kprobe", "shmem_file_write_iter", arguments=(Argument(1, "iov_iter", max_data=True),))
    file = os.memfd_create("sink")
    sizes = (1, 4095, 4096, 32768, 32769, 100_003, MOST)
    with in_force(Policy("policy", hooks=(hook,))) as enforcer:
        for size in sizes:
            whole = data(size)
            os.write(file, whole)
            os.writev(file, [b"", whole[:5], whole[5:5000], b"", whole[5000:90_000], whole[90_000:]])
            # As many buffers as the kernel takes.
            step = -(-size // 1000)
            os.writev(file, [whole[place : place + step] for place in range(0, size, step)])
        found = [text(match) for match in enforcer.matches()]
    os.close(file)
    assert found == [(data(size), False, size) for size in sizes for _ in range(3)]
