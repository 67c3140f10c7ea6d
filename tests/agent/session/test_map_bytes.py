"""The memory of a session's maps, which `status` shows."""

import os

import pytest

from kubectl_gadget.agent.bpf.maps import ARRAY, OpenMap, make_map
from kubectl_gadget.agent.session.session import map_bytes

pytestmark = pytest.mark.bpf


def test_the_memory_of_maps_is_that_of_those_that_are_open() -> None:
    before = map_bytes(os.getpid())
    map = OpenMap(make_map(ARRAY, "measured", 1 << 20, 3))
    twice = os.dup(map.fd)
    during = map_bytes(os.getpid())
    os.close(twice)
    map.close()
    assert before is not None
    assert during is not None
    assert 3 << 20 <= during - before < 4 << 20
    assert map_bytes(os.getpid()) == before


def test_nothing_is_known_of_a_process_that_has_ended() -> None:
    assert map_bytes(1 << 22) is None
