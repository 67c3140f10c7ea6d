"""Servers of object stores, for tests: moto for S3, Azurite for Azure, each in build/object-servers.

The server, moto, needs an older python-dateutil than the program's packages, so it has a virtual environment of its
own. Google's XML API is that of S3 with other headers, so moto serves it behind a filter that renames them.
"""

import base64
import fcntl
import hashlib
import hmac
import shutil
import socket
import subprocess
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.waiting import wait_until

FOLDER = Path(__file__).resolve().parent.parent.parent / "build" / "object-servers"
_MOTO = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
app = DomainDispatcherApplication(create_backend_app)
def google(environ, start):
    if environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH") == "0":
        environ["HTTP_IF_NONE_MATCH"] = "*"
    if not environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4"):
        scope = "key/20260101/us-east-1/s3/aws4_request"
        environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
    def answer(status, headers, *rest):
        return start(status, [*headers, ("x-goog-generation", "1")], *rest)
    return app(environ, answer)
run_simple("127.0.0.1", int(sys.argv[1]), google, threaded=True)
"""


def _installed(name: str, command: list[str], made: Path) -> None:
    """Runs what installs a server, once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():
            return
        if name == "moto":
            venv.create(FOLDER / name, with_pip=True)
        done = subprocess.run(command, cwd=FOLDER, check=False, capture_output=True, text=True, timeout=500)
        if done.returncode or not made.exists():
            pytest.skip(f"{name} could not be installed from its registry: {done.stderr[-300:]}")


@contextmanager
def _served(command: list[str], port: int) -> Iterator[str]:
    process = subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), f"{command[0]} to listen", over=lambda: process.poll() is not None)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def s3() -> Iterator[str]:
    """A server of S3 and of Google's XML API, with the bucket `bucket`. Yields its URL."""
    python = FOLDER / "moto/bin/python"
    packages = ["moto[s3]>=5.2", "flask", "flask-cors"]
    _installed("moto", [str(python), "-m", "pip", "install", "-q", *packages], python.parent / "moto_server")
    port = _port()
    with _served([str(python), "-c", _MOTO, str(port)], port) as url:
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
        yield url


@contextmanager
def azure(folder: Path) -> Iterator[str]:
    """A server of Azure's blobs, with the container `bucket`. Yields its URL."""
    if not shutil.which("npm"):
        pytest.skip("Azurite needs npm")
    program = FOLDER / "node_modules/.bin/azurite-blob"
    _installed("azurite", ["npm", "install", "--silent", "--no-save", "azurite@3"], program)
    port = _port()
    words = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), "--disableTelemetry"]
    with _served([str(program), *words, "--skipApiVersionCheck"], port) as url:
        _create_container(url)
        yield url


def _create_container(url: str) -> None:
    """Makes the container, with the account that every Azurite has."""
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    date = formatdate(usegmt=True)
    named = f"x-ms-date:{date}\nx-ms-version:2021-12-02"
    text = f"PUT{chr(10) * 12}{named}\n/{account}/{account}/bucket\nrestype:container"
    signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": "2021-12-02", "Authorization": f"SharedKey {account}:{signature}"}
    request = urllib.request.Request(f"{url}/{account}/bucket?restype=container", method="PUT", headers=headers)
    urllib.request.urlopen(request).close()


def environment(scheme: str, url: str, folder: Path) -> dict[str, str]:
    """What tells a client where this server is, and who it is."""
    if scheme == "s3":
        named = {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        return {**named, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    if scheme == "az":
        return {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": url}
    account = folder / "account.json"
    account.write_text(
        f'{{"gcs_base_url":"{url}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}'
    )
    return {"GOOGLE_SERVICE_ACCOUNT": str(account)}
