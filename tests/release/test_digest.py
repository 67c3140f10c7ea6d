"""The digest of the agents' default image, which a release pins: with a program in skopeo's place."""

import hashlib
import json
from pathlib import Path

import artifacts
import digest
import pytest

from kubectl_gadget.agents import payload
from kubectl_gadget.kube.cluster_options import AgentOptions


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of payload.py, for the command to change."""
    copy = tmp_path / "payload.py"
    copy.write_text(digest.IMAGE_MODULE.read_text())
    monkeypatch.setattr(digest, "IMAGE_MODULE", copy)
    return copy


def skopeo(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "skopeo"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def index(*architectures: str) -> bytes:
    entries = [{"platform": {"os": "linux", "architecture": name}} for name in architectures]
    return json.dumps({"schemaVersion": 2, "manifests": entries}, indent=3).encode()


def test_the_digest_is_that_of_the_registrys_bytes_and_a_run_pulls_by_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index").write_bytes(index("amd64", "arm", "arm64"))
    skopeo(
        tmp_path, monkeypatch, f'[ "$*" = "inspect --raw docker://{payload.DEFAULT_IMAGE}" ] && cat {tmp_path}/index'
    )
    digest.main()
    wanted = "sha256:" + hashlib.sha256(index("amd64", "arm", "arm64")).hexdigest()
    assert digest.pinned_digest(source.read_text()) == wanted
    namespace = {"__file__": str(payload.__file__), "__name__": payload.__name__}
    exec(source.read_text(), namespace)
    assert namespace["DEFAULT_DIGEST"] == wanted
    monkeypatch.setattr(payload, "DEFAULT_DIGEST", wanted)
    assert payload.image_of(AgentOptions()) == f"docker.io/library/python:3.13-slim@{wanted}"
    mirror = AgentOptions(image_mirror="registry.example")
    assert payload.image_of(mirror) == f"registry.example/library/python:3.13-slim@{wanted}"
    assert payload.image_of(AgentOptions(image="python:3.13-slim")) == "python:3.13-slim"
    digest.main()  # anew, over the old one
    assert source.read_text().count(wanted) == 1


@pytest.mark.parametrize("answer", [index("amd64"), b'{"schemaVersion": 2, "config": {}}'])
def test_an_image_of_some_architectures_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    (tmp_path / "index").write_bytes(answer)
    skopeo(tmp_path, monkeypatch, f"cat {tmp_path}/index")
    before = source.read_text()
    with pytest.raises(SystemExit, match=r"has no image for .*arm64"):
        digest.main()
    assert source.read_text() == before


def test_a_registry_that_does_not_answer_ends_it_with_its_words(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skopeo(tmp_path, monkeypatch, "echo no such host >&2; exit 1")
    with pytest.raises(SystemExit, match=r"does not give docker\.io/library/python:3\.13-slim: no such host"):
        digest.main()
    (tmp_path / "skopeo").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install skopeo"):
        digest.main()


def test_a_tag_without_the_digest_ends_the_release() -> None:
    source = digest.IMAGE_MODULE.read_text()
    pinned = digest._DIGEST.sub('DEFAULT_DIGEST = "sha256:00"', source)
    artifacts.check_digest(pinned, "v9.8.7")
    unpinned = digest._DIGEST.sub('DEFAULT_DIGEST = ""', source)
    artifacts.check_digest(unpinned, None)
    with pytest.raises(SystemExit, match=r"v9\.8\.7 .* try: make digest"):
        artifacts.check_digest(unpinned, "v9.8.7")
