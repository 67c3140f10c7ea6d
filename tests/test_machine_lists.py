"""The tests that virtual machines are to run exist: an unknown name would run no test, without an error.

Names in the lists may be prefixes of test names, as --deselect allows.
"""

import re
from pathlib import Path

import pytest

from tests.gadget_run import PROJECT
from tests.vm import machine
from tests.vm.machine import BOOTED, Kernel, MachineRun
from tests.vm.repeated import FOR_IO_URING, differs, repeated
from tests.vm.results import results
from tests.vm.test_kernel import MACHINES


@pytest.mark.parametrize("part", MACHINES)
def test_every_test_that_a_machine_is_asked_for_exists(part: str) -> None:
    words = [word.rpartition("=")[2].strip("'") for word in MACHINES[part].tests.split()]
    assert [word for word in words if not exists(word)] == []


def exists(word: str) -> bool:
    file, _, test = word.partition("::")
    name, _, case = test.removesuffix("]").partition("[")
    found = sorted(PROJECT.glob(file))
    if not found or not name:
        return bool(found)
    text = found[0].read_text()
    words = [part for part in case.split("-") if part]
    known = all(re.search(rf"\b{re.escape(part)}\b", text) for part in words)
    return known and re.search(rf"^(?:async )?def {name}", text, re.MULTILINE) is not None


@pytest.mark.parametrize(("consoles", "boots"), [(["", BOOTED], 2), ([f"{BOOTED}\nKernel panic"], 1), ([""] * 3, 3)])
def test_only_a_machine_that_panics_before_init_is_booted_again(
    consoles: list[str], boots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What panics later may be a fault of a program."""
    runs = [MachineRun(console, "") for console in consoles]
    left = iter(runs)
    monkeypatch.setattr(machine, "_run_once", lambda *_: next(left))
    assert machine.run("", 1.0, Kernel(Path("/vmlinuz"))) is runs[boots - 1]
    assert list(left) == []


def test_a_whole_file_runs_where_hooks_differ_or_this_machine_runs_no_bpf() -> None:
    assert differs(PROJECT / "tests/bpf/test_trace_lsm.py", has_uprobes=True)
    assert not differs(PROJECT / "tests/bpf/test_trace_ssl.py", has_uprobes=True)
    assert differs(PROJECT / "tests/bpf/test_trace_ssl.py", has_uprobes=False)
    assert not differs(PROJECT / "tests/bpf/test_trace_mount.py", has_uprobes=False)
    some, all_of_them = repeated(everything=False), repeated(everything=True)
    assert "tests/bpf/test_trace_mount.py::test_each_mount_and_umount_is_seen_once" in some
    assert list(dict.fromkeys(word.partition("::")[0] for word in some)) == all_of_them


@pytest.mark.parametrize("name", FOR_IO_URING)
def test_of_an_optional_hook_for_io_uring_its_tests_run_beside_the_first(name: str) -> None:
    first, *others = [word for word in repeated(everything=False) if word.startswith(f"tests/bpf/test_{name}.py")]
    assert "::" in first
    assert others
    assert all("io_uring" in word for word in others)


def test_results_name_the_slowest_tests_and_why_others_were_skipped() -> None:
    xml = """<testsuites><testsuite tests="2" failures="0" errors="0" skipped="1">
    <testcase classname="tests.bpf.test_one" name="test_slow" time="12.4"/>
    <testcase classname="tests.bpf.test_one" name="test_other" time="1"><skipped message="no fexit"/></testcase>
    </testsuite></testsuites>"""
    texts: list[object] = []
    count = results(xml, "Linux 6.12", lambda _name, text: texts.append(text))
    assert count == {"tests": 2, "failures": 0, "errors": 0, "skipped": 1}
    lines = str(texts[0]).splitlines()
    assert lines[0] == "Linux 6.12: 2 tests, 0 failures, 0 errors, 1 skipped, 13 s"
    assert lines[1] == "12 s tests.bpf.test_one test_slow"
    assert lines[-1] == "SKIPPED test_other: no fexit"
