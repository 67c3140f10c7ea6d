"""Pins the agents' default image before a release is tagged, for `make digest`: writes its digest into payload.py.

It asks the image's registry, by skopeo. A commit names the digest, so it can be reviewed, and equal commits still give
equal releases; release/artifacts.py refuses a tag without one. The digest must be that of the index of all
architectures. That of one architecture's image would fail on the other nodes.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

IMAGE_MODULE = Path(__file__).resolve().parent.parent / "kubectl_gadget" / "agents" / "payload.py"
ARCHITECTURES = {"amd64", "arm64"}
_NAME = re.compile(r'^DEFAULT_IMAGE = "(.+)"$', re.MULTILINE)
_DIGEST = re.compile(r'^DEFAULT_DIGEST = "(.*)"$', re.MULTILINE)


def main() -> None:
    source = IMAGE_MODULE.read_text()
    name = _NAME.findall(source)[0]
    digest = digest_of(name, index_of(name))
    IMAGE_MODULE.write_text(_DIGEST.sub(f'DEFAULT_DIGEST = "{digest}"', source))
    sys.stdout.write(f"{name} is {digest}. Now commit {IMAGE_MODULE.name}\n")


def pinned_digest(source: str) -> str:
    """The digest that payload.py has, "" for none."""
    return str(_DIGEST.findall(source)[0])


def index_of(name: str) -> bytes:
    """What the registry has for the image, byte for byte. Raises SystemExit."""
    try:
        done = subprocess.run(["skopeo", "inspect", "--raw", f"docker://{name}"], capture_output=True, check=False)
    except FileNotFoundError:
        sys.exit("digest: skopeo is missing. try: apt-get install skopeo")
    if done.returncode:
        sys.exit(f"digest: the registry does not give {name}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def digest_of(name: str, index: bytes) -> str:
    """The digest of an index. Raises SystemExit if an architecture is missing."""
    platforms = [entry.get("platform") or {} for entry in json.loads(index).get("manifests") or []]
    found = {platform.get("architecture") for platform in platforms if platform.get("os") == "linux"}
    if missing := ARCHITECTURES - found:
        sys.exit(f"digest: {name} has no image for {' and '.join(sorted(missing))}")
    return f"sha256:{hashlib.sha256(index).hexdigest()}"


if __name__ == "__main__":
    main()
