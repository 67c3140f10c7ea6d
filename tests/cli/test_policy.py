"""`kubectl gadget policy …`: what goes to which stream, and with which exit code."""

import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.policies import check
from kubectl_gadget.policies.check import NodeHooks
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.cli.conftest import Runs
from tests.messages import hello, hooks

POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: opens}
spec:
  nodeSelector: {matchLabels: {zone: a}}
  kprobes:
  - call: sys_openat
    args: [{index: 1, type: string}]
"""


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that can do everything: what it cannot do changes, and is no matter of these tests."""
    monkeypatch.setattr("kubectl_gadget.policies.check.CompiledPolicies", lambda policies, options: None)


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "opens.yaml"
    path.write_text(POLICY)
    return str(path)


def test_a_check_needs_no_cluster(
    policy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert main.run(["policy", "check", "-f", policy]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()] == [["POLICY", "HOOK"], ["opens", "kprobe/sys_openat"]]
    assert "on x86-64, calls of 32-bit programs and by int 0x80 are also traced, as __ia32_sys_openat\n" in err
    assert f"warning: {policy}:8:5: spec.kprobes[0] sys_openat reads argument 1 again after the check" in err
    assert main.run(["policy", "check", "-f", policy, "--strict"]) == 1


def test_what_is_wrong_is_an_error_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(POLICY.replace("sys_openat", "sys_opennat"))
    assert main.run(["policy", "check", "-f", str(path)]) == 2
    assert f"error: {path}:8:11: spec.kprobes[0].call" in capsys.readouterr().err
    assert main.run(["policy", "check"]) == 2
    assert main.run(["policy", "check", "-f", str(tmp_path / "none.yaml")]) == 2
    assert main.run(["policy", "check", "--policy", "shel-in-container"]) == 2
    assert "did you mean shell-in-container" in capsys.readouterr().err


MISSPELT = POLICY.replace("call: sys_openat", "call: %s\n    syscall: false")


def test_a_misspelt_function_is_reported_with_what_this_machine_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "opens.yaml"
    for function, says in (("do_exi", True), ("do_exit", False), ("a_function_of_another_kernel", False)):
        path.write_text(MISSPELT % function)
        assert main.run(["policy", "check", "-f", str(path), "--strict"]) == 0
        said = f"{path}:8:5: spec.kprobes[0] this machine's kernel has no function {function}; did you mean"
        assert (said in capsys.readouterr().err) == says


@pytest.mark.usefixtures("catalogue_built")
def test_a_node_names_what_looks_like_a_misspelt_function(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "opens.yaml"
    path.write_text(MISSPELT % "vfs_raed")
    assert main.run(["policy", "check", "-f", str(path), "--local"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].endswith("missing")
    assert "kprobe/vfs_raed: the kernel has no function vfs_raed; did you mean vfs_read" in err
    assert "this machine's kernel" not in err


@pytest.mark.root
def test_this_machines_agent_is_asked(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["policy", "check", "-f", policy, "--local", "-o", "json"])
    (report,) = json.loads(capsys.readouterr().out)
    (node,) = report["hooks"][0]["nodes"]
    assert node["works"] in (True, False, None)
    assert node["way"] in ("fentry", "kprobe", "tp_btf", "tracepoint", "")


def test_a_node_without_the_hook_fails_and_one_that_is_not_selected_does_not(
    policy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], "
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {token: t}}]}"
    )

    async def answer(api: Any, asked: Any, names: Any, tell: Any, options: AgentOptions) -> list[NodeHooks]:
        assert asked.functions == ("sys_openat",)
        assert (options.image, options.image_pull_policy) == ("mine", None if names else "Never")
        tried = {name: {"way": None, "refused": {"kprobe/x": "the kernel has no function"}} for name in asked.ways}
        missing = hooks({"functions": {"sys_openat": {"exists": False}}, "ways": tried})
        zones = {"node-1": "a", "node-2": "b"}
        return [NodeHooks(name, hello({}), missing, {"zone": zones[name]}) for name in names or zones]

    monkeypatch.setattr(check, "ask_cluster", answer)
    cluster = ["--kubeconfig", str(config), "--image", "mine"]
    never = ["--image-pull-policy", "Never"]
    assert main.run(["policy", "check", "-f", policy, "--all-nodes", *cluster, *never]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].endswith("missing  not selected")
    assert "node-1: kprobe/sys_openat: the kernel has no function sys_openat; it may be inlined" in err
    assert main.run(["policy", "check", "-f", policy, "--node", "node-2", *cluster]) == 0


def test_flags_for_agents_are_refused_where_none_is_asked(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    for where in ([], ["--local"]):
        assert main.run(["policy", "check", "-f", policy, "--image", "mine", *where]) == 2
        assert "--image is only for agents on nodes\ntry: --node NAME, or --all-nodes" in capsys.readouterr().err


def test_a_run_says_what_of_a_file_does_nothing(
    policy: str, runs: Runs, built_in: object, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(policy).write_text(POLICY.replace("nodeSelector", "podSelector: {} #") + "---\nkind: NetworkPolicy\n")
    for command in (["observe"], ["enforce", "--dry-run"]):
        assert main.run([*command, "--local", "-f", policy]) == 0
        assert f"warning: {policy}:11:1: is a NetworkPolicy, which is left out" in capsys.readouterr().err


def test_a_field_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["policy", "explain", "kprobes.syscall"]) == 0
    assert "Default: true" in capsys.readouterr().out
    assert main.run(["policy", "explain", "kprobes.call", "other"]) == 2
    assert main.run(["policy", "explain", "--recursive"]) == 0
    assert "rateLimitScope <string>" in capsys.readouterr().out


def test_generated_and_listed_policies_are_policies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["policy", "generate", "empty", "--name", "mine"]) == 0
    assert parse_policies([("p", capsys.readouterr().out)], "default")[0].name == "mine"
    assert main.run(["policy", "list", "-o", "yaml"]) == 0
    listed = parse_policies([("p", capsys.readouterr().out)], "default")
    assert main.run(["policy", "list", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == [policy.name for policy in listed]
    assert main.run(["policy", "generate", "uprobes"]) == 2
    assert "needs --binary\ntry: kubectl gadget policy generate " in capsys.readouterr().err
    assert main.run(["policy", "generate", "empty", "--name", "My policy"]) == 2
    assert "--name 'My policy': is not a valid Kubernetes name" in capsys.readouterr().err
    assert main.run(["policy", "generate", "nothing"]) == 2
    assert main.run(["policy", "generate", "all-syscalls", "--match-binary", "ls"]) == 2
    assert "'ls' is not an absolute path" in capsys.readouterr().err


def test_a_run_refuses_names_of_policies_and_files_of_objects_that_are_not_there(
    policy: str, runs: Runs, built_in: object, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(policy).write_text(POLICY.replace("nodeSelector", "podSelector: {} #"))
    assert main.run(["observe", "--local", "-f", policy, "--policy-names", "open"]) == 2
    assert "--policy-names: there is no policy 'open' in these files; did you mean opens?" in capsys.readouterr().err
    assert main.run(["observe", "--local", "-f", policy, "--objects", f"{policy}.no"]) == 2
    assert "opens.yaml.no: No such file or directory" in capsys.readouterr().err
    assert main.run(["observe", "--local", "-f", policy, "--policy-names", "opens"]) == 0
