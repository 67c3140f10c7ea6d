"""snapshot mounts: a prime number of mounts in a mount namespace that the test makes."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.bpf.answers import Answers

pytestmark = pytest.mark.bpf
TIMES = 7


def test_each_mount_of_a_namespace_is_there_once_with_its_process(tmp_path: Path) -> None:
    paths = [tmp_path / f"a b#{number}\\" for number in range(TIMES)]
    for path in paths:
        path.mkdir()
    commands = [f"mount -t tmpfs -o ro,nosuid 'from {number}' '{path}'" for number, path in enumerate(paths)]
    script = "; ".join(["set -e", *commands, "sleep 600 & echo $!", "read _"])
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        sleeping = int(shell.stdout.readline())
        with Answers("snapshot_mounts") as snapshot:
            records = [record for record in snapshot.take() if (record["target"] or "").startswith(str(tmp_path))]
        os.kill(sleeping, 9)
        shell.communicate()
    assert [record["target"] for record in records] == [str(path) for path in paths]
    for number, record in enumerate(records):
        assert (record["source"], record["type"], record["root"]) == (f"from {number}", "tmpfs", "/")
        assert set(record["options"].split(",")) >= {"ro", "nosuid"}
        assert record["propagation"] == "private"
        assert record["pid"] in (shell.pid, sleeping)
        assert (record["uid"], record["gid"]) == (os.getuid(), os.getgid())
        assert record["cgroup"]
    assert len({record["mount_id"] for record in records}) == TIMES
