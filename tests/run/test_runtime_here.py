"""What the container runtime does in a container before its program begins: left out, and only that."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import DemoPods
from kubectl_gadget.demo.runc import cgroup2_mount
from tests.conftest import why_no_containers
from tests.gadget_run import GadgetRun

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]
STATE = Path(f"/run/kubectl-gadget-runtime-{os.getpid()}")
RUNTIME = "runc:[2:INIT]"
SCRIPT = f"""
printf '#!/bin/sh\\nread x < /etc/passwd; (read x < /etc/group); ((read x < /etc/hosts) &)' > '/tmp/{RUNTIME}'
chmod +x '/tmp/{RUNTIME}'
'/tmp/{RUNTIME}'
sleep 0.5
"""
"""Bears the runtime's name, and opens a file itself, in a child that executes nothing, and in one whose parent ends."""


@pytest.fixture(name="pods")
def some_pods() -> Iterator[DemoPods]:
    with DemoPods(STATE) as found:
        yield found


def opened(pods: DemoPods, folder: Path, gadget: str, *flags: str) -> Counter[str]:
    """What threads with the runtime's name opened, in a new pod."""
    folder.mkdir()
    with GadgetRun(folder, "trace", gadget, "--local", "-A", "-o", "json", *flags) as run:
        pods.run_short("default", f"pod-{gadget}{len(flags)}", ["/bin/sh", "-c", SCRIPT])
        assert run.stop() == 130
    rows = [row for row in run.rows() if row["comm"] == RUNTIME]
    return Counter(row["path"] for row in rows if row.get("operation", "open") == "open")


@pytest.mark.parametrize("gadget", ["open", "fileuse"])
def test_the_runtime_is_left_out_by_default_and_its_imitators_are_not(
    pods: DemoPods, tmp_path: Path, gadget: str
) -> None:
    own = Counter(("/etc/passwd", "/etc/group", "/etc/hosts"))
    left = opened(pods, tmp_path / "left", gadget)
    assert {path: left[path] for path in own} == own
    assert not {path for path in left if path.startswith("/proc/")}, left
    all_of_it = opened(pods, tmp_path / "all", gadget, "--runtime")
    assert all_of_it > left
    assert {path for path in all_of_it if path.startswith("/proc/")}


def test_what_the_runtime_gives_up_is_left_out_unless_it_is_asked_for_and_not_what_the_program_tries(
    pods: DemoPods, tmp_path: Path
) -> None:
    """From where it is in the container's PID namespace on; before, it has another name."""

    def calls(*flags: str) -> Counter[tuple[str, str]]:
        folder = tmp_path / f"flags{len(flags)}"
        folder.mkdir()
        with GadgetRun(folder, "trace", "privilege", "--local", "-A", "-o", "json", *flags) as run:
            pods.run_short("default", f"pod-privilege{len(flags)}", ["/bin/sh", "-c", "chroot / true; sleep 0.5"])
            assert run.stop() == 130
        return Counter((row["comm"], row["operation"]) for row in run.rows() if row["comm"] in (RUNTIME, "chroot"))

    own = Counter({("chroot", "chroot"): 1})
    assert calls() == own
    all_of_it = calls("--runtime")
    assert all_of_it > own
    assert {comm for comm, _ in all_of_it - own} == {RUNTIME}


def test_what_the_runtime_executes_of_itself_is_left_out_unless_it_is_asked_for(pods: DemoPods, tmp_path: Path) -> None:
    def programs(*flags: str) -> set[str]:
        folder = tmp_path / f"flags{len(flags)}"
        folder.mkdir()
        with GadgetRun(folder, "trace", "exec", "--local", "-n", "default", "-o", "json", *flags) as run:
            # Whether runc executes itself once more before it is moved to the container is chance.
            names = [f"pod-exec{len(flags)}-{number}" for number in range(10)]
            for name in names:
                pods.run_short("default", name, ["/bin/true"])
            assert run.stop() == 130
        # Other tests have pods in this namespace at the same time.
        return {" ".join(row["args"][:2]) for row in run.rows() if row["pod"] in names}

    own = {"/bin/true", "/bin/sleep 2147483647"}
    assert programs() == own
    assert programs("--runtime") >= own


def test_no_row_of_the_runtime_is_left_whatever_it_executes_of_itself(pods: DemoPods, tmp_path: Path) -> None:
    """runc 1.1 executes itself again from memory, in the container's cgroup and before it forks: that one is
    `memfd:runc_clon`. Which of its calls come after it was moved there is chance."""

    def commands(*flags: str) -> dict[str, set[str]]:
        folder = tmp_path / f"flags{len(flags)}"
        folder.mkdir()
        words = ("trace", "open+privilege+mount+file", "--local", "-n", "default", "-o", "json", *flags)
        with GadgetRun(folder, *words) as run:
            names = [f"pod-all{len(flags)}-{number}" for number in range(10)]
            for name in names:
                pods.run_short("default", name, ["/bin/sh", "-c", "chroot / true; mount -t nothing a /; rmdir /none"])
            assert run.stop() == 130
        found: dict[str, set[str]] = {}
        for row in run.rows():
            if row["pod"] in names:
                found.setdefault(row["event"], set()).add(row["comm"])
        return found

    left = commands()
    assert left.pop("open", set()) <= {"sh", "chroot", "mount", "rmdir"}
    assert left == {"privilege": {"chroot"}, "mount": {"mount"}, "file": {"rmdir"}}
    shown = commands("--runtime")
    assert all(RUNTIME in comms for comms in shown.values()), shown


def execute(container: str, program: str) -> None:
    """As kubectl exec, where runc finds cgroup v2 (demo/runc.py)."""
    script = '[ "$1" = /sys/fs/cgroup ] || mount --bind "$1" /sys/fs/cgroup; shift; exec runc "$@"'
    words = [str(cgroup2_mount()), "--root", f"{STATE}/runc/k8s.io", "exec", container, program]
    subprocess.run(["unshare", "--mount", "sh", "-ec", script, "sh", *words], check=True)


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no C compiler")
@pytest.mark.parametrize("privileged", [False, True])
def test_threads_and_siblings_of_what_the_runtime_started_are_the_containers(
    pods: DemoPods, tmp_path: Path, privileged: bool
) -> None:
    source = Path(__file__).parent / "programs" / "siblings.c"
    program = pods.image_root / "bin" / "siblings"
    subprocess.run(["gcc", "-static", "-pthread", "-O2", "-o", program, source], check=True)
    pod = pods.start_pod("default", "idle", {"main": ["/bin/sleep", "100003"]}, privileged=privileged)
    idle = pod.containers["main"]
    with GadgetRun(tmp_path, "trace", "open", "--local", "-A", "-o", "json", "--path", "/own-") as run:
        pods.run_short("default", "first", ["/bin/siblings"])
        execute(idle.id, "/bin/siblings")
        assert run.stop() == 130
    seen = Counter((row["pod"], row["path"]) for row in run.rows())
    names = {"first": ("/own-thread", "/own-child"), "idle": ("/own-thread", "/own-sibling")}
    assert seen == Counter((pod, path) for pod, paths in names.items() for path in paths)
