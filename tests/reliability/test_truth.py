"""Nothing is lost in silence: what came out and what was counted as lost is what was done, for each CPU by its numbers.

Whether something is lost depends on the machine; that it is counted does not.
"""

import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from tests.reliability.local_run import LocalRun

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]
CPUS = sorted(os.sched_getaffinity(0))
Reader = Callable[[LocalRun, IO[bytes]], bytes]


def read_all(run: LocalRun, out: IO[bytes]) -> bytes:
    return out.read()


def read_slowly(run: LocalRun, out: IO[bytes]) -> bytes:
    """A little at first, so that pipe, client, stream and ring fill up; then the rest."""
    found = b""
    for _ in range(20):
        found += os.read(out.fileno(), 4096)
        time.sleep(0.1)
    return found + out.read()


def stop_the_client(run: LocalRun, out: IO[bytes]) -> bytes:
    """As with Ctrl-Z; less than the time after which the agent takes it for dead."""
    run.process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    run.process.send_signal(signal.SIGCONT)
    return out.read()


@pytest.mark.parametrize(
    ("reader", "flags"),
    [
        (read_all, ()),
        (read_all, ("--ring-size", "64Ki")),
        (read_slowly, ("--ring-size", "256Ki", "--buffer-size", "1Mi")),
        (stop_the_client, ("--ring-size", "1Mi")),
    ],
    ids=["full speed", "64 KiB ring", "slow reader", "stopped client"],
)
def test_what_was_delivered_and_what_was_lost_is_what_was_done(
    reader: Reader, flags: tuple[str, ...], numbered_opens: Path, is_long: bool, tmp_path: Path
) -> None:
    times = 5_000_011 if is_long else 60_013
    folder = f"/{uuid.uuid4().hex}"
    command = ("trace", "open", "--host", "-o", "jsonpath={.path}{'\\n'}", "--path", folder, *flags)
    with LocalRun(tmp_path, *command, stdout=subprocess.PIPE) as run:
        assert run.process.stdout
        with subprocess.Popen([str(numbered_opens), folder, str(times)]) as generator:
            ended = _ends_after(generator, run)
            data = reader(run, run.process.stdout)
            ended()
        run.process.wait()
        found = [(int(cpu), int(number)) for cpu, number in re.findall(rb"/(\d+)/(\d+)\n", data)]
    missing = 0
    for cpu in CPUS:
        numbers = [number for one, number in found if one == cpu]
        assert numbers == sorted(set(numbers)), "one came twice, or they are not in order"
        missing += times - len(numbers)
    assert missing == run.lost
    assert len(found) + run.lost == times * len(CPUS)


def test_what_a_stopped_client_does_not_take_is_late_and_not_lost(numbered_opens: Path, tmp_path: Path) -> None:
    """6 MB, of which ring and pipe hold two. The pause of a microsecond leaves the agent time to run."""
    times, folder = 30_013, f"/{uuid.uuid4().hex}"
    command = ("trace", "open", "--host", "-o", "jsonpath={.path}{'\\n'}", "--path", folder, "--ring-size", "1Mi")
    with (tmp_path / "rows").open("wb") as rows, LocalRun(tmp_path, *command, stdout=rows) as run:
        run.process.send_signal(signal.SIGSTOP)
        subprocess.run([str(numbered_opens), folder, str(times), "1"], check=True)
        run.process.send_signal(signal.SIGCONT)
        run.process.send_signal(signal.SIGINT)
        run.process.wait()
    assert run.lost == 0
    assert len((tmp_path / "rows").read_text().splitlines()) == times * len(CPUS)


def _ends_after(generator: subprocess.Popen[bytes], run: LocalRun) -> Callable[[], None]:
    """Ends the run once the generator is done, while someone reads."""
    import threading

    def end() -> None:
        generator.wait()
        run.process.send_signal(signal.SIGINT)

    thread = threading.Thread(target=end)
    thread.start()
    return thread.join
