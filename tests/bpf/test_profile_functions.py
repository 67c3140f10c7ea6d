"""profile functions: a program whose functions are called a prime number of times, in processes before and after."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.symbols.elf_functions import function_offsets, is_ifunc, matching_functions, nearest_functions
from kubectl_gadget.agent.symbols.uprobes import RequestedFunctions, Uprobes
from kubectl_gadget.wire.client_messages import Library
from tests.bpf.answers import Answers

pytestmark = pytest.mark.bpf
CALLS, DEPTH = 101, 7
UNRETURNED, TOO_DEEP, NESTED = 70_000, 100, 64
SOURCE = f"""
#include <alloca.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static jmp_buf back;
__attribute__((noinline)) void jump_back(void) {{ longjmp(back, 1); }}
__attribute__((noinline)) void jump_from(int below) {{
    volatile char *room = alloca(16 * ({UNRETURNED} - below));
    room[0] = 0;
    jump_back();
}}
__attribute__((noinline)) int hist_leaf(int x) {{ asm volatile("" : "+r"(x)); return x + 1; }}
__attribute__((noinline)) int hist_deep(int depth) {{
    volatile int below = depth > 1 ? hist_deep(depth - 1) : 0;
    return below + 1;
}}
__attribute__((noinline)) void hist_sleep(void) {{ usleep(11000); }}
__attribute__((noinline)) void hist_wait(void) {{ puts("waits"); fflush(stdout); getchar(); }}
int main(int count, char **arguments) {{
    volatile int jumps = 0;
    int sum = 0;
    puts("ready"); fflush(stdout); getchar();
    if (count > 1 && !strcmp(arguments[1], "jump")) {{
        setjmp(back);
        if (jumps < {UNRETURNED}) jump_from(jumps++);
        return 0;
    }}
    if (count > 1 && !strcmp(arguments[1], "wait")) {{ hist_wait(); return 0; }}
    if (count > 1 && !strcmp(arguments[1], "nest")) return hist_deep({TOO_DEEP}) != {TOO_DEEP};
    for (int i = 0; i < {CALLS}; i++) sum = hist_leaf(sum);
    hist_deep({DEPTH});
    hist_sleep();
    return sum != {CALLS};
}}
"""
PROGRAMS = {"programs": ("returned", "called")}


class Followed(Answers):
    """The gadget, and the agent's search for where its programs go."""

    def __init__(self, *functions: tuple[str, str]) -> None:
        super().__init__("profile_functions")
        self._asked = [Library(files=(file,), functions={symbol: PROGRAMS["programs"]}) for file, symbol in functions]

    def _open(self, programs: Any) -> Any:
        object = super()._open(programs)
        self.uprobe_warnings: list[str] = []
        self.uprobes = Uprobes(object, self._asked, lambda cgroup: True, self.uprobe_warnings.append, named=True)
        self.uprobes.prepare()
        return object

    def look(self) -> None:
        """As the session does, without its pause."""
        self.uprobes._next = 0.0
        try:
            self.uprobes.turn(time.monotonic())
        except Failure as failure:
            pytest.skip(f"no uprobes here: {failure}")

    def __exit__(self, *error: Any) -> None:
        self.uprobes.close()
        super().__exit__(*error)


