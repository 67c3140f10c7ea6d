"""Starts an agent of the client's version in any pod with Python: the text that exec passes to `python3 -I -c`.

    python3 -I -c TEXT x86_64=LENGTH:SHA256,aarch64=LENGTH:SHA256 session …

It uses the payload that an earlier process kept in the pod or that the deployment's ConfigMap has, or the same agent in
the pod's image; otherwise it requests the payload (docs/protocol.md, BOOT). Two xz streams, together of LENGTH bytes,
are sent, or are in the ConfigMap; the hash is that of their content, which is kept. Then the payload's head,
unpacking.py, takes over. The pod's own processes (main process, liveness probe) and contained agents never request it.

The traps: this text is in each exec's URL and in the audit log, so it is short, and the build removes docstrings,
comments and annotations from it (gadgets/pack_payload.py). It must be valid for old Pythons (no walrus, no match), or
it could not report that they are too old. A payload is run only if it has the hash in the command. Two things are
trusted without: an image that claims that hash, and modules compiled from such a payload in the same pod
(own_files.py).
"""

import os
import sys

machine = os.uname().machine
get = os.environ.get
offers = dict(offer.split("=") for offer in sys.argv.pop(1).split(","))
OTHER = "try: --image docker.io/library/python:3.13-slim"
if sys.version_info < (3, 9):  # noqa: UP036
    sys.exit(f"this image has Python {sys.version.split()[0]}, and the agent needs 3.9 or newer. {OTHER}")
if machine not in offers:
    sys.exit(f"this node is {machine}, and there are agents for {', '.join(offers)} only")
length, wanted = offers[machine].split(":")
try:
    import lzma
except ImportError as error:
    sys.exit(f"this image's Python is incomplete: {error}. {OTHER}")
try:
    from _sha2 import sha256  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha256


asks = sys.argv[1] not in ("idle", "alive", "policies") and get("KUBECTL_GADGET_CONTAINED") != "1"


def say(text: str) -> None:
    if sys.argv[1] in ("session", "pins", "release"):
        os.write(1, b"kg\1\x0b" + len(text).to_bytes(4, "little") + text.encode())


def is_wanted(data: bytes) -> bool:
    return bool(sha256(data).hexdigest() == wanted)


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def unpacked(data: bytes) -> bytes:
    first = lzma.LZMADecompressor()
    try:
        found = first.decompress(data, 1 << 26)
        return found + lzma.LZMADecompressor().decompress(first.unused_data, 1 << 26)
    except lzma.LZMAError:
        return b""


is_ours = any(read(f"{folder}/kubectl_gadget/built/payload.sha256") == wanted.encode() for folder in sys.path)
kept = f"{get('KUBECTL_GADGET_RUN', '/dev/shm')}/kubectl-gadget.{wanted}"
place, payload = kept, read(kept)
if not is_ours and not is_wanted(payload):
    place, payload = "", unpacked(read(f"{get('KUBECTL_GADGET_AGENT', '/agent')}/{machine}.xz"))
if is_ours or place or is_wanted(payload):
    say("have")
elif not asks:
    sys.exit("the ConfigMap holds another version of the agent. try: kubectl gadget deploy")
else:
    payload = b""
    say(f"send {machine}")
    size = int(length) + 8
    while len(payload) < size:
        piece = os.read(0, size - len(payload))
        if not piece:
            sys.exit(f"the agent was truncated in transfer: {len(payload)} of {size} bytes. try: run it again")
        payload += piece
    payload = unpacked(payload[8:])
    if not is_wanted(payload):
        sys.exit("the agent was changed in transfer: its SHA-256 is wrong. try: run it again")
if not is_ours:
    exec(payload[: payload.index(b"PK\3\4")])
from kubectl_gadget.agent.__main__ import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
