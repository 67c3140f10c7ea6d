"""Kubeconfigs as kubectl reads them."""

import base64
import os
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from kubectl_gadget.errors import ClusterError, UsageError
from kubectl_gadget.kube import kubeconfig
from kubectl_gadget.kube.cluster_options import KubeOptions
from kubectl_gadget.kube.credentials import authorization
from kubectl_gadget.kube.kubeconfig import Cluster, has_kubeconfig, load


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def config(name: str = "a", user: dict[str, Any] | None = None, **context: Any) -> dict[str, Any]:
    return {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.test:6443"}}],
        "users": [{"name": name, "user": user if user is not None else {"token": f"token-{name}"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
    }


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def bearer(cluster: Cluster) -> str | None:
    return authorization(cluster.configure())


def test_the_current_context_gives_server_namespace_and_token(tmp_path: Path) -> None:
    path = write(tmp_path / "k", config(namespace="shop"))
    cluster = load(KubeOptions(kubeconfig=str(path)))
    assert (cluster.server, cluster.namespace) == ("https://a.test:6443", "shop")
    assert bearer(cluster) == "Bearer token-a"


def test_the_namespace_is_default_when_the_context_names_none(tmp_path: Path) -> None:
    assert load(KubeOptions(kubeconfig=str(write(tmp_path / "k", config())))).namespace == "default"


def test_of_several_files_the_first_to_name_something_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = config("a"), config("b")
    second["clusters"].append({"name": "a", "cluster": {"server": "https://wrong.test"}})
    paths = [tmp_path / "missing", write(tmp_path / "1", first), write(tmp_path / "2", second)]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, paths)))
    assert load(KubeOptions()).server == "https://a.test:6443"
    assert load(KubeOptions(context="b")).server == "https://b.test:6443"


def test_the_file_in_the_home_directory_is_used_without_kubeconfig(tmp_path: Path) -> None:
    write(tmp_path / "home" / ".kube" / "config", config("home"))
    assert has_kubeconfig(KubeOptions())
    assert load(KubeOptions()).server == "https://home.test:6443"


def test_flags_override_what_the_context_says(tmp_path: Path) -> None:
    content = config("a")
    content["clusters"] += config("b")["clusters"]
    content["users"] += config("b")["users"]
    path = str(write(tmp_path / "k", content))
    cluster = load(KubeOptions(kubeconfig=path, cluster="b", user="b"))
    assert cluster.server == "https://b.test:6443"
    assert bearer(cluster) == "Bearer token-b"
    cluster = load(KubeOptions(kubeconfig=path, server="https://c.test/", token="t"))
    assert (cluster.server, bearer(cluster)) == ("https://c.test", "Bearer t")


def test_certificates_are_taken_from_data_and_from_files_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "client.crt").write_text("certificate")
    user = {"client-certificate": "client.crt", "client-key-data": base64.b64encode(b"key").decode()}
    content = config(user=user)
    content["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(b"authority").decode()
    cluster = load(KubeOptions(kubeconfig=str(write(tmp_path / "k", content))))
    found = cluster.configure()
    assert Path(found.ssl_ca_cert).read_text() == "authority"
    assert (Path(found.cert_file).read_text(), Path(found.key_file).read_text()) == ("certificate", "key")


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = config("a"), config("b", user={"client-certificate": "crt", "client-key": "key"})
    first["contexts"][0]["context"]["user"] = "b"
    paths = [write(tmp_path / "1" / "k", first), write(tmp_path / "2" / "k", second)]
    for name in ("crt", "key"):
        (tmp_path / "2" / name).write_text(name)
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, paths)))
    found = load(KubeOptions()).configure()
    assert (found.cert_file, found.key_file) == (str(tmp_path / "2" / "crt"), str(tmp_path / "2" / "key"))


def test_the_first_file_that_selects_a_context_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / "1", config("a")), write(tmp_path / "2", config("b"))]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, paths)))
    assert load(KubeOptions()).options.context == "a"


def test_what_flags_say_of_certificates_replaces_the_kubeconfigs_data(tmp_path: Path) -> None:
    data = base64.b64encode(b"old").decode()
    content = config(user={"client-certificate-data": data, "client-key-data": data})
    content["clusters"][0]["cluster"]["certificate-authority-data"] = data
    names = [str(tmp_path / name) for name in ("ca", "crt", "key")]
    for name in names:
        Path(name).write_text("new")
    path = str(write(tmp_path / "k", content))
    found = load(
        KubeOptions(
            path, None, None, None, certificate_authority=names[0], client_certificate=names[1], client_key=names[2]
        )
    ).configure()
    assert [found.ssl_ca_cert, found.cert_file, found.key_file] == names


