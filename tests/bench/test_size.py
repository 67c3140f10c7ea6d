"""Bytes on the wire: what each gadget's work makes it send."""

import asyncio
import shutil

import pytest

from bench.size import record


@pytest.mark.bpf
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_each_end_of_a_connection_is_seen_twice() -> None:
    payloads, events = asyncio.run(record("trace_tcp"))
    assert events == 4 * 1000
    assert sum(map(len, payloads)) > events
