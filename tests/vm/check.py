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
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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

PROJECT = Path(__file__).parents[2]
TESTS = PROJECT / "tests" / "bpf"
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


def check(name: str, containers: Containers) -> dict[str, Any]:
    """The result of one gadget."""
    try:
        with attached(name, containers) as gadget:
            return {
                "hooks": sorted({hook for entry in gadget.started().programs for hook in entry.hooks}),
                "without": left_out(gadget),
                "instructions": instructions(gadget),
                "count": "",
            }
    except (GadgetError, Failure) as error:
        return {"refused": str(error).splitlines()[0]}


def first_test(name: str) -> str | None:
    """The first test in the gadget's own file, or the first elsewhere that names it, for gadgets that share a file."""
    own = TESTS / f"test_{name}.py"
    for file in [own] if own.exists() else sorted(TESTS.glob("test_*.py")):
        for test in re.findall(r"^def test_\w+.*?(?=^\S|\Z)", file.read_text(), re.MULTILINE | re.DOTALL):
            if file == own or f'"{name}"' in test:
                return f"{file.relative_to(PROJECT)}::{test.partition('(')[0].removeprefix('def ')}"
    return None


def counted(names: Iterable[str]) -> dict[str, str]:
    """The outcome of the first test of each gadget that has one: passed, skipped or failed."""
    tests = {name: test for name in names if (test := first_test(name))}
    with tempfile.NamedTemporaryFile(suffix=".xml") as file:
        # In one process, as all tests run: in a virtual machine, starting pytest takes longer than most of them.
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--junitxml={file.name}"]
        subprocess.run([*command, *dict.fromkeys(tests.values())], stdout=sys.stderr, check=False)
        cases = list(ElementTree.parse(file.name).iter("testcase"))
    found = {name: [case for case in cases if _is_of(case, test)] for name, test in tests.items()}
    return {name: _outcome(cases) for name, cases in found.items()}


def _is_of(case: ElementTree.Element, test: str) -> bool:
    file, _, function = test.partition("::")
    module = file.removesuffix(".py").replace("/", ".")
    return case.get("classname") == module and str(case.get("name")).partition("[")[0] == function


def _outcome(cases: Sequence[ElementTree.Element]) -> str:
    """Of the runs of a test with its parameters."""
    kinds = {child.tag for case in cases for child in case}
    if not cases or kinds & {"failure", "error"}:
        return "failed"
    return "skipped" if all(case.find("skipped") is not None for case in cases) else "passed"


def main() -> None:
    """Checks the named gadgets, or all; with --load-only no rows are counted."""
    names = [word for word in sys.argv[1:] if word != LOAD_ONLY] or [entry.name for entry in load_index()]
    containers = Containers()
    found = {}
    for name in names:
        found[name] = check(name, containers)
        sys.stderr.write(f"{name}: {found[name].get('refused') or 'attached'}\n")
    containers.close()
    if LOAD_ONLY not in sys.argv:
        for name, outcome in counted(name for name in names if "refused" not in found[name]).items():
            found[name]["count"] = outcome
    json.dump({"release": os.uname().release, "gadgets": found}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
