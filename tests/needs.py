"""Marks for what a test needs beyond Python and the development dependencies, and the distribution of tests to
processes.

`make check` runs the tests that have none of these marks: as any user, with no network except loopback, on Linux and
macOS. A mark is in the test's file, or comes from its folder or from a fixture that it uses.

The trap: with -n, the process that distributes the tests knows their names but not their marks, so it finds the tests
that need the machine exclusively by their text. `mark_all` rejects a marked test that was not found this way.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

PROJECT = Path(__file__).resolve().parent.parent
OF_THE_MACHINE = ("bpf", "cluster", "root")
"""Marks of tests that use what a machine has only once, such as its cgroups, tracefs and network. They run one after
another."""
MARKS = (*OF_THE_MACHINE, "vm", "network", "compiled", "slow")
RERUN = ("bpf", "vm", "root")
"""Marks of tests that depend on other activity on this machine: programs in its kernel, virtual machines, containers.
Other tests are not rerun."""

_LONGEST = "tests/vm/test_kernel.py"
_FOLDERS = {"tests/vm/": "vm"}
_FIXTURES = {"pods": "root", "tracefs": "root", "catalogue_built": "compiled"}
_TEXT = re.compile(rf"mark\.({'|'.join(OF_THE_MACHINE)})\b|\bpods: DemoPods\b|\btracefs\b")
_OF_THE_FILE = re.compile(r"^pytestmark = (?:\[\n.*?^\]|.*?$)", re.MULTILINE | re.DOTALL)
_MARK_OR_FIXTURE = re.compile(rf"""mark\.({"|".join(MARKS)})\b|"({"|".join(_FIXTURES)})\"""")


@cache
def _on_the_machine(file: str) -> frozenset[str] | None:
    """Names of the tests and fixtures in a file that need the machine exclusively, by their text or by the names in it;
    None: all do."""
    text = (PROJECT / file).read_text()
    if not _TEXT.search(text):
        return frozenset()
    lines = text.split("\n")
    functions: dict[str, str] = {}
    found: set[str] = set()
    for node in ast.parse(text).body:
        first = min(part.lineno for part in (node, *getattr(node, "decorator_list", ())))
        own = "\n".join(lines[first - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions[node.name] = own
        elif _TEXT.search(own):
            return None
    more = {name for name, own in functions.items() if _TEXT.search(own)}
    while more:
        found |= more
        names = re.compile(rf"\b({'|'.join(found)})\b")
        more = {name for name, own in functions.items() if name not in found and names.search(own)}
    return frozenset(found)


def uses_the_machine(nodeid: str) -> bool:
    """Whether a test needs the machine exclusively. It is named by its file, relative to the project's folder, and its
    name."""
    file, _, name = nodeid.partition("::")
    found = _on_the_machine(file)
    return found is None or name.partition("[")[0] in found


def mark_all(items: list[pytest.Item], reruns: int, distributed: bool) -> None:
    """Adds the marks that come from folders and fixtures, and marks the tests that are rerun. Raises UsageError if the
    tests are distributed, and one that needs the machine was not found by its text."""
    for item in items:
        marks = {mark for folder, mark in _FOLDERS.items() if item.nodeid.startswith(folder)}
        marks |= {mark for fixture, mark in _FIXTURES.items() if fixture in getattr(item, "fixturenames", ())}
        for mark in sorted(marks):
            item.add_marker(mark)
        if reruns and item.get_closest_marker("flaky") is None and _has(item, RERUN):
            item.add_marker(pytest.mark.flaky(reruns=reruns))
        if distributed and _of_the_machine(item) and not uses_the_machine(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} needs the machine for itself: write its mark above it")


def is_unit(item: pytest.Item) -> bool:
    """Whether `make check` runs the test."""
    return not _has(item, MARKS)


def has_no_unit_test(path: Path) -> bool:
    """Whether the marks above all tests of a file, or of its folder, say so. It need not be imported then, which is a
    third of what the collection of unit tests would take."""
    if any(f"{path.relative_to(PROJECT)}/".startswith(folder) for folder in _FOLDERS):
        return True
    marks = _OF_THE_FILE.search(path.read_text()) if path.suffix == ".py" else None
    return marks is not None and _MARK_OR_FIXTURE.search(marks[0]) is not None


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
        if uses_the_machine(item.nodeid):
            return 0.25 if "installed" in getattr(item, "fixturenames", ()) else 0
        return 2 if files[item] in long else 3

    items.sort(key=key)


class MachineAndOthers(LoadScopeScheduling):
    """With -n: everything that needs the machine runs in one process, each virtual machine in parallel, and then the
    other tests, file by file, in whichever process is free."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/vm/"):
            return nodeid
        return "the machine" if uses_the_machine(nodeid) else file


def _of_the_machine(item: pytest.Item) -> bool:
    return _has(item, OF_THE_MACHINE) and not _has(item, ("vm",))


def _has(item: pytest.Item, marks: tuple[str, ...]) -> bool:
    return any(mark.name in marks for mark in item.iter_markers())
