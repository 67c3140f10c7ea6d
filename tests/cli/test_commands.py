"""The commands that are no run of a gadget: list, version, status, deploy; and run and demo up to the session."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from kubectl_gadget import __version__, demo, gadgets
from kubectl_gadget.agents import deployments, node_status, resident_agents
from kubectl_gadget.agents.node_status import NodeStatus
from kubectl_gadget.cli import agents, main, version
from kubectl_gadget.errors import ClusterError, GadgetError, UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions, Selection
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.wire.agent_messages import Hello
from kubectl_gadget.yaml_files import safe_loader
from tests.cli.conftest import Runs
from tests.cli.sample_gadgets import TRACE_OPEN
from tests.messages import hello

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
"""
HELLO = {
    "agent": "0.1.0",
    "kernel": "6.12.1",
    "architecture": "x86_64",
    "can": {"btf": True, "fentry": False, "lsm": None},
    "problems": [{"what": "gadgets \x1b[31m cannot run", "why": "no tracefs", "try": "mount it"}],
}
NODES = [
    NodeStatus("node-1", "agent-1", "Running", "img:1", hello=hello(HELLO)),
    NodeStatus("node-2", "agent-2", "ErrImagePull", "img:1", problem="the image cannot be pulled"),
    NodeStatus("node-3", kernel="6.1.0", architecture="arm64"),
]


def printed(capsys: pytest.CaptureFixture[str], line: str) -> str:
    assert main.run(shlex.split(line)) == 0
    return capsys.readouterr().out


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig, whose cluster answers with NODES."""
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(path))

    async def answer(api: Api, options: AgentOptions) -> list[NodeStatus]:
        assert api.cluster.server == "http://127.0.0.1:1"
        return NODES

    async def find(api: Api) -> deployments.Deployments:
        return deployments.Deployments()

    async def runs(api: Api, options: AgentOptions) -> list[node_status.AgentUse]:
        return []

    monkeypatch.setattr(node_status, "status", answer)
    monkeypatch.setattr(deployments, "find", find)
    monkeypatch.setattr(node_status, "on_demand", runs)


def test_the_list_is_a_table_of_all_gadgets(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "list").splitlines()
    assert lines[0].split() == ["GROUP", "GADGET", "DESCRIPTION"]
    assert [line.split("  ")[1].strip() for line in lines[1:]] == ["trace open", "top file"]


def test_the_list_has_no_titles_when_they_are_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(printed(capsys, "list --no-headers").splitlines()) == 2


def test_the_list_is_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    (first, _) = json.loads(printed(capsys, "list -o=json"))
    assert first == {
        "name": "trace_open",
        "command": "kubectl gadget trace open",
        "group": "files",
        "description": "Show every open as it happens",
    }


def test_the_version_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "version").startswith(f"Client: {__version__} ")
    assert json.loads(printed(capsys, "version -o json"))["client"]["version"] == __version__


@contextmanager
def releases(status: int, body: bytes) -> Iterator[str]:
    """The URL of a server that answers as the one that has the releases does."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/latest"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("tag", "shown"),
    [
        ("v99.0.1", "Latest release: 99.0.1; to upgrade: pipx upgrade kubectl-gadget\n"),
        (f"v{__version__}", f"Latest release: {__version__}\n"),
        ("v0.0.9", "Latest release: 0.0.9\n"),
    ],
)
def test_the_version_is_compared_with_the_latest_release(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tag: str, shown: str
) -> None:
    with releases(200, json.dumps({"tag_name": tag}).encode()) as url:
        latest = version.latest_release(url)
    monkeypatch.setattr(version, "latest_release", lambda: latest)
    assert shown in printed(capsys, "version --client --check")
    assert json.loads(printed(capsys, "version --client --check -o json"))["client"]["latest"] == latest


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b"{}", "there is none yet"),
        (403, b"", "403"),
        (200, b"<html>", "cannot ask for the latest release"),
        (200, b"[]", "cannot ask for the latest release"),
        (200, b'{"tag_name": "\\u001b[31mv1.2"}', "has no version"),
    ],
)
def test_a_latest_release_that_cannot_be_found_is_an_error(status: int, body: bytes, error: str) -> None:
    with releases(status, body) as url, pytest.raises(GadgetError, match=error):
        version.latest_release(url)
    with pytest.raises(GadgetError, match=r"cannot ask for the latest release: \[Errno \d+\] Connection refused"):
        version.latest_release("http://127.0.0.1:1/")


@pytest.mark.usefixtures("cluster")
def test_the_version_names_the_agents_of_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Agents: 0.1.0 on 1 of 2 nodes\n" in printed(capsys, "version")
    agents = json.loads(printed(capsys, "version -o json"))["agents"]
    assert agents[0] == {"node": "node-1", "version": "0.1.0", "image": "img:1"}
    assert "agents" not in json.loads(printed(capsys, "version -o json --client"))


