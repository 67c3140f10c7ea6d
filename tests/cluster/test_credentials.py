"""Credential plugins and other ways to prove who we are."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.cluster.credentials import Credentials, ExecPlugin
from kubectl_gadget.errors import ClusterError

V1 = "client.authentication.k8s.io/v1"


def plugin(tmp_path: Path, code: str, **spec: Any) -> ExecPlugin:
    script = tmp_path / "plugin.py"
    script.write_text(code)
    return ExecPlugin({"apiVersion": V1, "command": sys.executable, "args": [str(script)], **spec}, tmp_path)


def counting(tmp_path: Path, **status: str) -> str:
    """A plugin whose token counts its calls."""
    credential = {"apiVersion": V1, "kind": "ExecCredential", "status": status}
    return (
        f"import json, pathlib\np = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        f"n = len(p.read_text()) if p.exists() else 0\np.write_text('x' * (n + 1))\n"
        f"c = json.loads({json.dumps(json.dumps(credential))})\nc['status']['token'] = f'token-{{n + 1}}'\n"
        "print(json.dumps(c))\n"
    )


def test_a_plugins_token_is_asked_for_once_while_it_is_valid(tmp_path: Path) -> None:
    credentials = Credentials(plugin=plugin(tmp_path, counting(tmp_path, expirationTimestamp="2999-01-01T00:00:00Z")))
    assert [credentials.authorization() for _ in range(3)] == ["Bearer token-1"] * 3


def test_a_plugins_token_that_has_ended_is_asked_for_again(tmp_path: Path) -> None:
    credentials = Credentials(plugin=plugin(tmp_path, counting(tmp_path, expirationTimestamp="2000-01-01T00:00:00Z")))
    assert credentials.authorization() == "Bearer token-1"
    assert credentials.authorization() == "Bearer token-2"


def test_a_plugin_is_asked_again_after_its_token_was_refused(tmp_path: Path) -> None:
    credentials = Credentials(plugin=plugin(tmp_path, counting(tmp_path)))
    assert credentials.authorization() == "Bearer token-1"
    assert credentials.renew()
    assert credentials.authorization() == "Bearer token-2"
    assert not Credentials(token="t").renew()


def test_a_plugin_gets_its_environment_and_the_cluster(tmp_path: Path) -> None:
    code = (
        "import json, os\ninfo = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "print(json.dumps({'status': {'token': os.environ['WHO'] + info['spec']['cluster']['server']}}))\n"
    )
    found = plugin(tmp_path, code, env=[{"name": "WHO", "value": "me@"}])
    with_cluster = ExecPlugin(found.spec, tmp_path, {"server": "https://x"})
    assert Credentials(plugin=with_cluster).authorization() == "Bearer me@https://x"


def test_a_plugin_may_give_a_client_certificate(tmp_path: Path) -> None:
    code = 'print(\'{"status": {"clientCertificateData": "c", "clientKeyData": "k"}}\')'
    credentials = Credentials(plugin=plugin(tmp_path, code))
    assert credentials.client_certificate() == ("c", "k")
    assert credentials.authorization() is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("print('no json')", "printed no ExecCredential"),
        ("print('{\"status\": {}}')", "neither a token nor a certificate"),
    ],
)
def test_a_plugin_that_fails_is_an_error_that_names_it(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message) as error:
        Credentials(plugin=plugin(tmp_path, code)).authorization()
    assert sys.executable in str(error.value)


def test_a_missing_plugin_shows_its_install_hint(tmp_path: Path) -> None:
    found = ExecPlugin({"command": "./no-such-plugin", "installHint": "brew install it"}, tmp_path)
    with pytest.raises(ClusterError, match=f"{tmp_path}.*no-such-plugin cannot be started") as error:
        found.run()
    assert error.value.remedy == "brew install it"


def test_a_password_becomes_basic_authorization() -> None:
    assert Credentials(basic=("u", "p")).authorization() == "Basic dTpw"
