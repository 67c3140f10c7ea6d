"""Shared fixtures: the compiled catalogue, tracefs, pods without a cluster; and the reasons to skip tests.

A test's marks say what it needs (tests/needs.py), and this file skips it with a reason if the machine lacks it: `bpf`
is root on Linux with BTF, `cluster` is the option --cluster and a cluster in $KUBECONFIG. Nothing that CI must run may
be skipped silently, so every reason names what is missing.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from kubectl_gadget.demo.pods import DemoPods
from kubectl_gadget.gadgets.compiler import find_clang
from tests.gadget_run import PROJECT
from tests.leftovers import unmount_what_dead_runs_left
from tests.needs import (
    MARKS,
    WITHOUT_UNIT_TESTS,
    MachineAndOthers,
    is_unit,
    mark_all,
    order,
    prepare_worker,
    tell_scheduler,
)
from tests.signals import set_defaults_for_children
from tests.vm.results import AT_THE_END

# What is imported and collected stays: until pytest_runtestloop() no garbage is looked for, and then not in that.
gc.disable()
set_defaults_for_children()

# The time that an example takes depends on the machine, not on our code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
settings.register_profile("virtual machine", max_examples=5)
"""For tests whose examples load programs, since verification is slow in a virtual machine."""
settings.register_profile("quick", max_examples=20)
"""For `make check`."""
_MOST_DESCRIPTORS = 16
"""Descriptors that the tests of a file may leave open, such as those of objects that are loaded once."""
_CLOSING_SECONDS = 10

TESTS = Path(__file__).resolve().parent
collect_ignore: list[str] = []
if not (PROJECT / "kubectl_gadget" / "built" / "gadgets" / "index.json").exists():
    # These have one test for each gadget, or column.
    collect_ignore += [
        *(
            "agent/session/test_declared.py",
            "agent/session/test_observer.py",
            "bpf/test_verifier.py",
            "rows/test_no_rows.py",
        ),
        *("real_cluster/test_contained.py", "real_cluster/test_gadgets.py"),
        "output/test_live.py",
    ]
if sys.platform != "linux":
    # Agents, and whatever builds and tests them, run only on Linux.
    collect_ignore += ["agent", "bpf", "demo", "image", "reliability", "vm"]
BTF = Path("/sys/kernel/btf/vmlinux")
TRACEFS = Path("/sys/kernel/tracing")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", action="store_true", help="run the tests that need the cluster in $KUBECONFIG")
    parser.addoption("--unit", action="store_true", help="run only the unit tests, as make check does")
    parser.addoption(
        "--long", action="store_true", help="run tests of reliability as long as docs/reliability.md reports"
    )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # keep our order; do not put scopes with most tests first
    return MachineAndOthers(config, log)


def pytest_configure_node(node: WorkerController) -> None:
    prepare_worker(node)


class _Folder(pytest.Package):
    """A folder of tests that is listed once. pytest lists its folder again for each file that is an argument, and in a
    virtual machine eighty are."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        return self._found

    @cached_property
    def _found(self) -> list[pytest.Item | pytest.Collector]:
        return list(super().collect())


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return _Folder.from_parent(parent, path=path) if (path / "__init__.py").is_file() else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_left_out = (
        config.getoption("--unit") and collection_path.parent == TESTS and collection_path.name in WITHOUT_UNIT_TESTS
    )
    return True if is_left_out and config.getoption("--unit") else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Marks tests before -m selects, and orders them after pytest has put those together that share a fixture."""
    distributed = hasattr(config, "workerinput")
    mark_all(items, config.option.reruns or 0)
    if config.getoption("--unit"):
        config.hook.pytest_deselected(items=[item for item in items if not is_unit(item)])
        items[:] = [item for item in items if is_unit(item)]
    # Else every test, also one that is not rerun, asks the first process over a socket, which takes 40 ms.
    config.option.reruns = None
    reasons = {"bpf": why_no_bpf(), "cluster": why_no_cluster(config.getoption("--cluster"))}
    for item in items:
        for mark, reason in reasons.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
    yield
    order(items, distributed)
    if distributed:
        tell_scheduler(items, config.workerinput)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says at the end, since -q hides what comes first, which tests were left out."""
    if collect_ignore:
        terminalreporter.write_line(f"not collected here: {', '.join(collect_ignore)}")
    if terminalreporter.config.getoption("--unit"):
        terminalreporter.write_line(f"left out, and run by make test: tests marked {', '.join(MARKS)} (tests/needs.py)")
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    properties = [item for report in reports if report.when == "call" for item in report.user_properties]
    texts = [text for name, text in properties if name == AT_THE_END]
    if texts:
        terminalreporter.section("in virtual machines")
    for text in texts:
        terminalreporter.write_line(text)


