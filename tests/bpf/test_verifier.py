"""How much work the verifier has with each program: it is what a user waits for, and the kernel refuses a million. That
of the built-in policies is counted where they are in force (test_builtin_policies.py)."""

import contextlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject, own_elf, program_info
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.sources.gadget_source import GadgetSource
from kubectl_gadget.agent.sources.shared_maps import Descendants
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets.load import load_gadget, load_index
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.bpf.policy_engine import in_force
from tests.bpf.verified import POLICY_CEILING, check, verified
from tests.vm.check import attached, instructions, left_out, program_fds

pytestmark = pytest.mark.bpf
RELEASE = os.uname().release
LOOKS_AT_MORE = tuple(map(int, RELEASE.split(".")[:2])) < (6, 12)
"""Verifiers before do, Linux 6.1's up to seven times as much (trace http)."""
CEILING = 300_000 if LOOKS_AT_MORE else 100_000
"""Instructions looked at; about 0.1 s. A program that needs more says why here."""
HIGHER = {"trace_deadlock": 500_000} if LOOKS_AT_MORE else {"trace_deadlock": 200_000, "trace_syscalls": 150_000}
"""One unwinds the stack and then searches the graph of locks (444,000 on Linux 6.1; without the first 281,000), the
other reads arguments as 64-bit and as 32-bit programs lay them out."""
TOGETHER = 600_000 if LOOKS_AT_MORE else 300_000
"""Of all programs of a gadget."""
MORE_TOGETHER = {
    "trace_lsm": 650_000,
    "trace_mount": 450_000,
    "trace_fileuse": 600_000,
    "trace_fsslower": 400_000,
    "trace_fdpass": 320_000,
}
"""A walk to the root in each of many programs, of which only those of the hooks that are asked for are loaded; and
calls that each have a second program for 32-bit programs, or one for io_uring."""
ENGINE = "policy"
CLOUD = "-cloud-"
KERNELS = Path(__file__).parents[2] / "docs" / "kernels.json"
OBJECTS = Path(__file__).parents[2] / "kubectl_gadget" / "built" / "objects" / os.uname().machine
WITHOUT_GADGET = (
    {path.name.removesuffix(".bpf.o") for path in OBJECTS.glob("*.bpf.o")}
    - {entry.name for entry in load_index()}
    - {"single_file"}
)
"""The last one has no programs: it is linked with those of users."""


@pytest.fixture(scope="session")  # tests of other modules run between those of this one
def containers() -> Iterator[Containers]:
    containers = Containers()
    yield containers
    containers.close()


class Loaded(NamedTuple):
    """What a kernel made of a gadget."""

    programs: int
    instructions: dict[str, int]
    without: list[str]


@contextlib.contextmanager
def attached_to_descendants(name: str, containers: Containers) -> Iterator[GadgetSource]:
    """Attach a gadget that looks at this process and its descendants only, and at none of our own."""
    names = {parameter.variable: parameter.name for parameter in load_gadget(name).parameters}
    parameters = {names["gadget_filter_pid"]: os.getpid(), names["gadget_filter_descendants"]: True}
    own = {"gadget_node_agent": 1, "gadget_node_client": 2}
    family = Descendants(os.getpid(), containers.variables()["gadget_node_pid_level"])
    try:
        with attached(name, containers, parameters, own, lambda pid: family.fd) as gadget:
            yield gadget
    finally:
        family.close()


def takes_a_pid(name: str) -> bool:
    return "gadget_filter_pid" in {parameter.variable for parameter in load_gadget(name).parameters}


@cache
def loaded(name: str, containers: Containers) -> Loaded | GadgetError:
    """Loads a gadget once for all tests here: the verifier takes seconds in a virtual machine. Where it looks at more,
    that is with filters by process, which are more code."""
    attach = attached_to_descendants if LOOKS_AT_MORE and takes_a_pid(name) else attached
    try:
        with attach(name, containers) as gadget:
            return Loaded(len(program_fds(gadget)), instructions(gadget), left_out(gadget))
    except GadgetError as error:
        return error


@pytest.fixture(scope="module")
def of_the_docs() -> dict[str, dict[str, Any]]:
    """What `make kernels` found of each gadget, where this is a kernel of Debian's: what loaded there has to load."""
    for known in json.loads(KERNELS.read_text()).values():
        if CLOUD in RELEASE and _kind(known["release"]) == _kind(RELEASE):
            return dict(known["gadgets"])
    return {}


def _kind(release: str) -> list[str]:
    """Version and architecture."""
    return [*release.split(".")[:2], release.rpartition(CLOUD)[2]]


