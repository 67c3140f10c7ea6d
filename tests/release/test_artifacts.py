"""What `make release` makes of the sources, without building them."""

import hashlib
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import artifacts
import binary
import binary_archive
import pytest
import yaml

from kubectl_gadget.gadgets.pack_libbpf import SOURCES
from kubectl_gadget.python_process import module_command
from tests.gadget_run import PROJECT

LOCKS = ("requirements.txt", "requirements-dev.txt")


def test_a_tag_or_a_changelog_of_another_version_ends_the_build() -> None:
    artifacts.check("1.2.0", "v1.2.0", "## Unreleased\n\n## 1.2.0\n")
    with pytest.raises(SystemExit, match=r"git tag v1\.2\.0"):
        artifacts.check("1.2.0", "v1.2.1", "## 1.2.0\n")
    with pytest.raises(SystemExit, match="has no section"):
        artifacts.check("1.2.0", "v1.2.0", "## Unreleased\n\n## 1.2.01\n")


def test_the_version_is_in_the_changelog() -> None:
    version = artifacts.version_of((PROJECT / "kubectl_gadget" / "__init__.py").read_text())
    artifacts.check(version, f"v{version}", (PROJECT / "CHANGELOG.md").read_text())


def test_the_manifest_for_krew_names_each_platforms_own_archive_with_its_checksum(tmp_path: Path) -> None:
    template = (PROJECT / "manifests" / "krew.yaml").read_text()
    launcher = tmp_path / "kubectl-gadget-9.8.7-krew.tar.gz"
    launcher.write_bytes(b"launcher")
    binaries = {name: tmp_path / binary_archive.binary_name("9.8.7", name) for name in artifacts.PLATFORMS}
    for name, path in binaries.items():
        path.write_bytes(name.encode())
    for missing in ((), ("darwin-arm64", "windows-amd64"), artifacts.PLATFORMS):
        had = {name: path for name, path in binaries.items() if name not in missing}
        spec = yaml.safe_load(artifacts.krew_manifest(template, "9.8.7", launcher, had))["spec"]
        assert spec["version"] == "v9.8.7"
        found = {}
        for platform in spec["platforms"]:
            labels = platform["selector"]["matchLabels"]
            name = f"{labels['os']}-{labels['arch']}"
            found[name] = platform["bin"]
            archive = had.get(name, launcher)
            assert platform["uri"].endswith(f"/download/v9.8.7/{archive.name}")
            assert platform["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
        wanted = {name: "kubectl-gadget/kubectl-gadget" if name in had else "kubectl-gadget" for name in binaries}
        # The launcher is a shell script.
        wanted["windows-amd64"] += ".exe"
        assert found == {name: program for name, program in wanted.items() if name in had or "windows" not in name}


def test_every_platform_of_the_manifest_is_built_by_the_workflow() -> None:
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "release.yml").read_text())
    matrix = workflow["jobs"]["binary"]["strategy"]["matrix"]["include"]
    assert {entry["platform"] for entry in matrix} == set(artifacts.PLATFORMS)
    assert {entry.get("container") for entry in matrix if "linux" in entry["platform"]} == {"debian:bookworm"}
    steps = " ".join(step.get("run", "") for step in workflow["jobs"]["binary"]["steps"])
    assert all(package in steps for package in binary_archive._ROOT_PACKAGES.split(","))