@pytest.mark.usefixtures("cluster")
def test_version_succeeds_when_the_cluster_does_not_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise ClusterError("it is away")

    monkeypatch.setattr(node_status, "status", refuse)
    assert main.run(["version"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("Client: ")
    assert output.err == "the agents did not answer: it is away\n"


@pytest.mark.usefixtures("cluster")
def test_the_status_has_one_line_per_node_and_problems_have_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["status"]) == 0
    output = capsys.readouterr()
    assert [line.split() for line in output.out.splitlines()] == [
        ["NODE", "AGENT", "VERSION", "KERNEL", "ARCH", "BTF", "UNSUPPORTED"],
        ["node-1", "Running", "0.1.0", "6.12.1", "x86_64", "yes", "fentry"],
        ["node-2", "ErrImagePull", "<unknown>", "<unknown>", "<unknown>", "<unknown>", "<unknown>"],
        ["node-3", "<none>", "<none>", "6.1.0", "arm64", "<unknown>", "<unknown>"],
    ]
    assert output.err.splitlines() == [
        "node-1: gadgets \\x1b[31m cannot run: no tracefs; try: mount it",
        "node-1: without fentry: trace file, trace open, trace exec: owner and mode of files that were refused are not"
        " shown",
        "node-1: without fentry: policies: hooks that need it are attached in another way, or refused; policy check"
        " --all-nodes says which",
        "node-2: the image cannot be pulled",
    ]


@pytest.mark.usefixtures("cluster")
def test_the_status_in_json_holds_all_that_an_agent_said(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = json.loads(printed(capsys, "status -o json"))
    said = {
        **HELLO["problems"][0],
        "what": "gadgets \\x1b[31m cannot run",
    }  # text of agents is escaped where it is read
    assert nodes[0]["hello"] == {**HELLO, "problems": [said]}
    refused = "owner and mode of files that were refused are not shown"
    assert {"feature": "fentry", "what": "trace open", "flag": "", "lacks": refused} in nodes[0]["costs"]
    assert nodes[2]["costs"] == []
    assert nodes[2]["pod"] is None


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_status_says_which_gadgets_a_missing_feature_costs(architecture: str) -> None:
    """All gadgets whose only programs are uprobes, in the objects of either architecture."""
    found = agents.costs(Hello(architecture=architecture, can={"btf": True, "uprobe": False, "kprobe": True}))
    *gadgets, policies = found
    assert {cost.what for cost in gadgets} == {
        *("profile functions", "trace deadlock", "trace ssl", "trace malloc", "trace malloc-calls")
    }
    assert {(cost.feature, cost.flag, cost.lacks) for cost in gadgets} == {("uprobe", "", "")}
    assert policies.what == "policies"


def test_what_has_another_way_costs_nothing() -> None:
    """trace capabilities has three ways."""
    found = agents.costs(Hello(architecture="x86_64", can={"fentry": False, "kprobe": False}))
    assert found
    assert "trace capabilities" not in {cost.what for cost in found}


def test_nothing_is_lost_where_all_is_supported_or_unknown() -> None:
    assert agents.costs(Hello(architecture="x86_64", can={"uprobe": True, "lsm": None})) == ()
    assert agents.costs(None) == ()


def test_the_status_without_a_kubeconfig_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["status"]) == 1
    assert "no kubeconfig was found" in capsys.readouterr().err


def test_a_dry_run_of_deploy_prints_the_manifests_and_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    line = "deploy --dry-run=client --image my/agent:7 --node-selector disk=ssd --image-pull-secret s"
    for form, read in (
        ("", lambda text: yaml.load_all(text, safe_loader())),
        ("-o json", lambda text: json.loads(text)["items"]),
    ):
        objects = list(read(printed(capsys, f"{line} {form}")))
        pod = objects[-1]["spec"]["template"]["spec"]
        assert objects[-1]["kind"] == "DaemonSet"
        assert pod["containers"][0]["image"] == "my/agent:7"
        assert pod["nodeSelector"]["disk"] == "ssd"
        assert pod["imagePullSecrets"] == [{"name": "s"}]


@pytest.mark.usefixtures("cluster")
def test_deploy_hands_its_flags_on_and_shows_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def answer(
        api: Api, options: AgentOptions, say: Any, labels: dict[str, str], wait: bool, contents: tuple[str, ...]
    ) -> None:
        say("agents running: 1/1 nodes")
        asked.append((options, labels, wait))

    monkeypatch.setattr(resident_agents, "deploy", answer)
    assert main.run(shlex.split("deploy --privileged --node-selector a=b --timeout 5m -n x")) == 0
    assert main.run(shlex.split("deploy --wait=false")) == 0
    assert main.run(shlex.split("deploy --contained")) == 0
    assert main.run(shlex.split("deploy --enforcing")) == 0
    assert asked == [
        (AgentOptions(privileged=True, start_timeout=300.0), {"a": "b"}, True),
        (AgentOptions(start_timeout=120.0), {}, False),
        (AgentOptions(start_timeout=120.0, contained=True), {}, True),
        (AgentOptions(start_timeout=120.0, enforcing=True), {}, True),
    ]
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[:2] == [
        "-n x has no effect here: agents run in namespace kubectl-gadget",
        "agents running: 1/1 nodes",
    ]


@pytest.mark.parametrize("more", ["--privileged", "--enforcing", "--wait=false"])
def test_contained_agents_have_neither_all_rights_nor_policies(more: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(shlex.split(f"deploy --contained {more}")) == 2
    assert "--contained" in capsys.readouterr().err


def test_a_gadget_of_the_users_own_has_its_own_flags(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gadgets, "load_own", lambda path: (TRACE_OPEN, path / "built"))
    monkeypatch.setattr("kubectl_gadget.rows.members.check_readable", lambda gadget, source: None)
    assert main.run(shlex.split("run --timeout 3s ./mine xwing --failed -n default")) == 0
    (run,) = runs[0].gadgets
    assert (run.gadget, run.parameters, run.directory) == (TRACE_OPEN, {"failed": True}, Path("mine/built"))
    assert (runs[0].selection, runs[0].timeout) == (Selection(namespace="default", pods=("xwing",)), 3.0)


def test_a_gadget_of_the_users_own_that_is_not_there_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise UsageError(f"{path}: no such file or directory")

    monkeypatch.setattr(gadgets, "load_own", refuse)
    assert main.run(["run", "./nope", "--help"]) == 2
    assert capsys.readouterr().err == "error: nope: no such file or directory\ntry: kubectl gadget run --help\n"


@pytest.fixture
def steps(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes the place of the demo's pods; what happened to them, and how many runs had been checked by then."""
    happened: list[str] = []

    @contextmanager
    def stage(scene: demo.Scene) -> Iterator[None]:
        try:
            yield
        finally:
            if happened:
                happened.append(f"removed after run {len(runs)}")

    monkeypatch.setattr(demo, "stage", stage)
    monkeypatch.setattr(demo.Scene, "start", lambda scene, pods: happened.append(f"started in run {len(runs)}"))
    return happened


def test_the_demo_runs_trace_open_on_its_pods_for_ten_seconds(
    runs: Runs, steps: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["demo"]) == 0
    assert steps == ["started in run 1", "removed after run 1"]
    assert [run.gadget.name for run in runs[0].gadgets] == ["trace_open"]
    assert (runs[0].local, runs[0].timeout, runs[0].selection) == (True, 10.0, Selection())
    output = capsys.readouterr()
    assert output.out == ""
    assert "default/xwing" in output.err
    assert "kubectl gadget trace open --help" in output.err


def test_the_demo_runs_the_gadget_that_was_named_with_its_own_flags(runs: Runs, steps: list[str]) -> None:
    assert main.run(["demo", "-o", "json", "trace", "open", "--failed", "--timeout", "1m"]) == 0
    (options,) = runs
    assert (options.gadgets[0].gadget.name, options.gadgets[0].parameters) == ("trace_open", {"failed": True})
    assert (options.local, options.timeout, options.output.format) == (True, 60.0, "json")
    assert steps == ["started in run 1", "removed after run 1"]


def test_the_demo_reports_the_story_of_its_pods(
    runs: Runs, steps: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = gadgets.load_gadget
    monkeypatch.setattr(gadgets, "load_gadget", lambda name: find("trace_open"))
    assert main.run(["demo", "observe", "--tree"]) == 0
    assert runs[0].transform is not None
    assert runs[0].make_sink is not None
    assert "kubectl gadget observe --help" in capsys.readouterr().err


@pytest.mark.usefixtures("runs")
def test_the_demo_starts_no_pod_when_a_flag_is_wrong(steps: list[str]) -> None:
    for line in ("demo nope", "demo -o nope", "demo trace open --pid x", "demo trace open --local=false"):
        assert main.run(line.split()) == 2
    assert main.run(["demo", "top"]) == 0
    assert steps == []


@pytest.fixture
def any_gadget(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue of these tests has not all that commands run."""
    find = gadgets.load_gadget
    monkeypatch.setattr(gadgets, "load_gadget", lambda name: find("trace_open"))


@pytest.mark.usefixtures("any_gadget")
@pytest.mark.parametrize(
    "line",
    [
        "demo flows --map -o json",
        "demo enforce --network-policy -o compact",
        "demo enforce -f /no/such/file.yaml",
        "demo enforce --network-policy /no/such/file.yaml",
        "demo advise networkpolicy --format cilium --check policies.yaml",
        "demo trace open -q -v",
        "demo trace tcp udp",
    ],
)
def test_the_demo_starts_no_pod_when_flags_contradict_each_other(
    runs: Runs, steps: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(line.split()) == 2
    assert (list(runs), steps) == ([], [])
    assert "starting" not in capsys.readouterr().err


@pytest.mark.usefixtures("any_gadget")
@pytest.mark.skipif(sys.platform != "linux", reason="what the demo says of its pods lies in a file in memory")
@pytest.mark.parametrize("line", ["enforce", "enforce --network-policy", "enforce --network-policy --dry-run"])
def test_the_demo_brings_network_policies_and_enforces_them_on_its_own_pods_alone(
    runs: Runs, steps: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["demo", *line.split()]) == 0
    (options,) = runs
    assert options.gadgets[0].tables is not None
    assert options.gadgets[0].parameters["dry-run"] == ("--dry-run" in line)
    assert options.selection.pods == ("xwing", "tiefighter", "deathstar", "coredns")
    said = capsys.readouterr().err
    assert f"network policies: {demo.NETWORK_POLICIES}\n" in said
    assert "  kubectl gadget enforce --network-policy policies.yaml " in said
    assert "there is no NetworkPolicy" not in said


@pytest.mark.usefixtures("any_gadget")
def test_the_demo_enforces_what_was_named_instead(
    runs: Runs, steps: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(demo.NETWORK_POLICIES.read_text())
    assert main.run(["demo", "enforce", "--network-policy", str(tmp_path / "own.yaml"), "xwing"]) == 0
    assert runs[0].selection.pods == ("xwing",)
    said = capsys.readouterr().err
    assert "network policies:" not in said
    assert f"  kubectl gadget enforce xwing --network-policy {tmp_path / 'own.yaml'} -A " in said


@pytest.mark.usefixtures("any_gadget")
def test_flows_take_a_file_of_objects_where_there_is_no_cluster(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "objects.json").write_text(json.dumps(demo.Scene().objects("here")))
    assert main.run(["flows", "--local", "--objects", str(tmp_path / "objects.json")]) == 0
    assert main.run(["flows", "--local", "--objects", str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    (tmp_path / "config").write_text("{}")
    assert main.run(["flows", "--local=false", "--objects", str(tmp_path / "objects.json")]) == 2
    assert "--objects is only for --local" in capsys.readouterr().err
    assert len(runs) == 1


@pytest.mark.usefixtures("runs")
def test_a_network_policy_without_a_file_is_accepted_in_the_demo_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["enforce", "--network-policy"]) == 2
    assert "flag --network-policy needs a value" in capsys.readouterr().err


def test_the_hint_at_the_end_of_the_demo_is_the_command_that_was_run(
    runs: Runs, steps: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["demo", "-o", "json", "trace", "open", "xwing", "--failed", "--filter", 'comm == "cat"', "--timeout", "2s"]
    assert main.run(line) == 0
    said = [line.strip() for line in capsys.readouterr().err.splitlines()]
    (hint,) = [line for line in said if line.endswith("in your cluster, on all nodes")]
    assert hint.startswith("""kubectl gadget trace open xwing -o json --failed --filter 'comm == "cat"' -A """)


@pytest.mark.usefixtures("any_gadget", "steps")
@pytest.mark.parametrize("switch", ["--no-dns-rows", "--dns-rows", "--dns-rows=false"])
def test_the_hint_has_switches_as_they_were_typed(switch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["demo", "flows", switch]) == 0
    assert f"  kubectl gadget flows {switch} -A " in capsys.readouterr().err


@pytest.mark.parametrize("why", ["which needs root", "another demo is running"])
def test_what_the_demo_refuses_is_reported_before_its_pods_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    def refuse(_: object) -> None:
        raise GadgetError(why)

    monkeypatch.setattr("kubectl_gadget.demo.pods.DemoPods.__enter__", refuse)
    assert main.run(["demo"]) == 1
    assert capsys.readouterr().err == f"error: {why}\n"


def test_the_demo_says_nothing_when_asked_to_be_quiet(
    runs: Runs, steps: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["demo", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_demo_removes_its_pods_when_the_run_fails(runs: Runs, steps: list[str]) -> None:
    runs.outcome = ClusterError("no")
    assert main.run(["demo"]) == 1
    assert steps[-1] == "removed after run 1"


def test_one_table_is_of_one_interval_or_of_the_timeout(runs: Runs) -> None:
    for line in ("top file --once", "top file --once --interval 3s", "top file --once --timeout 5s"):
        assert main.run(line.split()) == 0
    assert [run.timeout for run in runs] == [1.0, 3.0, 5.0]
    assert all(run.arrangement.at_end for run in runs)
