"""The distribution of tests to processes."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
FILE = """
import os
import pytest

def note(name):
    with open({notes!r}, "a") as file:
        file.write(f"{{name}} {{os.getpid()}}\\n")

@pytest.fixture
def tracefs(): ...

@pytest.mark.parametrize("number", range(4))
@pytest.mark.root
def test_marked(number): note("machine")

def test_by_its_fixture(tracefs): note("machine")

@pytest.mark.parametrize("number", range(4))
def test_plain(number): note(__name__)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """Two files of tests, distributed as ours are."""
    notes = pytester.path / "notes"
    pytester.makeconftest(
        """
import pytest
from tests.needs import MachineAndOthers, mark_all, order, prepare_worker, tell_scheduler

def pytest_xdist_make_scheduler(config, log):
    return MachineAndOthers(config, log)

def pytest_configure_node(node):
    prepare_worker(node)

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config, items):
    distributed = hasattr(config, "workerinput")
    mark_all(items, 0)
    yield
    order(items, distributed)
    if distributed:
        tell_scheduler(items, config.workerinput)
"""
    )
    pytester.makeini("[pytest]\nmarkers =\n  root: x\n")
    pytester.makepyfile(test_one=FILE.format(notes=str(notes)), test_two=FILE.format(notes=str(notes)))
    return notes


def test_tests_that_need_the_machine_run_in_one_process_and_files_stay_together(
    pytester: pytest.Pytester, project: Path
) -> None:
    pytester.runpytest_subprocess("-n", "3", "-p", "no:cacheprovider").assert_outcomes(passed=18)
    ran: dict[str, list[str]] = {}
    for line in project.read_text().splitlines():
        name, process = line.split()
        ran.setdefault(name, []).append(process)
    assert {name: (len(found), len(set(found))) for name, found in ran.items()} == {
        "machine": (10, 1),
        "test_one": (4, 1),
        "test_two": (4, 1),
    }
