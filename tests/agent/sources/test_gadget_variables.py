"""The sizes of a gadget's maps."""

from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.gadget_programs import GadgetVariables
from kubectl_gadget.gadgets.load import load_gadget, object_bytes
from kubectl_gadget.run.request import build
from kubectl_gadget.run.run_options import GadgetRun
from tests.bpf.tracer import MACHINE

pytestmark = pytest.mark.bpf


@pytest.mark.parametrize("gadget", ["trace_open", "trace_syscalls", "trace_capabilities"])
@pytest.mark.parametrize("map_entries", [None, 4099])
def test_the_map_of_seen_rows_is_large_only_with_unique(
    catalogue_built: Path, gadget: str, map_entries: int | None
) -> None:
    assert catalogue_built
    sizes = {}
    for unique in (False, True):
        run = GadgetRun(load_gadget(gadget), {"unique": unique})
        (spec,) = build((run,), ({},), 1 << 20, map_entries=map_entries).gadgets
        object = BpfObject(object_bytes(gadget, MACHINE), gadget)
        try:
            GadgetVariables(spec, {}).resize_maps(object)
            sizes[unique] = object.required_map("gadget_seen").entries
        finally:
            object.close()
    assert sizes[False] == 1
    assert sizes[True] == map_entries if map_entries else sizes[True] >= 16384