@pytest.fixture(scope="module", params=["-pie", "-static"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("gcc is missing, which makes the program to look at")
    folder = tmp_path_factory.mktemp("functions")
    (folder / "main.c").write_text(SOURCE)
    path = folder / f"hist-program{request.param}"
    subprocess.run(["gcc", "-O1", request.param, "-o", path, folder / "main.c"], check=True)
    return path


def start(*command: Path | str) -> subprocess.Popen[bytes]:
    """Starts the program, which waits for a line."""
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert started.stdout
    started.stdout.readline()
    return started


@pytest.fixture
def process(program: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Waits for a line."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()
        yield started
        started.kill()


def counts(records: list[dict[str, Any]]) -> dict[str, int]:
    return {record["function"].rpartition(":")[2]: record["count"] for record in records}


def test_calls_are_counted_also_those_that_a_function_makes_of_itself(
    program: Path, process: subprocess.Popen[bytes]
) -> None:
    with Followed((str(program), "hist_*")) as profile:
        profile.look()
        process.communicate(b"\n")
        records = profile.take()
        assert profile.lost == 0
        assert profile.uprobe_warnings == []
    assert process.returncode == 0
    assert counts(records) == {"hist_leaf": CALLS, "hist_deep": DEPTH, "hist_sleep": 1}
    (sleep,) = [record for record in records if record["function"].endswith("hist_sleep")]
    assert sleep["total"] >= 11_000_000
    assert all(record["cgroup"] and sum(record["buckets"]) == record["count"] for record in records)


def test_calls_that_never_return_do_not_displace_those_of_others(program: Path) -> None:
    """More of them than there was room for, while another process is in a call."""
    with (
        Followed((str(program), "hist_wait"), (str(program), "jump_back")) as profile,
        start(program, "wait") as other,
        start(program, "jump") as flood,
    ):
        profile.look()
        assert other.stdin
        assert other.stdout
        other.stdin.write(b"\n")
        other.stdin.flush()
        other.stdout.readline()
        flood.communicate(b"\n")
        other.communicate(b"\n")
        assert counts(profile.take()) == {"hist_wait": 1}
        assert profile.lost == 0
    assert flood.returncode == other.returncode == 0


def test_more_nested_calls_than_the_kernel_follows_count_as_lost(program: Path) -> None:
    with Followed((str(program), "hist_deep")) as profile, start(program, "nest") as process:
        profile.look()
        process.communicate(b"\n")
        assert counts(profile.take()) == {"hist_deep": NESTED}
        assert profile.lost == TOO_DEEP - NESTED


def test_a_function_may_be_named_by_its_place_in_the_file(program: Path, process: subprocess.Popen[bytes]) -> None:
    place = function_offsets(str(program), ["hist_leaf"])["hist_leaf"]
    with Followed((str(program), f"{place:#x}")) as profile:
        profile.look()
        process.communicate(b"\n")
        records = profile.take()
    assert counts(records) == {f"{place:#x}": CALLS}


def test_what_is_not_there_is_reported(program: Path, process: subprocess.Popen[bytes]) -> None:
    with Followed((str(program), "hist_laef")) as profile:
        profile.look()
        process.communicate(b"\n")
        assert profile.take() == []
        (warning,) = profile.uprobe_warnings
    assert warning.startswith(f"{program} has no function hist_laef; hist_leaf")


def test_the_nearest_function_is_offered_without_looking_at_all(program: Path) -> None:
    assert nearest_functions(str(program), "hist_laef").startswith("hist_leaf")
    assert nearest_functions(str(program), "zzz") == ""


def test_a_file_that_no_process_uses_is_named_at_the_end_of_a_short_run_too() -> None:
    with Followed(("libnowhere.so", "x"), ("libcc", "malloc")) as profile:
        profile.look()
        profile.uprobes.close()
        first, second = profile.uprobe_warnings
    assert first.startswith("no process of the selected containers uses libcc yet, so it is not traced")
    assert second.startswith("no process of the selected containers uses libnowhere.so yet")


def test_functions_that_are_chosen_for_the_processor_are_reported() -> None:
    (path,) = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so.6" in line}
    assert is_ifunc(path, "memcpy")
    assert not is_ifunc(path, "malloc")


def test_programs_of_go_are_refused(program: Path, tmp_path: Path) -> None:
    copy = tmp_path / "hist-go"
    copy.write_bytes(program.read_bytes() + b"\xff Go buildinf:")
    copy.chmod(0o755)
    with subprocess.Popen([copy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()
        with Followed((str(copy), "hist_leaf")) as profile:
            profile.look()
            started.communicate(b"\n")
            assert profile.take() == []
            (warning,) = profile.uprobe_warnings
    assert "Go" in warning


def test_libraries_go_by_their_names_without_versions_and_programs_by_their_paths() -> None:
    assert RequestedFunctions.may_be("libc", "libc.so.6")
    assert RequestedFunctions.may_be("libc", "libc-2.31.so")
    assert RequestedFunctions.may_be("/usr/bin/nginx", "nginx")
    assert not RequestedFunctions.may_be("libc", "libcrypt.so.1")
    assert not RequestedFunctions.may_be("/usr/bin/nginx", "nginx.old")


def test_a_pattern_finds_functions_and_none_in_a_file_that_is_not_a_program(program: Path, tmp_path: Path) -> None:
    assert matching_functions(str(program), "hist_[ls]*").keys() == {"hist_leaf", "hist_sleep"}
    (tmp_path / "text").write_bytes(b"\x7fELF\x02\x01 and no more")
    assert matching_functions(str(tmp_path / "text"), "*") == {}
