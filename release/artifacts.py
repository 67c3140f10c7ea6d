"""Everything of a release into dist/, for `make release`: `release/artifacts.py [--tag v0.1.0] [--no-images]`.

Wheel, source distribution, the archive for krew and its manifest, self-contained binaries (binary_archive.py),
the agents' images of both architectures with the index that names them by digest, SBOMs, provenance and checksums.
Equal commits and packages give equal bytes. The version stands in kubectl_gadget/__init__.py alone; a tag or a
changelog that says another one ends the build.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from binary_archive import binary_name, on_debian_12, run
from digest import IMAGE_MODULE, pinned_digest

from kubectl_gadget.gadgets.pack_libbpf import SOURCES

PROJECT = Path(__file__).resolve().parent.parent
DIST = PROJECT / "dist"
HERE = PROJECT / "release"
ARCHITECTURES = ("amd64", "arm64")
PLATFORMS = ("linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64", "windows-amd64")
IMAGE = "ghcr.io/kubectl-gadget/agent"
_INDEX = "application/vnd.oci.image.index.v1+json"
UPLOT = "1.6.32"
"""The version of kubectl_gadget/page/uplot."""
_IMAGE_SBOM = "usr/share/doc/kubectl-gadget/sbom.spdx.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="release/artifacts.py", description=__doc__)
    parser.add_argument("--tag", help="what the commit is tagged with; default: the version's own tag")
    parser.add_argument("--no-images", action="store_true", help="leave the agents' images out")
    parser.add_argument(
        "--binaries", type=Path, help="a folder with the self-contained binaries; default: makes this platform's"
    )
    parser.add_argument(
        "--wheel-only", action="store_true", help="only the wheel, of which other machines make binaries"
    )
    arguments = parser.parse_args()
    version = version_of((PROJECT / "kubectl_gadget" / "__init__.py").read_text())
    check(version, arguments.tag or f"v{version}", (PROJECT / "CHANGELOG.md").read_text())
    check_digest(IMAGE_MODULE.read_text(), arguments.tag)
    commit, date = _git("rev-parse", "HEAD"), int(_git("log", "-1", "--format=%ct"))
    os.environ["SOURCE_DATE_EPOCH"] = str(date)
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    run(sys.executable, "-m", "hatchling", "build", "-d", str(DIST))
    (wheel,) = DIST.glob("*.whl")
    if arguments.wheel_only:
        return
    if arguments.binaries:
        shutil.copytree(arguments.binaries, DIST, dirs_exist_ok=True)
    else:
        on_debian_12(wheel, DIST)
    archive = DIST / f"kubectl-gadget-{version}-krew.tar.gz"
    archive.write_bytes(krew_archive(version, wheel, date))
    template = (PROJECT / "manifests" / "krew.yaml").read_text()
    binaries = {name: DIST / binary_name(version, name) for name in PLATFORMS}
    found = {name: path for name, path in binaries.items() if path.exists()}
    (DIST / "gadget.yaml").write_text(krew_manifest(template, version, archive, found))
    requirements = (PROJECT / "requirements.txt").read_text()
    _write(DIST / f"kubectl-gadget-{version}.spdx.json", client_sbom(version, requirements, date))
    if not arguments.no_images:
        _write(DIST / "image-index.json", image_index([_image(name, version) for name in ARCHITECTURES]))
    files = sorted(DIST.iterdir())
    _write(DIST / "provenance.json", provenance(files, commit, version))
    (DIST / "SHA256SUMS").write_text(checksums([*files, DIST / "provenance.json"]))
    for path in sorted(DIST.iterdir()):
        sys.stdout.write(f"{path.stat().st_size:>12,}  {path.relative_to(PROJECT)}\n")


def version_of(source: str) -> str:
    """The version stated in the package's source."""
    found = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    if not found:
        sys.exit("release: kubectl_gadget/__init__.py names no __version__")
    return found[1]


def check(version: str, tag: str, changelog: str) -> None:
    """Ends the build if tag or changelog has another version."""
    if tag != f"v{version}":
        sys.exit(f"release: the tag is {tag}, and kubectl_gadget/__init__.py has {version}. try: git tag v{version}")
    if not re.search(rf"^## {re.escape(version)}\b", changelog, re.MULTILINE):
        sys.exit(f"release: CHANGELOG.md has no section {version}. try: cut Unreleased to `## {version}`")


def check_digest(source: str, tag: str | None) -> None:
    """Ends the build of a tag whose default image could be another one tomorrow."""
    if tag and not pinned_digest(source):
        sys.exit(f"release: {tag} names the agents' default image without its digest. try: make digest")


def krew_archive(version: str, wheel: Path, date: int) -> bytes:
    """One archive for all platforms: launcher, wheel, and the files installed with them."""
    launcher = (HERE / "kubectl-gadget").read_text().replace("@VERSION@", version).replace("@WHEEL@", wheel.name)
    files = {
        "kubectl-gadget": launcher.encode(),
        wheel.name: wheel.read_bytes(),
        "requirements.txt": (PROJECT / "requirements.txt").read_bytes(),
        "LICENSE": (PROJECT / "LICENSE").read_bytes(),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), date, 0o755 if name == "kubectl-gadget" else 0o644
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), 9, mtime=0)