def why_no_bpf() -> str | None:
    """Why BPF programs cannot be loaded here, or None."""
    if sys.platform != "linux":
        return f"BPF needs Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "BPF needs root"
    if not BTF.exists():
        return f"this kernel has no {BTF} (CONFIG_DEBUG_INFO_BTF)"
    return None


def why_no_cluster(asked: bool) -> str | None:
    """Why cluster tests do not run, or None."""
    if not asked:
        return "run with --cluster, on a cluster that may be used for tests"
    if not os.environ.get("KUBECONFIG"):
        return "--cluster was given, but $KUBECONFIG is not set"
    return None


def why_no_containers() -> str | None:
    """Why `kubectl_gadget.demo` cannot start containers here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "containers need root on Linux"
    missing = [name for name in ("runc", "busybox") if not shutil.which(name)]
    return f"{' and '.join(missing)} not installed" if missing else None


@pytest.fixture(scope="session")
def _files_of_others(request: pytest.FixtureRequest) -> set[Path]:
    """Files with tests that are no unit tests."""
    return {item.path for item in request.session.items if not is_unit(item)}


@pytest.fixture(scope="module", autouse=True)
def _descriptors_are_closed(request: pytest.FixtureRequest, _files_of_others: set[Path]) -> Iterator[None]:
    """Fails if the unit tests of a file leave descriptors open, which are then missing elsewhere."""
    before = len(os.listdir("/dev/fd"))
    yield
    if request.path in _files_of_others:
        return
    deadline = time.monotonic() + _CLOSING_SECONDS
    while (more := len(os.listdir("/dev/fd")) - before) > _MOST_DESCRIPTORS:
        if time.monotonic() > deadline:
            pytest.fail(f"{request.path.name} leaves {more} descriptors open")
        gc.collect()  # also of earlier files, whose garbage may have appeared after the count
        time.sleep(0.1)


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """True if --long was given."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def tracefs() -> Path:
    """The mounted tracefs. Mounts it if it is missing, as in a fresh machine or container."""
    if not (TRACEFS / "events").exists():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", str(TRACEFS)], check=True)
    return TRACEFS


@pytest.fixture(scope="session", autouse=True)
def _tracefs_for_bpf(request: pytest.FixtureRequest) -> None:
    if any(item.get_closest_marker("bpf") for item in request.session.items) and why_no_bpf() is None:
        request.getfixturevalue("tracefs")


@pytest.fixture(scope="session", autouse=True)
def _leftovers_of_killed_runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Once per run: with -n, workers have their folders in that of the run."""
    if sys.platform == "linux" and os.geteuid() == 0:
        own = tmp_path_factory.getbasetemp()
        unmount_what_dead_runs_left(own.parent if hasattr(request.config, "workerinput") else own)


@pytest.fixture(scope="session", autouse=True)
def _texts_of_pods(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without a build there is no agent to send; the files that pods start with exist nevertheless."""
    from kubectl_gadget.agents import payload
    from kubectl_gadget.gadgets import pack_payload as building

    if not (building.BUILT / "payload" / "index.json").is_file():
        folder = tmp_path_factory.mktemp("payload")
        index = {"payloads": {}, **building.texts()}
        (folder / "index.json").write_text(json.dumps(index))
        payload.FOLDER = folder


@pytest.fixture(scope="session")
def catalogue_built() -> Path:
    """The folder kubectl_gadget/built with every gadget compiled from the current sources."""
    if find_clang() is None or not shutil.which("bpftool"):
        if not (PROJECT / "kubectl_gadget" / "built" / "gadgets" / "index.json").exists():
            pytest.skip("needs clang and bpftool, or what make setup compiles")
        return PROJECT / "kubectl_gadget" / "built"
    # In a virtual machine nothing can be written, and the test that boots it uses this fixture as well.
    if os.access(PROJECT, os.W_OK):
        subprocess.run([sys.executable, "-m", "kubectl_gadget.gadgets.build"], cwd=PROJECT, check=True)
    return PROJECT / "kubectl_gadget" / "built"


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[DemoPods]:
    """Pods of real containers for one test, without a cluster."""
    if reason := why_no_containers():
        pytest.skip(reason)
    # Its cgroup has the folder's name, and other runs of these tests may be active on this machine.
    with DemoPods(tmp_path / f"pods-{uuid.uuid4().hex[:8]}") as pods:
        yield pods