def test_a_token_file_comes_before_a_token_and_may_end_with_a_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    path = write(tmp_path / "k", config(user={"token": "old", "tokenFile": "token"}))
    assert bearer(load(KubeOptions(kubeconfig=str(path)))) == "Bearer from-file"


def test_a_certificate_without_its_key_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "k", config(user={"client-certificate-data": base64.b64encode(b"x").decode()}))
    with pytest.raises(ClusterError, match="client-key is missing"):
        load(KubeOptions(kubeconfig=str(path)))


def test_impersonation_becomes_headers(tmp_path: Path) -> None:
    path = str(write(tmp_path / "k", config()))
    cluster = load(KubeOptions(kubeconfig=path, as_user="jane", as_groups=("dev", "ops")))
    assert cluster.impersonate == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
    )
    with pytest.raises(UsageError, match="--as-group needs --as"):
        load(KubeOptions(kubeconfig=path, as_groups=("dev",)))


def test_impersonation_may_stand_in_the_kubeconfig(tmp_path: Path) -> None:
    user = {"token": "t", "as": "jane", "as-groups": ["dev"], "as-user-extra": {"reason": ["test"]}}
    cluster = load(KubeOptions(kubeconfig=str(write(tmp_path / "k", config(user=user)))))
    assert dict(cluster.impersonate) == {
        "Impersonate-User": "jane",
        "Impersonate-Group": "dev",
        "Impersonate-Extra-reason": "test",
    }


def test_an_unknown_context_names_those_that_exist(tmp_path: Path) -> None:
    path = write(tmp_path / "k", config())
    with pytest.raises(UsageError, match="'b' is not in the kubeconfig") as error:
        load(KubeOptions(kubeconfig=str(path), context="b"))
    assert error.value.remedy == "one of: a"


def test_without_any_kubeconfig_it_says_what_to_set() -> None:
    assert not has_kubeconfig(KubeOptions())
    with pytest.raises(ClusterError, match="no kubeconfig") as error:
        load(KubeOptions())
    assert "--local" in str(error.value.remedy)


def test_a_kubeconfig_flag_that_names_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="does not exist"):
        load(KubeOptions(kubeconfig=str(tmp_path / "nothing")))


@pytest.mark.parametrize("text", ["{", "just text", "- a\n- b\n"])
def test_a_file_that_is_not_a_kubeconfig_is_named_in_the_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "k"
    path.write_text(text)
    with pytest.raises(ClusterError, match=str(path)):
        load(KubeOptions(kubeconfig=str(path)))


def test_inside_a_pod_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("token", "t1\n"), ("ca.crt", "authority"), ("namespace", "team")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert has_kubeconfig(KubeOptions())
    cluster = load(KubeOptions())
    assert (cluster.server, cluster.namespace) == ("https://[fd00::1]:443", "team")
    found = cluster.configure()
    assert authorization(found) == "bearer t1"
    (tmp_path / "token").write_text("t2\n")
    after_a_minute = datetime.now() + timedelta(seconds=61)
    monkeypatch.setattr(
        "kubernetes.config.incluster_config.datetime",
        SimpleNamespace(datetime=SimpleNamespace(now=lambda: after_a_minute), timedelta=timedelta),
    )
    assert authorization(found) == "bearer t2"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"clusters": 5}, "clusters is not a list"),
        ({"contexts": ["a"]}, r"contexts\[0\] is not a mapping"),
        ({"users": [{"user": {}}]}, r"users\[0\] has no name"),
        ({"users": [{"name": "a", "user": {"token": 5}}]}, r"users\[0\].user.token is not a text"),
        ({"users": [{"name": "a", "user": {"exec": {"args": "x"}}}]}, r"users\[0\].user.exec.args is not a list"),
        ({"clusters": [{"name": "a", "cluster": {"server": ["x"]}}]}, r"clusters\[0\].cluster.server is not a text"),
        ({"current-context": []}, "current-context is not a text"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_place(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    path = write(tmp_path / "k", config("a") | change)
    with pytest.raises(ClusterError, match=why):
        load(KubeOptions(kubeconfig=str(path)))


def test_a_fault_of_ours_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(kubeconfig, "_with_user_flags", wrong)
    with pytest.raises(KeyError):
        load(KubeOptions(kubeconfig=str(write(tmp_path / "k", config("a")))))


def test_a_kubeconfig_of_aliases_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "k"
    path.write_text("\n".join([*lines, "users: [{name: *a11}]"]))
    with pytest.raises(ClusterError, match="after its aliases are expanded"):
        load(KubeOptions(kubeconfig=str(path)))