def krew_manifest(template: str, version: str, launcher: Path, binaries: Mapping[str, Path]) -> str:
    """manifests/krew.yaml with the version, and with each platform's own archive from `binaries`, by names such as
    linux-amd64. Other platforms get the one with the launcher, which is a shell script, so not Windows."""
    text = re.sub(r"^# .*\n", "", template, flags=re.MULTILINE)
    text = re.sub(r"version: v\S+", f"version: v{version}", text)

    def platform(found: re.Match[str]) -> str:
        entry, system, machine = found[0], found[1], found[2]
        archive = binaries.get(f"{system}-{machine}")
        if archive:
            program = "kubectl-gadget/kubectl-gadget" + (".exe" if system == "windows" else "")
            entry = re.sub(r"bin: \S+", f"bin: {program}", entry)
        elif system == "windows":
            return ""
        archive = archive or launcher
        entry = re.sub(r"download/v[^/]+/\S+", f"download/v{version}/{archive.name}", entry)
        return entry.replace("0" * 64, _sha256(archive))

    return re.sub(r"    - selector: .*os: (\w+), arch: (\w+).*\n(?:      .*\n)+", platform, text)


def client_sbom(version: str, requirements: str, date: int) -> dict[str, Any]:
    """SPDX 2.3 of the client: itself, each package of requirements.txt, the sources of its libbpf, and the script that
    draws the charts of its reports."""
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", requirements, re.MULTILINE)
    linked: list[dict[str, object]] = [
        {
            "SPDXID": f"SPDXRef-source-{name}",
            "name": name,
            "versionInfo": one.version,
            "downloadLocation": "NOASSERTION",
            "licenseConcluded": one.licence,
            "sourceInfo": f"linked into libbpf, from Debian's {one.archive} with SHA-256 {one.sha256}",
        }
        for name, one in SOURCES.items()
    ]
    linked.append(
        {
            "SPDXID": "SPDXRef-source-uplot",
            "name": "uplot",
            "versionInfo": UPLOT,
            "downloadLocation": "NOASSERTION",
            "licenseConcluded": "MIT",
            "sourceInfo": f"kubectl_gadget/page/uplot, from npm's uplot {UPLOT}, as it is there",
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": f"pkg:npm/uplot@{UPLOT}",
                }
            ],
        }
    )
    packages = [("kubectl-gadget", version), *pairs]
    ids = [f"SPDXRef-{name}-{number}" for number, (name, _) in enumerate(packages)]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"kubectl-gadget-{version}",
        "documentNamespace": f"https://github.com/kubectl-gadget/kubectl-gadget/releases/download/v{version}/sbom",
        "creationInfo": {"created": _time(date), "creators": ["Tool: release/artifacts.py"]},
        "packages": [
            {
                "SPDXID": id,
                "name": name,
                "versionInfo": number,
                "downloadLocation": "NOASSERTION",
                "externalRefs": [
                    {
                        "referenceCategory": "PACKAGE-MANAGER",
                        "referenceType": "purl",
                        "referenceLocator": f"pkg:pypi/{name}@{number}",
                    }
                ],
            }
            for id, (name, number) in zip(ids, packages, strict=True)
        ]
        + linked,
        "relationships": [
            {"spdxElementId": ids[0], "relationshipType": "DEPENDS_ON", "relatedSpdxElement": id}
            for id in (*ids[1:], *(one["SPDXID"] for one in linked))
        ],
    }


def image_index(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The OCI index of the images of all architectures; its digest identifies them all."""
    return {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}


def provenance(files: list[Path], commit: str, version: str) -> dict[str, Any]:
    """An in-toto statement (SLSA v1) of what was built from which commit. Unsigned: a workflow signs its own."""
    source = {"uri": f"git+https://github.com/kubectl-gadget/kubectl-gadget@refs/tags/v{version}"}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": _sha256(path)}} for path in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://github.com/kubectl-gadget/kubectl-gadget/blob/main/release/artifacts.py",
                "externalParameters": {"version": version},
                "resolvedDependencies": [source | {"digest": {"gitCommit": commit}}],
            },
            "runDetails": {"builder": {"id": os.environ.get("GITHUB_WORKFLOW_REF", "by hand: make release")}},
        },
    }


def checksums(files: list[Path]) -> str:
    """Checksums in the format of sha256sum."""
    return "".join(f"{_sha256(path)}  {path.name}\n" for path in sorted(files))


def _image(architecture: str, version: str) -> dict[str, Any]:
    """Builds one image and returns its entry in the index. Its SBOM is written next to it."""
    path = DIST / f"kubectl-gadget-agent-{version}-{architecture}.tar"
    run("/usr/bin/python3", "image/build.py", "--architecture", architecture, "--output", str(path))
    with tarfile.open(path) as tar:

        def member(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        entry: dict[str, Any] = json.loads(member("index.json"))["manifests"][0]
        manifest = json.loads(member("blobs/sha256/" + entry["digest"].removeprefix("sha256:")))
        layer = gzip.decompress(member("blobs/sha256/" + manifest["layers"][-1]["digest"].removeprefix("sha256:")))
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        file = inner.extractfile(_IMAGE_SBOM)
        assert file is not None
        path.with_suffix(".spdx.json").write_bytes(file.read())
    return {key: entry[key] for key in ("mediaType", "digest", "size", "platform")}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def _time(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