def test_the_binarys_archive_has_no_links_since_krew_refuses_them(tmp_path: Path) -> None:
    folder = tmp_path / "kubectl-gadget"
    (folder / "libraries").mkdir(parents=True)
    (folder / "kubectl-gadget").write_bytes(b"program")
    (folder / "kubectl-gadget").chmod(0o755)
    (folder / "libraries" / "a.so").write_bytes(b"a")
    (folder / "a.so").symlink_to("libraries/a.so")
    (folder / "more").symlink_to("libraries")
    packed = binary_archive.packed(folder, 1)
    assert packed == binary_archive.packed(folder, 1)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert all(member.isreg() or member.isdir() for member in members.values())
        linked = {name: tar.extractfile(name) for name in ("kubectl-gadget/a.so", "kubectl-gadget/more/a.so")}
        assert [file.read() for file in linked.values() if file] == [b"a", b"a"]
    assert members["kubectl-gadget/kubectl-gadget"].mode == 0o755
    assert not any(".." in name for name in members)


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [("linux", "aarch64", "linux-arm64"), ("darwin", "x86_64", "darwin-amd64"), ("win32", "AMD64", "windows-amd64")],
)
def test_a_binary_has_the_name_that_krew_uses_for_the_platform(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, name: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert binary_archive.platform_name() == name
    assert name in artifacts.PLATFORMS


def test_the_archive_for_krew_is_the_same_each_time_and_its_launcher_is_a_script(tmp_path: Path) -> None:
    wheel = tmp_path / "kubectl_gadget-9.8.7-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    packed = artifacts.krew_archive("9.8.7", wheel, 1)
    assert packed == artifacts.krew_archive("9.8.7", wheel, 1)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert {wheel.name, "requirements.txt", "LICENSE", "kubectl-gadget"} == set(tar.getnames())
        assert tar.getmember("kubectl-gadget").mode == 0o755
        launcher = tar.extractfile("kubectl-gadget")
        assert launcher is not None
        text = launcher.read().decode()
    assert "@" not in re.sub(r'"\$@"', "", text)
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_the_launcher_runs_what_is_installed_through_krews_link(tmp_path: Path) -> None:
    installed = tmp_path / "data" / "kubectl-gadget" / "9.8.7"
    (installed / "bin").mkdir(parents=True)
    (installed / "complete").touch()
    program = installed / "bin" / "kubectl-gadget"
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    program.chmod(0o755)
    launcher = tmp_path / "store" / "launcher"
    launcher.parent.mkdir()
    launcher.write_text((PROJECT / "release" / "kubectl-gadget").read_text().replace("@VERSION@", "9.8.7"))
    launcher.chmod(0o755)
    (tmp_path / "kubectl-gadget").symlink_to("store/launcher")
    command = [str(tmp_path / "kubectl-gadget"), "list", "a b"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "XDG_DATA_HOME": str(tmp_path / "data")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "list|a b|"


def test_checksums_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    sums = artifacts.checksums([tmp_path / "b", tmp_path / "a"])
    assert sums == "".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in (("a", b"1"), ("b", b"2")))


def test_the_sbom_has_every_package_of_the_lock_file_once() -> None:
    text = 'a-b==1.2 \\\n    --hash=sha256:00\nc==3 ; python_version < "3.12" \\\n'
    packages = artifacts.client_sbom("9.8.7", text, 0)["packages"]
    assert [(found["name"], found["versionInfo"]) for found in packages] == [
        ("kubectl-gadget", "9.8.7"),
        ("a-b", "1.2"),
        ("c", "3"),
        *((name, source.version) for name, source in SOURCES.items()),
        ("uplot", artifacts.UPLOT),
    ]
    assert len({found["SPDXID"] for found in packages}) == 4 + len(SOURCES)
    chart = (PROJECT / "kubectl_gadget/page/uplot/uPlot.iife.min.js").read_text()
    assert f"(v{artifacts.UPLOT})" in chart.partition("\n")[0]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_has_a_hash_for_all_and_no_address(name: str) -> None:
    text = (PROJECT / name).read_text()
    assert "://" not in text
    assert "--index-url" not in text
    for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        assert entry.count("--hash=sha256:") >= 1, entry


def test_the_lock_files_have_what_the_project_asks_for() -> None:
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    dev = project["optional-dependencies"]["dev"]
    for name, wanted in ((LOCKS[0], project["dependencies"]), (LOCKS[1], [*project["dependencies"], *dev])):
        pins: dict[str, list[str]] = {}
        for package, version in re.findall(
            r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (PROJECT / name).read_text(), re.MULTILINE
        ):
            pins.setdefault(package.lower(), []).append(version)
        for requirement in map(Requirement, wanted):
            found = pins.get(requirement.name.lower(), [])
            assert found, f"{name} lacks {requirement.name}. try: make lock"
            assert all(requirement.specifier.contains(version) for version in found), requirement


def test_the_tools_that_make_the_binary_are_pinned_with_their_hashes() -> None:
    text = binary_archive.pinned((PROJECT / "requirements-dev.txt").read_text(), binary_archive.TOOLS)
    assert re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE) == list(binary_archive.TOOLS)
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\S)", text.strip()))


def test_the_binary_runs_a_module_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    command = module_command("kubectl_gadget.agent", "session", "--local", "--nonsense")
    assert command[0] == sys.executable
    run = [sys.executable, str(PROJECT / "release" / "binary.py"), *command[1:]]
    done = subprocess.run(run, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "-m kubectl_gadget.agent session" in done.stderr
    run[2:] = ["version", "--client"]
    assert "Client: " in subprocess.run(run, capture_output=True, text=True, check=True).stdout


def test_programs_that_the_binary_starts_do_not_load_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "AUTHORITIES", ())
    environment = {"LD_LIBRARY_PATH": "/opt/kubectl-gadget/_internal", "HOME": "/root"}
    binary.set_up(environment)
    assert environment == {"HOME": "/root"}
    environment = {"LD_LIBRARY_PATH": "/opt/kubectl-gadget/_internal:/mine", "LD_LIBRARY_PATH_ORIG": "/mine"}
    binary.set_up(environment)
    assert environment == {"LD_LIBRARY_PATH": "/mine"}


def test_the_binary_trusts_what_the_machine_trusts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "ca-bundle.crt"
    bundle.touch()
    monkeypatch.setattr(binary, "AUTHORITIES", (str(tmp_path / "elsewhere"), str(bundle)))
    environment: dict[str, str] = {}
    binary.set_up(environment)
    assert environment == {"SSL_CERT_FILE": str(bundle)}
    environment = {"SSL_CERT_DIR": "/mine"}
    binary.set_up(environment)
    assert environment == {"SSL_CERT_DIR": "/mine"}
