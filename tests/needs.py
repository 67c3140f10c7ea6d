"""Marks for what a test needs beyond Python and the development dependencies, and the distribution of tests to
processes.

`make check` runs the tests that have none of these marks: as any user, with no network except loopback, on Linux and
macOS. A mark stands in the test's file, or comes from its folder or from a fixture that it uses.
"""

import json
import os
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

OF_THE_MACHINE = ("bpf", "cluster", "root")
"""Marks of tests that use what a machine has only once, such as its cgroups, tracefs and network. They run one after
another."""
MARKS = (*OF_THE_MACHINE, "vm", "network", "compiled", "slow")
RERUN = ("bpf", "vm", "root")
"""Marks of tests that depend on other activity on this machine: programs in its kernel, virtual machines, containers.
Other tests are not rerun."""
WITHOUT_UNIT_TESTS = ("bpf", "real_cluster", "vm")
"""Folders that `make check` need not import, a quarter of what the collection of its tests would take."""

_LIST = "tests_of_the_machine"
"""The member of a worker's input with the file that lists tests that need the machine for themselves"""
_LONGEST = "tests/vm/test_kernel.py"
_FOLDERS = {"tests/vm/": "vm"}
_FIXTURES = {"pods": "root", "tracefs": "root", "catalogue_built": "compiled"}


def mark_all(items: list[pytest.Item], reruns: int) -> None:
    """Add the marks that come from folders and fixtures, and mark the tests that are rerun."""
    for item in items:
        marks = {mark for folder, mark in _FOLDERS.items() if item.nodeid.startswith(folder)}
        marks |= {mark for fixture, mark in _FIXTURES.items() if fixture in getattr(item, "fixturenames", ())}
        for mark in sorted(marks):
            item.add_marker(mark)
        if reruns and item.get_closest_marker("flaky") is None and _has(item, RERUN):
            item.add_marker(pytest.mark.flaky(reruns=reruns))


@cache
def _folder() -> "TemporaryDirectory[str]":
    return TemporaryDirectory()


def prepare_worker(node: WorkerController) -> None:
    """Name the file for tell_scheduler()."""
    node.workerinput[_LIST] = f"{_folder().name}/{_LIST}"


def tell_scheduler(items: list[pytest.Item], worker_input: Mapping[str, Any]) -> None:
    """List the tests that need the machine for themselves: the process that distributes the tests knows their names
    but not their marks. Each worker lists the same tests, before it reports its own."""
    path = Path(worker_input[_LIST])
    own = path.with_name(f"{path.name}.{os.getpid()}")
    own.write_text(json.dumps([item.nodeid for item in items if _of_the_machine(item)]))
    own.replace(path)


def is_unit(item: pytest.Item) -> bool:
    """Return True if `make check` runs the test."""
    return not _has(item, MARKS)


def order(items: list[pytest.Item], distributed: bool) -> None:
    """Orders tests: in one process, fast tests come first, so that failures show early; distributed, the longest come
    first: a file that takes a minute and begins last would leave the other processes idle. Of the tests that need the
    machine, those in a root of Debian come last, when another process has made it."""
    files = {item: item.nodeid.partition("::")[0] for item in items}
    long = {files[item] for item in items if _has(item, ("network", "slow"))}

    def key(item: pytest.Item) -> float:
        if _has(item, ("vm",)):
            return (0.5 if files[item] == _LONGEST else 1) if distributed else 2
        if not distributed:
            return 1 if _of_the_machine(item) else 0
        if _of_the_machine(item):
            return 0.25 if "installed" in getattr(item, "fixturenames", ()) else 0
        return 2 if files[item] in long else 3

    items.sort(key=key)


class MachineAndOthers(LoadScopeScheduling):
    """With -n: everything that needs the machine runs in one process, each virtual machine in parallel, and then the
    other tests, file by file, in whichever process is free."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/vm/"):
            return nodeid
        return "the machine" if nodeid in self._of_the_machine else nodeid.partition("::")[0]

    @cached_property
    def _of_the_machine(self) -> frozenset[str]:
        return frozenset(json.loads(Path(_folder().name, _LIST).read_text()))


def _of_the_machine(item: pytest.Item) -> bool:
    return _has(item, OF_THE_MACHINE) and not _has(item, ("vm",))


def _has(item: pytest.Item, marks: tuple[str, ...]) -> bool:
    return any(mark.name in marks for mark in item.iter_markers())
