"""Builds the real image from Debian's packages, and starts the agent of it in a root of its own."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from kubectl_gadget.wire.frames import FrameDecoder, FrameType
from kubectl_gadget.wire.message import parse
from tests.gadget_run import PROJECT

LARGEST = 25e6
"""Bytes, compressed: what a node has to pull before the first run."""

IDLE = 12 << 20
"""Bytes that an agent without a session may take on every node, all of Python counted."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="the agent is started in a root of its own, which needs root"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="mmdebstrap is not installed"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, catalogue_built: Path) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.tar"
    subprocess.run(["/usr/bin/python3", "image/build.py", "--output", str(path)], cwd=PROJECT, check=True)
    return path


@pytest.fixture(scope="module")
def root(image: Path) -> Path:
    """The image's files, as a runtime would unpack them."""
    root = image.parent / "root"
    with tarfile.open(image) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        for layer in json.load(file)[0]["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(layer)) as files:
                files.extractall(root, filter="fully_trusted")
    return root


def in_root(root: Path, *command: str) -> bytes:
    """Output of a command in the image, with what a pod has: /proc, /sys and /dev, and a read-only root."""
    script = (
        'mount --bind "$1" "$1"; cd "$1"; mount -t proc proc proc; mount --rbind /sys sys; mount -t tmpfs tmpfs dev; '
        'mkdir dev/shm; mount -o remount,bind,ro "$1"; shift; exec chroot . "$@"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", str(root), *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_image_is_small(image: Path) -> None:
    assert image.stat().st_size < LARGEST


def test_every_object_that_the_agent_loads_by_itself_is_in_the_image(root: Path) -> None:
    sources = [path.read_text() for path in (PROJECT / "kubectl_gadget" / "agent").rglob("*.py")]
    names = {name for text in sources for name in re.findall(r'own_(?:elf|object|program)\(\s*"(\w+)"', text)}
    assert len(names) >= 3
    folder = root / "usr/lib/python3/dist-packages/kubectl_gadget/built/objects" / os.uname().machine
    assert {path.name for path in folder.iterdir()} == {f"{name}.bpf.o" for name in names}


def test_the_agent_in_the_image_says_hello_and_ends_with_its_input(root: Path) -> None:
    output = in_root(root, "/usr/bin/python3", "-I", "-m", "kubectl_gadget.agent", "session")
    frames = list(FrameDecoder().feed(output))
    assert [frame.type for frame in frames] == [FrameType.HELLO, FrameType.END]
    assert parse(frames[1].payload)["reason"] == "eof"


def test_an_agent_without_a_session_is_small(root: Path) -> None:
    program = (
        "import os, signal, sys, time\n"
        "pid = os.posix_spawn(sys.executable, [sys.executable, '-I', '-m', 'kubectl_gadget.agent', 'idle'], {})\n"
        "def of(name): return open(f'/proc/{pid}/status').read().partition(name + ':')[2].split()[0]\n"
        # The file is the last that it makes; then it sleeps.
        "while not os.path.exists('/dev/shm/kubectl-gadget.sessions') or of('State') != 'S': time.sleep(0.05)\n"
        "print(of('VmHWM'))\n"
        "os.kill(pid, signal.SIGTERM)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    kibibytes, code = in_root(root, "/usr/bin/python3", "-I", "-c", program).split()
    assert int(code) == 0
    assert int(kibibytes) << 10 < IDLE


def test_every_module_of_the_agent_can_be_imported_and_is_compiled(root: Path) -> None:
    program = (
        "import importlib, pkgutil, kubectl_gadget.agent as agent, kubectl_gadget.wire as wire\n"
        "for package in (agent, wire):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if module.name.rpartition('.')[2] in ('__main__', 'bootstrap', 'unpacking'): continue\n"
        "        print(importlib.import_module(module.name).__cached__)\n"
    )
    compiled = in_root(root, "/usr/bin/python3", "-I", "-c", program).decode().split()
    assert compiled
    assert all((root / path.lstrip("/")).is_file() for path in compiled)


def test_neither_a_shell_nor_a_package_manager_is_in_the_image(root: Path) -> None:
    programs = {path.name for folder in ("usr/bin", "usr/sbin") for path in (root / folder).iterdir()}
    assert programs <= {"python3", "python3.13"}


def test_scanners_find_the_packages_of_which_something_is_in_the_image(root: Path) -> None:
    status = (root / "var/lib/dpkg/status").read_text()
    entries = [dict(re.findall(r"^([A-Z][\w-]*): (.*)$", entry, re.MULTILINE)) for entry in status.split("\n\n")]
    names = [entry["Package"] for entry in entries]
    assert {"libc6", "python3.13-minimal", "zlib1g"} <= set(names)
    # Nothing of these is kept but their licence.
    assert not {"dpkg", "mawk", "tar", "libssl3t64", "libsqlite3-0"} & set(names)
    assert all(entry["Status"] == "install ok installed" and entry["Version"] for entry in entries)
    assert (root / "usr/lib/os-release").read_text().count("VERSION_ID")
    for name in names:
        files = (root / f"var/lib/dpkg/info/{name}.list").read_text().splitlines()
        assert files
        assert all((root / file.lstrip("/")).is_symlink() or (root / file.lstrip("/")).exists() for file in files)


def test_the_sbom_has_the_same_packages_and_is_valid(root: Path) -> None:
    sbom = json.loads((root / "usr/share/doc/kubectl-gadget/sbom.spdx.json").read_text())
    status = (root / "var/lib/dpkg/status").read_text()
    known = dict(
        zip(*(re.findall(rf"^{key}: (.*)$", status, re.MULTILINE) for key in ("Package", "Version")), strict=True)
    )
    debian = {one["name"]: one["versionInfo"] for one in sbom["packages"] if "-deb-" in one["SPDXID"]}
    assert debian == known
    linked = [one for one in sbom["packages"] if "-source-" in one["SPDXID"]]
    assert [one["name"] for one in linked] == ["elfutils", "libbpf", "zlib"]
    assert all(one["licenseConcluded"] != "NOASSERTION" for one in linked)
    assert sbom["spdxVersion"] == "SPDX-2.3"
    assert sbom["SPDXID"] == "SPDXRef-DOCUMENT"
    ids = [one["SPDXID"] for one in sbom["packages"]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", id) for id in ids)
    assert {one["relatedSpdxElement"] for one in sbom["relationships"]} == set(ids)
    purls = [one["externalRefs"][0]["referenceLocator"] for one in sbom["packages"]]
    assert all(
        re.fullmatch(r"pkg:(generic|deb/debian)/[\w.%+~-]+@[\w.%~+-]+(\?arch=\w+&distro=debian-13)?", purl)
        for purl in purls
    )


def test_a_second_build_elsewhere_and_in_another_process_is_equal_byte_for_byte(image: Path, tmp_path: Path) -> None:
    """From a copy of the source in another folder, with other hashes of texts."""
    for part in ("image", "kubectl_gadget", "LICENSE"):
        copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy
        copy(PROJECT / part, tmp_path / part)
    other = tmp_path / "other.tar"
    command = ["/usr/bin/python3", str(tmp_path / "image/build.py"), "--output", str(other)]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}, check=True)
    assert other.read_bytes() == image.read_bytes()