@pytest.mark.parametrize("name", [entry.name for entry in load_index()])
def test_no_program_takes_the_verifier_long(
    name: str, containers: Containers, of_the_docs: dict[str, dict[str, Any]]
) -> None:
    known = of_the_docs.get(name, {"refused": ""})
    gadget = loaded(name, containers)
    if isinstance(gadget, GadgetError):
        if "refused" not in known:
            raise gadget
        pytest.skip(f"{name} does not load on Linux {RELEASE}: {gadget}")
    assert "refused" in known or set(gadget.without) <= set(known["without"]), gadget.without
    found = gadget.instructions
    if gadget.programs and not found:
        pytest.skip("the kernel tells only since Linux 5.16")
    assert max(found.values(), default=0) <= HIGHER.get(name, CEILING), found
    assert sum(found.values()) <= MORE_TOGETHER.get(name, TOGETHER), found


def test_every_gadget_that_takes_a_pid_takes_its_descendants_too() -> None:
    parameters = [{item.variable for item in load_gadget(entry.name).parameters} for entry in load_index()]
    assert any("gadget_filter_pid" in found for found in parameters)
    assert all("gadget_filter_descendants" in found for found in parameters if "gadget_filter_pid" in found)


@pytest.mark.parametrize("name", [entry.name for entry in load_index()])
def test_all_programs_load_with_descendants_and_without_our_own_processes(name: str, containers: Containers) -> None:
    if not takes_a_pid(name):
        pytest.skip("its rows are not about processes")
    plain = loaded(name, containers)
    if isinstance(plain, GadgetError):
        pytest.skip(f"{name} does not load on Linux {RELEASE}: {plain}")
    if LOOKS_AT_MORE:
        pytest.skip("test_no_program_takes_the_verifier_long loads it so on this kernel")
    with attached_to_descendants(name, containers) as gadget:
        assert left_out(gadget) == plain.without


def test_filters_by_process_that_are_off_are_not_in_the_program(containers: Containers) -> None:
    def length(parameters: dict[str, Any], **variables: int) -> int:
        """Of the instructions that the verifier left."""
        with attached("trace_exit", containers, parameters, variables, lambda pid: family.fd) as gadget:
            (fd,) = program_fds(gadget).values()
            return int.from_bytes(bytes(program_info(fd))[20:24], "little")

    family = Descendants(os.getpid(), containers.variables()["gadget_node_pid_level"])
    try:
        off, pid = length({}), length({"pid": 1})
        assert off < pid < length({"pid": 1, "descendants": True})
        assert off < length({}, gadget_node_agent=1)
        assert off == length({"descendants": True})
    finally:
        family.close()


@pytest.mark.parametrize("name", sorted(WITHOUT_GADGET - {ENGINE}))
def test_no_program_of_an_object_without_a_gadget_takes_it_long(name: str) -> None:
    is_loaded = False
    with verified() as found:
        for program in BpfObject(own_elf(name), name, []).program_names:
            object = BpfObject(own_elf(name), name, [program])
            try:
                object.load()
                is_loaded = True
            except Failure:
                continue  # a kind that this kernel has not, or without a function that it is for
            finally:
                object.close()
    assert is_loaded
    check(found, CEILING)


DEMANDING = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: demanding}
spec:
  kprobes:
  - call: HOOK
    syscall: IS_SYSCALL
    args: [{index: INDEX, type: TYPE}]
    selectors:
    - matchArgs: [{index: INDEX, operator: Prefix, values: [/etc/, /root/.ssh/]}]
      matchNamespaces: [{namespace: Uts, operator: In, values: [host_ns, "1"]}]
      matchNamespaceChanges: [{operator: In, values: [Net, Mnt]}]
    - matchArgs: [{index: INDEX, operator: Postfix, values: [.key, .pem]}]
      matchNamespaces: [{namespace: Net, operator: NotIn, values: [host_ns]}]
      matchBinaries: [{operator: In, values: [/bin/cat, /bin/less], followChildren: true}]
    - matchArgs: [{index: INDEX, operator: Glob, values: ["/proc/*/environ"]}]
      matchPIDs: [{operator: NotIn, followForks: true, isNamespacePID: true, values: [1]}]
      matchCapabilities: [{type: Effective, operator: In, values: [CAP_SYS_ADMIN]}]
    - matchArgs: [{index: INDEX, operator: SubString, values: [secret]}]
      matchCapabilityChanges: [{type: Permitted, operator: In, values: [CAP_SYS_ADMIN]}]
"""


@pytest.mark.parametrize(("hook", "place", "type"), [("sys_openat", 1, "string"), ("security_file_open", 0, "file")])
def test_a_demanding_policy_does_not_take_it_long(hook: str, place: int, type: str) -> None:
    words = {"HOOK": hook, "IS_SYSCALL": str(hook.startswith("sys_")).lower(), "INDEX": str(place), "TYPE": type}
    text = DEMANDING
    for word, value in words.items():
        text = text.replace(word, value)
    with verified() as found, in_force(*parse_policies([("policy.yaml", text)], "default")):
        check(found, POLICY_CEILING)
