#!/usr/bin/python3
"""Builds the agent's image without Docker: `image/build.py [--variant bcc] [--architecture arm64] [--output FILE]`.

Two layers: Debian's Python (root.py), and our agent with its libbpf. Equal sources and packages give equal bytes. Needs
mmdebstrap and, of this project, the compiled objects (`make setup`). Gadgets are not in it: they travel with each
run. The Dockerfile makes the same image for those who have Docker, with --unpack; it repeats `config`.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from archive import Layer, write_image
from packages import STATUS, read_status, sbom
from root import PACKAGES, add_compiled, root_layer

PROJECT = Path(__file__).resolve().parent.parent
REPOSITORY = "ghcr.io/kubectl-gadget/agent"
SITE = "usr/lib/python3/dist-packages"
SBOM = "usr/share/doc/kubectl-gadget/sbom.spdx.json"
OBJECTS = {"amd64": "x86_64", "arm64": "aarch64"}


def main() -> None:
    arguments = _arguments()
    architecture, variant = arguments.architecture, arguments.variant
    version = _version()
    name = f"{REPOSITORY}:{version}" + ("" if variant == "default" else f"-{variant}")
    date = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    root = root_layer(architecture, variant, date)
    layers = [root, agent_layer(architecture, date, version, root)]
    if arguments.unpack:
        for layer in layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                tar.extractall(arguments.unpack, filter="fully_trusted")
        return
    config = {
        "Entrypoint": ["/usr/bin/python3", "-I", "-m", "kubectl_gadget.agent"],
        "Cmd": ["idle"],
        "Env": ["PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8"],
        "WorkingDir": "/",
        "Labels": {
            "org.opencontainers.image.title": "kubectl-gadget agent",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)",
        },
    }
    digest = write_image(arguments.output, name, architecture, layers, config)
    size = arguments.output.stat().st_size / 1e6
    report = {"image": name, "digest": digest, "file": str(arguments.output), "megabytes": round(size, 1)}
    sys.stdout.write(json.dumps(report) + "\n")


def agent_layer(architecture: str, date: int, version: str, lower: bytes) -> bytes:
    """The parts of kubectl_gadget that a node needs, with its own BPF objects, and an SBOM that includes the layer
    `lower`."""
    layer = Layer(date)
    package = PROJECT / "kubectl_gadget"
    machine = OBJECTS[architecture]
    try:
        index = json.loads((package / "built" / "payload" / "index.json").read_bytes())
    except OSError as error:
        sys.exit(f"image: the build's list of the agent's parts cannot be read: {error}. try: make setup")
    for part in index["modules"]:
        path, data = f"{SITE}/kubectl_gadget/{part}", (package / part).read_bytes()
        layer.add_file(path, data)
        if part.endswith(".py"):
            add_compiled(layer, path, data)
    for name in index["objects"]:
        own = package / "built" / "objects" / machine / f"{name}.bpf.o"
        if not own.exists():
            sys.exit(f"image: {own} is missing. try: make setup")
        layer.add_file(f"{SITE}/kubectl_gadget/{own.relative_to(package)}", own.read_bytes())
    built = f"{SITE}/kubectl_gadget/built"
    layer.add_file(f"{built}/contained.json", (package / "built" / "contained.json").read_bytes())
    # Shows a client that the image has the agent that it would send (agent/pod/bootstrap.py).
    layer.add_file(f"{built}/payload.sha256", index["payloads"][machine]["sha256"].encode())
    libraries = package / "built" / "libraries"
    for file in (libraries / machine / "libbpf-glibc.so.1", *sorted(libraries.glob("*.licence"))):
        layer.add_file(f"{SITE}/kubectl_gadget/{file.relative_to(package)}", file.read_bytes())
    linked = json.loads((libraries / "libraries.json").read_bytes())["sources"]
    licence = PROJECT / "LICENSE"
    layer.add_file("usr/share/doc/kubectl-gadget/LICENSE", licence.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(lower)) as tar:
        text = tar.extractfile(STATUS)
        assert text is not None
        installed = read_status(text.read().decode())
    layer.add_file(SBOM, sbom("kubectl-gadget-agent", version, installed, date, linked))
    return layer.finish()


def _version() -> str:
    text = (PROJECT / "kubectl_gadget" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if not found:
        sys.exit("image: kubectl_gadget/__init__.py names no __version__")
    return found[1]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="image/build.py", description=__doc__)
    here = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    parser.add_argument("--variant", choices=sorted(PACKAGES), default="default")
    parser.add_argument("--architecture", choices=sorted(OBJECTS), default=here)
    parser.add_argument("--output", type=Path, default=PROJECT / "build" / "agent-image.tar")
    parser.add_argument("--unpack", type=Path, help="write the files of all layers here, and no archive")
    return parser.parse_args()


if __name__ == "__main__":
    main()
