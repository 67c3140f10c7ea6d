"""Gadgets that are loaded on Linux 5.10, by docs/kernels.json, have programs of which it knows all instructions, once
the agent has replaced those that it can.

The kernel refuses such an instruction also in a branch that would be removed, such as one for newer kernels.
"""

import json
from pathlib import Path

import pytest

from docs import reference
from kubectl_gadget.agent.sources.gadget_programs import without_compare_and_swap
from kubectl_gadget.gadgets.load import load_gadget
from tests.gadgets.stack_use import needs_of

_CHECKED = json.loads((reference.DOCS / "kernels.json").read_text())["bullseye"]
LOADED = [name for name, found in _CHECKED["gadgets"].items() if not found.get("refused")]


def test_the_gadgets_were_loaded_on_linux_5_10() -> None:
    assert _CHECKED["release"].startswith("5.10.")
    assert {"trace_open", "trace_exec", "trace_tcp", "top_file"} <= set(LOADED)


@pytest.mark.parametrize("name", LOADED)
def test_a_gadget_that_linux_5_10_loads_has_programs_that_it_knows(
    name: str, catalogue_built: Path, tmp_path: Path
) -> None:
    replaced = tmp_path / f"{name}.bpf.o"
    replaced.write_bytes(
        without_compare_and_swap((catalogue_built / "objects" / "x86_64" / f"{name}.bpf.o").read_bytes())
    )
    needs = needs_of(replaced)
    for choice in load_gadget(name).agent.programs:
        found = [{program: needs[program] for program in programs if needs.get(program)} for programs in choice.any_of]
        assert choice.optional or choice.when or not all(found), found
