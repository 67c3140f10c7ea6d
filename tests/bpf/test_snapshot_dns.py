"""snapshot dns: the resolver configuration of mount namespaces that the test makes, also where it is no usual file."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bpf.answers import Answers

pytestmark = pytest.mark.bpf
CONFIGURATION = "nameserver 10.96.0.10\nsearch shop.svc.cluster.local cluster.local\noptions ndots:5\n"


def taken(path: Path) -> dict[str, Any]:
    """The row of a namespace where /etc/resolv.conf is this file."""
    script = f"mount --bind {path} /etc/resolv.conf && echo $$ && read _"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        with Answers("snapshot_dns") as snapshot:
            (row,) = [record for record in snapshot.take() if record["pid"] == pid]
        shell.communicate()
    return row


def test_it_is_what_the_namespace_has(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    path.write_text(CONFIGURATION)
    row = taken(path)
    assert row["nameservers"] == ["10.96.0.10"]
    assert row["search"] == ["shop.svc.cluster.local", "cluster.local"]
    assert row["options"] == ["ndots:5"]
    assert (row["ndots"], row["errno"]) == (5, 0)
    assert (row["comm"], row["uid"]) == ("sh", os.getuid())


def test_of_a_huge_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    path.write_text(CONFIGURATION)
    os.truncate(path, 1 << 40)
    row = taken(path)
    assert (row["nameservers"], row["ndots"]) == (["10.96.0.10"], 5)


@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "conf" if kind == "FIFO" else Path("/dev/zero")
    if kind == "FIFO":
        os.mkfifo(path)
    row = taken(path)
    assert (row["errno"], row["ndots"]) == (errno.EINVAL, 2**64 - 1)
    assert not row["nameservers"]


def test_a_link_leads_to_where_the_namespace_has_it(tmp_path: Path) -> None:
    """A container's root is its own: an absolute link leads to no file of the node."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "secret").write_text("nameserver 10.0.0.7\n")
    (root / "etc/resolv.conf").symlink_to("/../../secret")
    (tmp_path / "secret").write_text("nameserver 10.0.0.8\n")
    waits = "import os, sys; os.chroot(sys.argv[1]); print(os.getpid(), flush=True); sys.stdin.read(1)"
    command = ["unshare", "--mount", "python3", "-c", waits, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        with Answers("snapshot_dns") as snapshot:
            (row,) = [record for record in snapshot.take() if record["pid"] == pid]
        process.communicate()
    assert row["nameservers"] == ["10.0.0.7"]
