"""`python -m tests.vm.check`: loads and attaches each gadget in the running kernel, and counts the rows of one action.

Prints a JSON object: the kernel's release, and for each gadget its hooks, the optional parts that are missing, how many
instructions the verifier processed in each program, and whether the first of its tests in tests/bpf passed, which does
something a prime number of times and counts the rows. The trap: gadgets are loaded by the agent's own code, since that
chooses among hooks.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kubectl_gadget.agent.bpf.detached import CAUSE
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import program_info
from kubectl_gadget.agent.bpf.syscall_programs import VARIABLE
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.kernel import features
from kubectl_gadget.agent.session.source_kinds import make_source
from kubectl_gadget.agent.sources.context import NodeContext, Warnings
from kubectl_gadget.agent.sources.gadget_source import GadgetSource
from kubectl_gadget.agent.sources.shared_maps import SharedMaps
from kubectl_gadget.catalogue.load import load_gadget, load_index, object_bytes
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.session.request import build
from kubectl_gadget.session.run_options import GadgetRun

TESTS = Path(__file__).parents[1] / "bpf"
MACHINE = os.uname().machine
LOAD_ONLY = "--load-only"
_NEEDED = {"profile_functions": {"function": "libc.so:malloc"}}
"""Parameters without which a gadget does nothing."""


@contextlib.contextmanager
def attached(
    name: str,
    containers: Containers,
    parameters: Mapping[str, Any] | None = None,
    variables: Mapping[str, int] | None = None,
    descendants: Callable[[int], int] | None = None,
) -> Iterator[GadgetSource]:
    """The gadget as run by an agent. Raises GadgetError if something that is needed cannot be loaded."""
    given = {**_NEEDED.get(name, {}), **(parameters or {})}
    (spec,) = build((GadgetRun(load_gadget(name), given),), ({},), 1 << 20).gadgets
    of_node = {**containers.variables(), VARIABLE: int(not features.syscall_tracepoints()), **(variables or {})}
    warnings = Warnings()
    maps = SharedMaps(containers.shared, of_node["gadget_node_pid_level"], warnings.add)
    if descendants:
        maps.descendants = descendants  # type: ignore[method-assign]
    context = NodeContext(containers, maps, containers.wants, of_node, warnings=warnings)
    source = make_source(spec, object_bytes(name, MACHINE), context)
    assert isinstance(source, GadgetSource)
    assert CAUSE not in source.stats().lost, warnings.take_all()
    try:
        yield source
    finally:
        source.detach()
        source.close()
        context.close()


def instructions(gadget: GadgetSource) -> dict[str, int]:
    """Number of instructions that the verifier processed, by program; empty before Linux 5.16, which does not report
    it."""
    found = {program: program_info(fd).verified_insns for program, fd in gadget.program_fds().items()}
    return {program: count for program, count in found.items() if count}


def left_out(gadget: GadgetSource) -> list[str]:
    """Optional programs of which this kernel accepted no alternative."""
    programs = gadget.started().programs
    return [skip.program for entry in programs for skip in entry.skipped if not entry.chosen]


def check(name: str, containers: Containers, count: bool) -> dict[str, Any]:
    """The result of one gadget."""
    try:
        with attached(name, containers) as gadget:
            found = {
                "hooks": sorted({hook for entry in gadget.started().programs for hook in entry.hooks}),
                "without": left_out(gadget),
                "instructions": instructions(gadget),
            }
    except (GadgetError, Failure) as error:
        return {"refused": str(error).splitlines()[0]}
    return {**found, "count": counted(name) if count else ""}


def _first_test(name: str) -> str | None:
    """The first test in the gadget's own file, or the first elsewhere that names it, for gadgets that share a file."""
    own = TESTS / f"test_{name}.py"
    for file in [own] if own.exists() else sorted(TESTS.glob("test_*.py")):
        for test in re.findall(r"^def test_\w+.*?(?=^\S|\Z)", file.read_text(), re.MULTILINE | re.DOTALL):
            if file == own or f'"{name}"' in test:
                return f"{file}::{test.partition('(')[0].removeprefix('def ')}"
    return None


def counted(name: str) -> str:
    """The outcome of the gadget's first test: passed, skipped or failed; empty if it has none."""
    found = _first_test(name)
    if found is None:
        return ""
    # In a separate process: tests fork, and leftovers of one gadget's test must not affect the next.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", found]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if run.returncode:
        sys.stderr.write(f"{name}:\n{run.stdout[-2000:]}\n")
        return "failed"
    return "passed" if " passed" in run.stdout.splitlines()[-1] else "skipped"


def main() -> None:
    """Checks the named gadgets, or all; with --load-only no rows are counted."""
    names = [word for word in sys.argv[1:] if word != LOAD_ONLY]
    containers = Containers()
    found = {}
    for name in names or [entry.name for entry in load_index()]:
        found[name] = check(name, containers, LOAD_ONLY not in sys.argv)
        sys.stderr.write(f"{name}: {found[name].get('refused') or found[name]['count'] or 'attached'}\n")
    containers.close()
    json.dump({"release": os.uname().release, "gadgets": found}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
