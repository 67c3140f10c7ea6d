"""`kubectl gadget bpftrace` on this machine, with real containers: whose events its probes see, and how it ends."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import DemoPods
from tests.gadget_run import GADGET, PROJECT, GadgetRun

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(not shutil.which("bpftrace"), reason="bpftrace is not installed: apt-get install bpftrace"),
]
OPENS = 'tracepoint:syscalls:sys_enter_openat { printf("%s\\n", str(args.filename)); }'
JOINS = """
import os, sys
os.mkdir(sys.argv[1])
with open(f"{sys.argv[1]}/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
os.path.exists("/") and os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)
"""
"""Opens a file in a cgroup that did not exist a moment ago."""
COUNT = 20


def reads(path: str) -> list[str]:
    return ["sh", "-c", f"while :; do cat {path} >/dev/null; sleep 0.2; done"]


def test_probes_see_the_chosen_pods_those_that_come_and_cgroups_they_make(pods: DemoPods, tmp_path: Path) -> None:
    chosen = pods.start_pod("shop", "web", {"main": reads("/etc/passwd")}).containers["main"]
    pods.start_pod("other", "web", {"main": reads("/etc/hosts")})
    program = OPENS + ' interval:s:1 { printf("tick\\n"); }'
    (tmp_path / "run").mkdir()
    with GadgetRun(tmp_path / "run", "bpftrace", "--local", "-n", "shop", program) as run:
        run.until_printed("/etc/passwd")
        for number in range(3):
            # Their first program's first files are seen.
            pods.run_short("shop", f"late-{number}", ["cat", f"/etc/late-{number}"])
            run.until_printed(f"/etc/late-{number}")
        pods.run_short("other", "late", ["cat", "/etc/not-chosen"])
        for number in range(COUNT):
            file = tmp_path / f"gap-{number}"
            subprocess.run([sys.executable, "-c", JOINS, str(chosen.cgroup / f"own-{number}"), str(file)], check=True)
        run.until_printed(str(tmp_path / f"gap-{COUNT - 1}"))
        run.until_printed("tick")
        assert run.stop() == 130
    printed = run.out.read_text().splitlines()
    for number in range(COUNT):
        (chosen.cgroup / f"own-{number}").rmdir()
        assert str(tmp_path / f"gap-{number}") in printed
    assert "/etc/hosts" not in printed
    assert "/etc/not-chosen" not in printed
    assert "@pods_" not in run.out.read_text() + run.said()


def test_a_predicate_of_ones_own_and_positional_parameters_hold_too(pods: DemoPods, tmp_path: Path) -> None:
    pods.start_pod("shop", "web", {"main": reads("/etc/passwd"), "beside": reads("/etc/group")})
    file = tmp_path / "opens.bt"
    file.write_text(
        "// {\n/* } */\n#define NAME 1\ntracepoint:syscalls:sys_enter_openat\n"
        "/ str(args.filename) == str($1) || str(args.filename) == str($2) /\n"
        '{ printf("} %s\\n", str(args.filename)); @files[comm] = count(); }\n'
    )
    (tmp_path / "run").mkdir()
    words = ("bpftrace", "--local", "-c", "main", "-f", str(file), "/etc/passwd", "/etc/group")
    with GadgetRun(tmp_path / "run", *words) as run:
        run.until_printed("} /etc/passwd")
        run.stop()
    printed = run.out.read_text()
    assert "} /etc/group" not in printed
    assert "@files[cat]: " in printed  # what is summed up comes at the end


def test_the_whole_node_is_examined_with_host(tmp_path: Path) -> None:
    file = tmp_path / "of-the-host"
    (tmp_path / "run").mkdir()
    program = f'BEGIN {{ printf("begun\\n"); }} {OPENS}'
    with GadgetRun(tmp_path / "run", "bpftrace", "--local", "--host", program) as run:
        run.until_printed("begun")
        opener = [sys.executable, "-c", f"while True: open({str(file)!r}, 'w').close()"]
        with subprocess.Popen(opener) as process:
            run.until_printed(str(file))
            process.kill()
        run.stop()


def test_a_program_that_ends_itself_or_is_wrong_says_how_it_ended(tmp_path: Path) -> None:
    def outcome(program: str) -> tuple[int, str, str]:
        words = [*GADGET, "bpftrace", "--local", program]
        found = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
        return found.returncode, found.stdout, found.stderr

    # bpftrace prints a varying number of empty lines when it ends.
    code, out, error = outcome('BEGIN { printf("hello\\n"); exit(); }')
    assert (code, out.rstrip("\n")) == (0, "hello"), error
    code, out, error = outcome("tracepoint:syscalls:sys_enter_openat { nosuchfunction(); }")
    assert (code, out) == (1, "")
    assert "program.bt:1" in error
    assert "Unknown function: nosuchfunction" in error
    assert "the tool failed: exit code 1" in error
    assert "RLIMIT_MEMLOCK" not in error


def test_bpftrace_ends_with_its_client(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    program = 'BEGIN { printf("%d\\n", pid); } interval:s:1 { printf("tick\\n"); }'
    with GadgetRun(tmp_path / "run", "bpftrace", "--local", program) as run:
        run.until_printed("tick")
        pid = int(run.out.read_text().split()[0])
        child = os.pidfd_open(pid)
        run.process.kill()
        run.process.wait()
        assert_ends(child)


def assert_ends(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = poll.poll(30_000)
    if not ended:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert ended
