"""Which namespace a policy without one belongs to, and the messages when it differs from the command's."""

import json
from pathlib import Path

import pytest

from kubectl_gadget.cli import main
from tests.cli.conftest import Runs

POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicyNamespaced
metadata: {name: opens%s}
spec:
  tracepoints:
  - {subsystem: sched, event: sched_process_exec}
"""
NETWORK_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: alone}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


@pytest.fixture(autouse=True)
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogue_built: Path, built_in: object) -> None:
    """A kubeconfig whose context has the namespace shop; no server answers there."""
    (tmp_path / "config").write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c, user: u, namespace: shop}}], "
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {token: t}}]}"
    )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))


def policy(tmp_path: Path, namespace: str = "") -> str:
    path = tmp_path / "opens.yaml"
    path.write_text(POLICY % (f", namespace: {namespace}" if namespace else ""))
    return str(path)


def namespace_of(runs: Runs) -> str | None:
    engine = runs[-1].gadgets[-1].policies
    assert engine
    (found,) = engine.policies
    return found.namespace


@pytest.mark.parametrize(
    ("flags", "namespace"),
    [
        ([], "shop"),
        (["-A"], "shop"),
        (["-n", "other"], "other"),
        (["--local"], "default"),
        (["--local", "-n", "other"], "other"),
    ],
)
def test_a_run_takes_the_namespace_that_kubectl_would(
    tmp_path: Path, runs: Runs, flags: list[str], namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["observe"], ["enforce", "--dry-run"]):
        assert main.run([*command, "-f", policy(tmp_path), *flags]) == 0
        assert namespace_of(runs) == namespace
        said = f"{policy(tmp_path)}:2:1: namespace: {namespace}, since the policy has none\n" if flags == ["-A"] else ""
        assert capsys.readouterr().err == said


def test_without_a_kubeconfig_it_is_default(tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG")
    assert main.run(["observe", "-f", policy(tmp_path)]) == 0
    assert namespace_of(runs) == "default"


def test_a_run_about_other_pods_than_a_policys_is_warned_of(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "warning: policies of namespace web have no effect here: the run is limited to pods of shop\n"
    for flags, said in (
        ([], f"{warning}try: -A, or -n with the namespace\n"),
        (["-n", "web"], ""),
        (["-A"], ""),
        (["--local"], ""),
    ):
        assert main.run(["observe", "-f", policy(tmp_path, "web"), *flags]) == 0
        assert namespace_of(runs) == "web"
        assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("kubeconfig", "flags", "namespace"),
    [("config", [], "shop"), ("config", ["-n", "other"], "other"), ("none", [], "default")],
)
def test_a_check_says_the_namespace_of_a_policy_that_names_none(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kubeconfig: str,
    flags: list[str],
    namespace: str,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / kubeconfig))
    assert main.run(["policy", "check", "-f", policy(tmp_path), "-o", "json", *flags]) == 0
    out, err = capsys.readouterr()
    assert [report["namespace"] for report in json.loads(out)] == [namespace]
    assert f"{policy(tmp_path)}:2:1: namespace: {namespace}, since the policy has none\n" in err


def test_a_policy_that_names_its_namespace_is_checked_with_a_broken_kubeconfig(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").write_text("contexts: 1")
    assert main.run(["policy", "check", "-f", policy(tmp_path, "web")]) == 0
    assert "names none" not in capsys.readouterr().err
    assert main.run(["policy", "check", "-f", policy(tmp_path)]) == 1
    assert "has an invalid structure" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "install"])
def test_a_namespace_that_is_not_the_policys_is_refused_as_kubectl_does(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, "web")
    assert main.run(["policy", command, "-f", file, "-n", "other"]) == 2
    said = capsys.readouterr().err
    assert f"error: {file}: the policy opens has the namespace web, but -n is other\ntry: leave out -n" in said


def test_network_policies_are_checked_for_the_same_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "kubectl_gadget.policies.network.evaluate.read_policies",
        lambda text, name, namespace: asked.append(namespace) or [],
    )
    monkeypatch.setattr("kubectl_gadget.cli.advise.watch", lambda *_: (None, 0))
    monkeypatch.setattr("kubectl_gadget.cli.advise._report", lambda *_: 0)
    (tmp_path / "np.yaml").write_text(NETWORK_POLICY)
    check = ["advise", "networkpolicy", "--check", str(tmp_path / "np.yaml")]
    for flags in ([], ["-n", "other"], ["--local"], ["--from", "day.jsonl"]):
        assert main.run([*check, *flags]) == 0
    assert asked == ["shop", "other", "default", "default"]
