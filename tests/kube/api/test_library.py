"""The kubernetes library, imported in a fresh process without what a run does not use."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

LEFT_OUT = ("multiprocessing", "pydantic", "dateutil", "oauthlib", "requests", "kubernetes.watch", "kubernetes.stream")
CONNECT = """
import json, sys
from kubectl_gadget.kube.api.connection import Connection
from kubectl_gadget.kube.api.credentials import authorization
from kubectl_gadget.kube.api.kubeconfig import load
from kubectl_gadget.kube.cluster_options import KubeOptions
connection = Connection(load(KubeOptions(kubeconfig=sys.argv[1])))
header = authorization(connection.route().client.configuration)
print(json.dumps({"authorization": header, "imported": list(sys.modules)}))
"""
OTHER_VERSION = """
from kubectl_gadget.kube.api import library
def without_a_name():
    made = library._module("pydantic")
    return {made.__name__: made}
library._stand_ins = without_a_name
"""
BARE_TOKEN = "new.eyJleHAiOjk5OTk5OTk5OTl9.signed"


def connect(path: Path, user: dict[str, object], before: str = "") -> tuple[str, set[str]]:
    """Returns the header that identifies us, and the names of the modules that were imported."""
    named = {name: [{"name": "a", name[:-1]: value}] for name, value in (("users", user), ("contexts", {}))}
    named["contexts"][0]["context"] = {"cluster": "a", "user": "a"}
    clusters = [{"name": "a", "cluster": {"server": "https://a.test:6443"}}]
    path.write_text(yaml.safe_dump({"current-context": "a", "clusters": clusters, **named}))
    environment = os.environ | {"OAUTHLIB_INSECURE_TRANSPORT": "1", "NO_PROXY": "*"}
    words = [sys.executable, "-c", before + CONNECT, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["authorization"], set(found["imported"])


def test_a_token_needs_none_of_the_packages_that_are_left_out(tmp_path: Path) -> None:
    authorization, imported = connect(tmp_path / "k", {"token": "t"})
    assert authorization == "Bearer t"
    assert imported.isdisjoint(LEFT_OUT)


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")
def test_the_library_reads_kubeconfigs_with_libyaml(tmp_path: Path) -> None:
    authorization, _ = connect(tmp_path / "k", {"token": "t"}, "import yaml; yaml.SafeLoader = None\n")
    assert authorization == "Bearer t"


def test_another_version_that_needs_more_is_imported_as_a_whole(tmp_path: Path) -> None:
    authorization, imported = connect(tmp_path / "k", {"token": "t"}, OTHER_VERSION)
    assert authorization == "Bearer t"
    assert imported.issuperset(LEFT_OUT)


class Issuer(BaseHTTPRequestHandler):
    """Renews any token."""

    def do_GET(self) -> None:
        self._answer({"token_endpoint": f"http://{self.headers['Host']}/token"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"id_token": BARE_TOKEN, "refresh_token": "r2", "access_token": "a", "token_type": "Bearer"})

    def _answer(self, value: dict[str, str]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def issuer() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Issuer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_oidc_token_that_has_ended_is_renewed(tmp_path: Path, issuer: str) -> None:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": 1}).encode()).decode().rstrip("=")
    config = {"idp-issuer-url": issuer, "client-id": "c", "client-secret": "s", "refresh-token": "r1"}
    provider = {"name": "oidc", "config": {**config, "id-token": f"old.{payload}.signed"}}
    authorization, imported = connect(tmp_path / "k", {"auth-provider": provider})
    assert authorization == f"Bearer {BARE_TOKEN}"
    assert "oauthlib" in imported
