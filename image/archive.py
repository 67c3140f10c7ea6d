"""Writes one container image as one tar file that docker, podman, containerd and skopeo can all read.

The tar is an OCI image layout (`oci-layout`, `index.json`, `blobs/`) that also contains docker's older `manifest.json`;
both name the same blobs. containerd takes the image's name from the annotation `io.containerd.image.name`, docker from
`RepoTags`, so both are written.

Formats: github.com/opencontainers/image-spec (image-layout.md, manifest.md, config.md).
"""

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEBIAN_TO_OCI = {"amd64": "amd64", "arm64": "arm64"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass
class Layer:
    """One layer: files are added in order and all get the same date, so that equal contents give equal bytes."""

    date: int
    """Seconds since 1970."""
    _buffer: io.BytesIO = field(default_factory=io.BytesIO)
    _paths: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, info: tarfile.TarInfo, data: bytes = b"") -> None:
        """Adds a member unchanged, except for its date and its owner's name."""
        info.mtime, info.uname, info.gname, info.pax_headers = self.date, "", "", {}
        self._paths.add(info.name)
        self._tar.addfile(info, io.BytesIO(data) if info.isreg() else None)

    def add_file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Adds a root-owned file and those of its parent folders that this layer does not have yet."""
        for parent in reversed(Path(path).parents):
            name = str(parent)
            if name not in {".", "/"} and name not in self._paths:
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                self.add(folder)
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(data), mode
        self.add(info, data)

    def finish(self) -> bytes:
        """The layer as an uncompressed tar. Nothing can be added afterwards."""
        self._tar.close()
        return self._buffer.getvalue()


def write_image(path: Path, name: str, architecture: str, layers: list[bytes], config: dict[str, Any]) -> str:
    """Writes the image of `layers` (uncompressed tars, lowest first) to `path`; returns the manifest's digest.

    `name` is the whole reference with its tag, `architecture` is Debian's name, `config` is the OCI "config" object
    (Entrypoint, Env, Labels, …).
    """
    blobs: dict[str, bytes] = {}

    def store(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    image = {
        "architecture": DEBIAN_TO_OCI[architecture],
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    stored_layers = [store(gzip.compress(layer, 9, mtime=0), _LAYER) for layer in layers]
    stored_config = store(_json(image), _CONFIG)
    manifest = store(
        _json({"schemaVersion": 2, "mediaType": _MANIFEST, "config": stored_config, "layers": stored_layers}), _MANIFEST
    )
    named = manifest | {
        "platform": {"architecture": image["architecture"], "os": "linux"},
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]},
    }
    docker = [
        {"Config": _blob(stored_config), "RepoTags": [name], "Layers": [_blob(layer) for layer in stored_layers]},
    ]
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [named]}),
        "manifest.json": _json(docker),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for file, data in (files | blobs).items():
            info = tarfile.TarInfo(file)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(manifest["digest"])


def _blob(descriptor: dict[str, Any]) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
