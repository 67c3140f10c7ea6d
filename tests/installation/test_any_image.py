"""The agent in images of older distributions: the client is here, and the pods of a fake cluster have their Python.

Each root has Python and nothing else of ours: no libbpf, libelf or compiler. Debian 11 has Python 3.9 and glibc 2.31.
"""

import asyncio
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.fake_cluster import exec as fake_exec
from tests.fake_cluster.cluster import FakeCluster
from tests.fake_cluster.runner import Runner
from tests.installation.clean import CACHE, locked, run

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.timeout(1200),
]
SUITES = {"bullseye": "3.9", "bookworm": "3.11"}
PACKAGES = ("python3-minimal", "libpython3-stdlib")
PYTHON = """#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec unshare --mount sh -ec 'root=$1; shift
for folder in proc sys dev tmp; do mount --rbind "/$folder" "$root/$folder"; done
exec chroot "$root" /usr/bin/python3 "$@"' sh {root} "$@"
"""


@pytest.fixture(scope="session", params=SUITES)
def image(request: pytest.FixtureRequest) -> Path:
    """The root of an image; its folder has the suite's name."""
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        pytest.skip("a root of Debian needs root and mmdebstrap here")
    root = CACHE / "images" / str(request.param)
    with locked():
        if not root.is_dir():
            new = root.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            run(
                "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", root.name, f"{new}.tar"
            )
            run("tar", "xf", f"{new}.tar", "-C", new)
            os.unlink(f"{new}.tar")
            new.rename(root)
    return root


@pytest.fixture
def python(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The image's Python, which pods of fake clusters have in this test."""
    path = tmp_path / "python3"
    path.write_text(PYTHON.format(root=image))
    path.chmod(0o755)
    monkeypatch.setattr(fake_exec, "PYTHON", str(path))
    return path


def test_the_image_has_an_older_python_and_no_libbpf(image: Path, python: Path) -> None:
    said = run(python, "-I", "-c", "import sys, ctypes; print(*sys.version_info[:2], sep='.')")
    assert said.strip() == SUITES[image.name]
    assert not [path for name in ("libbpf", "libelf") for path in image.glob(f"usr/lib/*/{name}*")]


async def test_gadgets_of_several_kinds_run_in_the_image(python: Path, tmp_path: Path) -> None:
    path = f"/tmp/{uuid.uuid4().hex}"
    async with FakeCluster(1) as cluster:
        runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        await runner.start("trace", "open", "-A", "--host", "-o", "json", "--path", path, "--max-events", "1")
        await runner.until_said("open on 1/1 nodes")
        await asyncio.to_thread(subprocess.run, ["cat", path], check=False, stderr=subprocess.DEVNULL)
        seen = await runner.finish(interrupt=False)
        assert [(row["path"], row["comm"]) for row in seen.rows] == [(path, "cat")], seen.errors
        await runner.start("profile", "cpu", "-A", "--host", "-o", "json", "--timeout", "2s")
        await runner.until_said("cpu on 1/1 nodes")
        await asyncio.to_thread(subprocess.run, ["timeout", "1", "sh", "-c", "while :; do :; done"], check=False)
        busy = await runner.finish(interrupt=False)
        assert "sh" in {row["comm"] for row in busy.rows}, busy.errors
        await runner.start("snapshot", "process", "-A", "--host", "-o", "json")
        processes = await runner.finish(interrupt=False)
        assert os.getpid() in {row["pid"] for row in processes.rows}, processes.errors
        for outcome in (seen, busy, processes):
            assert outcome.code == 0, outcome.errors
            assert "lost: 0" in outcome.errors
