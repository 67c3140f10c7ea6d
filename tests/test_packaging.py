"""The wheel and the source distribution, as built by pip."""

import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from kubectl_gadget.gadgets.pack_libbpf import LIBCS, SOURCES, libbpf_path
from tests.gadget_run import PROJECT

pytestmark = pytest.mark.compiled


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    hatchling(PROJECT, "sdist", folder)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    hatchling(PROJECT, "wheel", folder)
    (archive,) = folder.glob("*.whl")
    return archive


def hatchling(project: Path, target: str, folder: Path, path: str | None = None) -> None:
    environment = os.environ | ({"PATH": path} if path is not None else {})
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def unpack(source: Path, folder: Path) -> Path:
    with tarfile.open(source) as tar:
        tar.extractall(folder, filter="data")
    (project,) = folder.iterdir()
    return project


def test_the_wheel_is_for_every_platform(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_holds_objects_for_both_architectures_and_the_gadgets(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    gadgets = {path.stem for path in (PROJECT / "gadgets").glob("*.yaml")}
    assert {"trace_open", "trace_exec"} <= gadgets
    for gadget in gadgets:
        assert f"kubectl_gadget/built/gadgets/{gadget}.json" in names
    for program in (*gadgets, "containers", "policy", "single_file"):
        assert f"kubectl_gadget/built/objects/x86_64/{program}.bpf.o" in names
    for program in ("containers", "syscalls", "single_file"):
        assert f"kubectl_gadget/built/objects/aarch64/{program}.bpf.o" in names
    texts = zipfile.ZipFile(wheel).read("kubectl_gadget/built/commands/all.txt").decode()
    commands = {line.partition("\t")[0] for line in texts.splitlines()[1:]}
    assert {f"kubectl gadget{name}" for name in ("", " trace open", " ci run")} <= commands


def test_the_wheel_holds_what_a_users_own_gadget_and_a_deployment_need(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "kubectl_gadget/built/include/gadget/record.h" in names
    assert "kubectl_gadget/built/manifests/daemonset.yaml" in names


def test_the_wheel_installs_no_other_package(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top.partition("-")[0] for top in tops} == {"kubectl_gadget"}


def test_the_wheel_holds_the_agent_that_travels_for_both_architectures(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    index = json.loads(archive.read("kubectl_gadget/built/payload/index.json"))
    assert set(index["payloads"]) == {"x86_64", "aarch64"}
    for machine, one in index["payloads"].items():
        data = b"".join(archive.read(f"kubectl_gadget/built/payload/{name}.xz") for name in ("common", machine))
        assert hashlib.sha256(lzma.decompress(data)).hexdigest() == one["sha256"]


def test_the_wheel_holds_libbpf_for_this_machine_of_both_architectures_with_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    paths = [libbpf_path(machine, libc) for machine in ("x86_64", "aarch64") for libc in LIBCS]
    wanted = [*paths, "libraries.json", *(f"{source}.licence" for source in SOURCES)]
    found = [name for name in names if name.startswith("kubectl_gadget/built/libraries/")]
    assert sorted(found) == sorted(f"kubectl_gadget/built/libraries/{name}" for name in wanted)


def test_the_wheel_has_the_same_objects_for_both_architectures(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    first, second = (
        {Path(name).name for name in names if name.startswith(f"kubectl_gadget/built/objects/{machine}/")}
        for machine in ("x86_64", "aarch64")
    )
    assert first == second
    assert {"trace_open.bpf.o", "policy.bpf.o", "tcpdump.bpf.o"} <= first


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 6.2e6


def test_a_source_distribution_makes_a_wheel_where_there_is_no_clang(source: Path, tmp_path: Path) -> None:
    hatchling(unpack(source, tmp_path / "source"), "wheel", tmp_path / "wheel", path="")
    (wheel,) = (tmp_path / "wheel").iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert "kubectl_gadget/built/objects/aarch64/trace_open.bpf.o" in names
    assert {f"kubectl_gadget/built/payload/{name}.xz" for name in ("common", "x86_64", "aarch64")} <= set(names)


def test_a_source_distribution_is_not_compiled_again_where_clang_is(source: Path, tmp_path: Path) -> None:
    project = unpack(source, tmp_path / "source")
    objects = sorted((project / "kubectl_gadget" / "built" / "objects").rglob("*.o"))
    before = [path.stat().st_mtime_ns for path in objects]
    hatchling(project, "wheel", tmp_path / "wheel")
    assert objects
    assert [path.stat().st_mtime_ns for path in objects] == before


def test_a_wheel_without_the_agent_is_made_only_on_demand(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip shows a warning of a build to nobody."""
    project = unpack(source, tmp_path / "source")
    for folder in ("libraries", "payload"):
        shutil.rmtree(project / "kubectl_gadget" / "built" / folder)
    (tmp_path / "mmdebstrap").write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    (tmp_path / "mmdebstrap").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    with pytest.raises(RuntimeError, match=r"agent for clusters cannot be built: .*no network.*WITHOUT_AGENT=1"):
        hatchling(project, "wheel", tmp_path / "wheel", path)
    monkeypatch.setenv("KUBECTL_GADGET_WITHOUT_AGENT", "1")
    hatchling(project, "wheel", tmp_path / "wheel", path)
    assert list((tmp_path / "wheel").glob("*.whl"))


def test_without_clang_and_objects_the_build_ends_with_one_line_that_names_clang(source: Path, tmp_path: Path) -> None:
    project = unpack(source, tmp_path / "source")
    for compiled in (project / "kubectl_gadget" / "built").rglob("*.o"):
        compiled.unlink()
    with pytest.raises(RuntimeError, match=r"clang.* is not installed.*try: apt-get install") as caught:
        hatchling(project, "wheel", tmp_path / "wheel", path="")
    assert len(str(caught.value).strip().splitlines()) == 1
