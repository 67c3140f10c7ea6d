"""Credential plugins and other ways to prove who we are, through real child processes and real requests."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.asyncio.client import ClientConnection

from kubectl_gadget.errors import ClusterError
from kubectl_gadget.kube.cluster_options import KubeOptions
from kubectl_gadget.kube.connection import Connection
from kubectl_gadget.kube.failure import Access, StatusError
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import NODES, PODS
from kubectl_gadget.kube.websocket import close_quietly, open_websocket
from tests.fake_cluster import FakeCluster

V1 = "client.authentication.k8s.io/v1"


def connection(tmp_path: Path, user: dict[str, Any]) -> Connection:
    content = FakeCluster().kubeconfig(user)
    content["clusters"][0]["cluster"]["server"] = "https://x.test"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return Connection(load(KubeOptions(kubeconfig=str(path))))


def plugin(tmp_path: Path, code: str, **spec: Any) -> dict[str, Any]:
    script = tmp_path / "plugin.py"
    script.write_text(code)
    return {"exec": {"apiVersion": V1, "command": sys.executable, "args": [str(script)], **spec}}


def printing(status: str) -> str:
    """A plugin that prints an ExecCredential whose status is that Python expression."""
    return (
        f"import json, os\nprint(json.dumps({{'apiVersion': {V1!r}, 'kind': 'ExecCredential', 'status': {status}}}))\n"
    )


def counting(tmp_path: Path, **status: str) -> str:
    """A plugin whose token counts its calls."""
    count = (
        f"import pathlib\np = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        "n = len(p.read_text()) + 1 if p.exists() else 1\np.write_text('x' * n)\n"
    )
    return count + printing(f"{status!r} | {{'token': f'token-{{n}}'}}")


def sent(found: Connection) -> str | None:
    return found.headers(found.route()).get("Authorization")


def test_a_plugins_token_is_asked_for_once_while_it_is_valid(tmp_path: Path) -> None:
    code = counting(tmp_path, expirationTimestamp="2999-01-01T00:00:00Z")
    found = connection(tmp_path, plugin(tmp_path, code))
    assert [sent(found) for _ in range(3)] == ["Bearer token-1"] * 3


def test_a_plugins_token_that_has_ended_is_asked_for_again(tmp_path: Path) -> None:
    code = counting(tmp_path, expirationTimestamp="2000-01-01T00:00:00Z")
    found = connection(tmp_path, plugin(tmp_path, code))
    first, second = sent(found), sent(found)
    assert first != second
    assert (tmp_path / "calls").read_text() == "xxx"


def test_a_plugin_is_asked_again_after_its_token_was_refused(tmp_path: Path) -> None:
    found = connection(tmp_path, plugin(tmp_path, counting(tmp_path)))
    route = found.route()
    assert found.renew(route)
    assert sent(found) == "Bearer token-2"
    assert found.renew(route)
    assert sent(found) == "Bearer token-2"


def test_credentials_that_stay_the_same_are_not_tried_again(tmp_path: Path) -> None:
    found = connection(tmp_path, {"token": "t"})
    assert not found.renew(found.route())


def test_a_token_file_is_read_again_after_its_token_was_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t1\n")
    found = connection(tmp_path, {"tokenFile": "token"})
    assert sent(found) == "Bearer t1"
    (tmp_path / "token").write_text("t2\n")
    assert found.renew(found.route())
    assert sent(found) == "Bearer t2"


async def test_requests_and_websockets_go_on_with_a_new_token(tmp_path: Path) -> None:
    async with FakeCluster(1) as cluster, AsyncExitStack() as stack:
        cluster.faults.refused_tokens = {"token-1", "token-3"}
        user = plugin(tmp_path, counting(tmp_path))
        options = KubeOptions(kubeconfig=str(cluster.write_kubeconfig(tmp_path / "k", user)))
        api = stack.enter_context(closing(Api(load(options))))
        listings = await asyncio.gather(*[api.find(NODES) for _ in range(5)])
        assert [len(listing.items) for listing in listings] == [1] * 5
        assert (tmp_path / "calls").read_text() == "xx"
        cluster.faults.refused_tokens = {"token-2"}
        access = Access("watch", "pods")
        websocket = await open_websocket(api, PODS.path(), (("watch", "1"),), access, ClientConnection)
        await close_quietly(websocket)
        assert (tmp_path / "calls").read_text() == "xxx"
        cluster.faults.unauthorized = True
        with pytest.raises(StatusError, match="does not accept the credentials"):
            await api.find(NODES)


def test_a_plugin_gets_its_environment_and_the_cluster(tmp_path: Path) -> None:
    code = printing(
        "{'token': os.environ['WHO'] + json.loads(os.environ['KUBERNETES_EXEC_INFO'])['spec']['cluster']['server']}"
    )
    user = plugin(tmp_path, code, env=[{"name": "WHO", "value": "me@"}], provideClusterInfo=True)
    assert sent(connection(tmp_path, user)) == "Bearer me@https://x.test"


def test_a_plugin_may_give_a_client_certificate(tmp_path: Path) -> None:
    import trustme

    pair = trustme.CA().issue_cert("me")
    certificate, key = pair.cert_chain_pems[0].bytes().decode(), pair.private_key_pem.bytes().decode()
    code = printing(f"{{'clientCertificateData': {certificate!r}, 'clientKeyData': {key!r}}}")
    found = connection(tmp_path, plugin(tmp_path, code))
    assert sent(found) is None
    assert Path(found.route().client.configuration.cert_file).read_text() == certificate


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys\nsys.stderr.write('log in first')\nraise SystemExit(3)", r"returned 3\. log in first"),
        ("print('no json')", "failed to decode process output"),
        (printing("{}"), "missing token or clientCertificateData"),
    ],
)
def test_a_plugin_that_fails_is_an_error_that_names_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    with pytest.raises(ClusterError, match=message) as error:
        connection(tmp_path, plugin(tmp_path, code)).route()
    assert sys.executable in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_plugin_shows_its_install_hint(tmp_path: Path) -> None:
    user = {"exec": {"apiVersion": V1, "command": "./no-such-plugin", "installHint": "brew install it"}}
    with pytest.raises(ClusterError, match=f"{tmp_path}.*no-such-plugin") as error:
        connection(tmp_path, user).route()
    assert error.value.remedy == "brew install it"


def test_a_password_becomes_basic_authorization(tmp_path: Path) -> None:
    assert sent(connection(tmp_path, {"username": "u", "password": "p"})) == "Basic dTpw"


# The kubernetes library, imported in a fresh process without what a run does not use.


LEFT_OUT = ("multiprocessing", "pydantic", "dateutil", "oauthlib", "requests", "kubernetes.watch", "kubernetes.stream")
CONNECT = """
import json, sys
from kubectl_gadget.kube.connection import Connection
from kubectl_gadget.kube.credentials import authorization
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.kube.cluster_options import KubeOptions
connection = Connection(load(KubeOptions(kubeconfig=sys.argv[1])))
header = authorization(connection.route().client.configuration)
print(json.dumps({"authorization": header, "imported": list(sys.modules)}))
"""
OTHER_VERSION = """
from kubectl_gadget.kube import credentials
def without_a_name():
    made = credentials._module("pydantic")
    return {made.__name__: made}
credentials._stand_ins = without_a_name
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
