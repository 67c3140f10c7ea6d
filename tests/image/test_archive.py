import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from archive import Layer, write_image

NAME = "ghcr.io/kubectl-gadget/agent:1"


def layer() -> bytes:
    made = Layer(date=0)
    made.add_file("usr/bin/tool", b"content", 0o755)
    made.add_file("usr/bin/other", b"")
    return made.finish()


@pytest.fixture
def image(tmp_path: Path) -> tarfile.TarFile:
    write_image(tmp_path / "image.tar", NAME, "arm64", [layer(), layer()], {"Cmd": ["idle"]})
    return tarfile.open(tmp_path / "image.tar")


def read(image: tarfile.TarFile, path: str) -> bytes:
    file = image.extractfile(path)
    assert file is not None
    return file.read()


def test_folders_come_once_and_before_what_is_in_them() -> None:
    with tarfile.open(fileobj=io.BytesIO(layer())) as tar:
        assert tar.getnames() == ["usr", "usr/bin", "usr/bin/tool", "usr/bin/other"]
        assert tar.getmember("usr/bin/tool").mode == 0o755


def test_equal_contents_give_equal_bytes() -> None:
    assert layer() == layer()


def test_every_blob_has_the_digest_it_is_named_by(image: tarfile.TarFile) -> None:
    blobs = [name for name in image.getnames() if name.startswith("blobs/")]
    assert len(blobs) == 3  # manifest, config, and the two equal layers as one
    assert all(hashlib.sha256(read(image, name)).hexdigest() == name.rpartition("/")[2] for name in blobs)


def test_docker_and_oci_name_the_same_image(image: tarfile.TarFile) -> None:
    (docker,) = json.loads(read(image, "manifest.json"))
    (descriptor,) = json.loads(read(image, "index.json"))["manifests"]
    manifest = json.loads(read(image, "blobs/" + descriptor["digest"].replace(":", "/")))
    assert docker["RepoTags"] == [descriptor["annotations"]["io.containerd.image.name"]] == [NAME]
    assert docker["Config"] == "blobs/" + manifest["config"]["digest"].replace(":", "/")
    assert docker["Layers"] == ["blobs/" + layer["digest"].replace(":", "/") for layer in manifest["layers"]]
    assert descriptor["platform"] == {"architecture": "arm64", "os": "linux"}


def test_the_config_names_layers_by_their_uncompressed_digest(image: tarfile.TarFile) -> None:
    (docker,) = json.loads(read(image, "manifest.json"))
    config = json.loads(read(image, docker["Config"]))
    plain = [gzip.decompress(read(image, path)) for path in docker["Layers"]]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(data).hexdigest() for data in plain]
    assert config["config"] == {"Cmd": ["idle"]}
