"""`python -m tests.vm.check`: loads and attaches each gadget in the running kernel, and counts the rows of one action;
then runs the tests of a whole agent.

Prints a JSON object: the kernel's release; for each gadget its hooks, the optional parts that are missing, how many
instructions the verifier processed in each program, and whether the first of its tests in tests/bpf passed, which does
something a prime number of times and counts the rows; and the outcome of each of the other tests. Gadgets are loaded by
the agent's own code, since that chooses among hooks.
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

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import CAUSE
from kubectl_gadget.agent.bpf.object import program_info
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.sources.gadget_source import GadgetSource
from kubectl_gadget.agent.sources.source import NodeContext, make_source
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets.load import load_gadget, load_index, object_bytes
from kubectl_gadget.run.request import build
from kubectl_gadget.run.run_options import GadgetRun

PROJECT = Path(__file__).parents[2]
TESTS = PROJECT / "tests" / "bpf"
MACHINE = os.uname().machine
LOAD_ONLY = "--load-only"
WHOLE = (
    *(
        f"tests/agent/pod/test_bootstrap.py::{test}"
        for test in (
            "test_an_agent_comes_over_standard_input_and_says_hello",
            "test_what_a_pod_has_is_not_sent_again",
            "test_a_pod_without_a_place_for_it_runs_it_from_memory",
        )
    ),
    *(
        f"tests/agent/session/test_session.py::{test}"
        for test in (
            "test_hello_says_who_and_where_it_is",
            "test_every_open_of_one_process_is_one_record",
            "test_started_names_what_was_chosen_and_where_it_hooks",
            "test_bursts_that_fit_into_the_ring_lose_nothing",
            "test_complete_until_never_runs_ahead_of_an_event",
        )
    ),
    "tests/agent/bpf/test_ring.py::test_both_readers_see_the_same_records",
    "tests/agent/bpf/test_ring.py::test_the_copying_reader_holds_no_more_than_it_may",
    "tests/agent/containers/test_tracking.py::test_a_container_that_starts_later_is_named_before_its_first_event",
    "tests/bpf/test_policy.py::test_a_denied_open_fails_with_the_policys_error",
    "tests/bpf/test_policy.py::test_a_system_calls_arguments_are_those_that_were_passed",
    "tests/bpf/test_policy_probes.py::test_each_call_of_a_function_is_seen_with_its_arguments",
    "tests/bpf/test_policy_probes.py::test_a_return_is_seen_with_its_value_and_what_the_call_was_given",
    "tests/bpf/test_top_syscalls.py::test_time_is_that_between_entry_and_return",
    "tests/bpf/test_compat_arm32.py::test_opens_are_shown_with_the_path_of_calls_that_arm64_does_not_have",
    "tests/bpf/test_compat_arm32.py::test_changes_of_files_are_shown_as_the_calls_that_replaced_them",
    "tests/observe/test_enforce_here.py::test_what_is_denied_says_so_and_ctrl_c_ends_it",
)
"""Payload, agent, ring readers, containers and policies, a client's run, and where the order of stores, the numbers of
system calls and the registers matter. Each tests what an architecture may do differently."""
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
    context = NodeContext(containers, containers.wants, variables or {})
    if descendants:
        context.maps.descendants = descendants  # type: ignore[method-assign]
    source = make_source(spec, object_bytes(name, MACHINE), context)
    assert isinstance(source, GadgetSource)
    assert CAUSE not in source.stats().lost, context.warnings.take_all()
    try:
        yield source
    finally:
        source.detach()
        source.close()
        context.close()


def program_fds(gadget: GadgetSource) -> dict[str, int]:
    """File descriptors of the loaded programs. They are closed with the gadget."""
    object = gadget.programs.object
    return {program: object.program_fd(program) for program in object.chosen}


def instructions(gadget: GadgetSource) -> dict[str, int]:
    """Number of instructions that the verifier processed, by program; empty before Linux 5.16, which does not report
    it."""
    found = {program: program_info(fd).verified_insns for program, fd in program_fds(gadget).items()}
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


def outcomes(tests: Iterable[str]) -> dict[str, str]:
    """The outcome of each test: passed, skipped or failed."""
    wanted = list(dict.fromkeys(tests))
    if not wanted:
        return {}
    with tempfile.NamedTemporaryFile(suffix=".xml") as file:
        # In one process, as all tests run: in a virtual machine, starting pytest takes longer than most of them.
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--junitxml={file.name}"]
        subprocess.run([*command, *wanted], stdout=sys.stderr, check=False)
        cases = list(ElementTree.parse(file.name).iter("testcase"))
    return {test: _outcome([case for case in cases if _is_of(case, test)]) for test in wanted}


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
    """Checks the named gadgets and tests, or all; with --load-only no test is run."""
    words = [word for word in sys.argv[1:] if word != LOAD_ONLY]
    tests = [word for word in words if "::" in word] if words else WHOLE
    names = [word for word in words if "::" not in word] if words else [entry.name for entry in load_index()]
    containers = Containers()
    found = {}
    for name in names:
        found[name] = check(name, containers)
        sys.stderr.write(f"{name}: {found[name].get('refused') or 'attached'}\n")
    containers.close()
    seen = {}
    if LOAD_ONLY not in sys.argv:
        first = {name: test for name in names if "refused" not in found[name] and (test := first_test(name))}
        seen = outcomes([*first.values(), *tests])
        for name, test in first.items():
            found[name]["count"] = seen[test]
    whole = {test: seen[test] for test in tests if test in seen}
    json.dump({"release": os.uname().release, "gadgets": found, "tests": whole}, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
