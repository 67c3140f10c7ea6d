"""What a command line asks of the session."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.kube.cluster_options import AgentOptions, KubeOptions, Selection
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.run.run_options import RunOptions
from tests.cli.conftest import Runs
from tests.cli.sample_gadgets import GADGETS, TOP_FILE

Ask = Callable[[str], RunOptions]


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main.run(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


def test_without_flags_the_defaults_of_a_run_are_kept(asked: Ask) -> None:
    options = asked("trace open")
    output = OutputOptions(selection="this machine")
    assert options == RunOptions(options.gadgets, local=True, local_by_default=True, output=output)
    assert [run.gadget.name for run in options.gadgets] == ["trace_open"]
    assert options.gadgets[0].parameters == {}


@pytest.mark.parametrize(
    ("words", "everything"),
    [("", True), ("--node n1 --no-local", True), ("-n default", False), ("xwing", False), ("--no-host", False)],
)
def test_a_gadget_about_whole_nodes_shows_all_of_them_unless_containers_are_chosen(
    asked: Ask, words: str, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not asked("top file").selection.host
    monkeypatch.setitem(GADGETS, "top_file", replace(TOP_FILE, whole_nodes=True))
    selection = asked(f"top file {words}").selection
    assert (selection.all_namespaces, selection.host) == (everything, everything)


def test_our_own_processes_are_asked_for(asked: Ask) -> None:
    assert not asked("trace open --host").selection.own_processes
    assert asked("trace open --host --own-processes").selection.own_processes
    assert asked("trace open -A --own-processes --no-local").selection.own_processes


def test_workloads_are_chosen_beside_pods(asked: Ask) -> None:
    selection = asked("trace open deploy/web xwing svc/db -n default --no-local").selection
    assert selection.pods == ("xwing",)
    assert selection.workloads == (("deployment", "web"), ("service", "db"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("deploy/web --local", "deployment/web cannot be used with --local"),
        ("deploy/web", "deployment/web needs a cluster, and no kubeconfig was found"),
        ("deploy/web -A --no-local", "deployment/web is in one namespace"),
        ("deploy/web -l app=web --no-local", "by name or by -l"),
    ],
)
def test_workloads_that_cannot_be_looked_up_are_refused(
    runs: Runs, capsys: pytest.CaptureFixture[str], words: str, why: str
) -> None:
    assert why in refusal(capsys, "trace", "open", *words.split())


def test_every_flag_of_a_run_arrives(asked: Ask) -> None:
    options = asked(
        "trace open pod/xwing tiefighter -n default -c a,b -c c --node n1,n2 --host --no-local "
        "-o wide --no-headers --color never --columns pod,path --filter x --fail-on y --expect z "
        "--timeout 1m30s --max-events 7 --sort-wait 1s --ring-size 1Mi --buffer-size 2Mi --strict -v "
        "--image i --image-pull-secret s --image-pull-policy Never --privileged --start-timeout 5"
    )
    assert options == RunOptions(
        options.gadgets,
        Selection(
            namespace="default",
            pods=("xwing", "tiefighter"),
            containers=("a", "b", "c"),
            nodes=("n1", "n2"),
            host=True,
        ),
        KubeOptions(),
        AgentOptions(image="i", image_pull_secret="s", image_pull_policy="Never", privileged=True, start_timeout=5.0),
        OutputOptions(
            format="wide",
            no_headers=True,
            color="never",
            columns=("pod", "path"),
            selection=options.selection.described(False),
        ),
        local=False,
        filter="x",
        fail_on="y",
        expect="z",
        timeout=90.0,
        max_events=7,
        sort_wait=1.0,
        ring_bytes=1 << 20,
        buffer_bytes=2 << 20,
        strict=True,
        verbose=True,
    )


@pytest.mark.usefixtures("built_in")
@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        ("", 0.2),
        ("--action kill", 0.2),
        ("--action isolate-pod --yes", 0.02),
        ("--action isolate-pod --yes --sort-wait 1s", 1.0),
    ],
)
def test_runs_that_act_on_rows_do_not_wait_long_for_earlier_ones(
    asked: Ask, tmp_path: Path, flags: str, seconds: float
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: kills}\n"
        "spec: {tracepoints: [{subsystem: syscalls, event: sys_enter_ptrace, "
        "selectors: [{matchActions: [{action: Sigkill}]}]}]}\n"
    )
    assert asked(f"enforce -f {policy} {flags}").sort_wait == seconds


def test_a_kubeconfig_makes_it_a_run_on_a_cluster_unless_local_is_asked_for(asked: Ask, tmp_path: Path) -> None:
    (tmp_path / "config").touch()
    assert asked(f"trace open --kubeconfig {tmp_path}/config").local is False
    assert asked("--server https://x trace open").local is False
    assert asked("trace open --local").local is True


def test_every_flag_of_the_connection_arrives(asked: Ask) -> None:
    options = asked(
        "--kubeconfig f --context c --cluster k --user u -s https://x --token t --as me --as-group a "
        "trace open --as-group b --request-timeout 5s --certificate-authority ca --client-certificate cc "
        "--client-key ck --insecure-skip-tls-verify --tls-server-name n"
    )
    assert options.kube == KubeOptions(
        kubeconfig="f",
        context="c",
        cluster="k",
        user="u",
        server="https://x",
        token="t",
        as_user="me",
        as_groups=("a", "b"),
        request_timeout=5.0,
        certificate_authority="ca",
        client_certificate="cc",
        client_key="ck",
        insecure_skip_tls_verify=True,
        tls_server_name="n",
    )


@pytest.mark.parametrize(
    "words",
    ["-n a trace open", "trace -n a open", "trace open -n a", "-n x trace -n y open -n a", "-n x trace open -na"],
)
def test_a_global_flag_works_at_every_place_and_the_later_wins(asked: Ask, words: str) -> None:
    assert asked(words).selection.namespace == "a"


def test_shared_flags_work_between_the_verb_and_the_gadget(asked: Ask) -> None:
    options = asked("trace --timeout 3s -o json open -o yaml")
    assert (options.timeout, options.output.format) == (3.0, "yaml")


@pytest.mark.parametrize(
    ("words", "everywhere"),
    [
        ("-n a -A", True),
        ("-A -n a", True),
        ("-A=false -n a", False),
        ("-A --all-namespaces=false -n a", False),
    ],
)
def test_on_one_level_all_namespaces_wins_over_a_namespace_as_with_kubectl(
    asked: Ask, words: str, everywhere: bool
) -> None:
    selection = asked("trace open " + words).selection
    assert (selection.all_namespaces, selection.namespace) == (everywhere, None if everywhere else "a")


def test_a_later_namespace_wins_over_an_earlier_all_namespaces_and_the_other_way_round(asked: Ask) -> None:
    assert asked("-A trace open -n a").selection == Selection(namespace="a")
    assert asked("-n a trace open -A").selection == Selection(all_namespaces=True)


def test_parameters_of_the_gadget_arrive_by_name_and_only_those_given(asked: Ask) -> None:
    options = asked("trace open --failed --pid=0x10 --path /etc --max-depth 3")
    assert options.gadgets[0].parameters == {"failed": True, "pid": 16, "path": "/etc", "max-depth": 3}
    assert asked("trace open --failed=false").gadgets[0].parameters == {"failed": False}


def test_a_label_selector_may_be_set_based(asked: Ask) -> None:
    assert asked("trace open -s x -l 'app in (a,b),!legacy'").selection.selector == "app in (a,b),!legacy"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("xwing -l app=x", "by name or by -l"),
        ("-q -v", "cannot be used together"),
        ("--no-sort --sort-wait 1s", "--sort-wait and --no-sort"),
        ("--expect x", "needs a limit"),
        ("--local -l app=x", "--selector cannot be used with --local"),
        ("--local --node a", "--node cannot be used with --local"),
        ("--node a", "--node needs a cluster, and no kubeconfig was found"),
        ("--local --image x", "--image cannot be used with --local"),
        ("--local --as me", "--as cannot be used with --local"),
        ("--timeout 0", "--timeout '0': must be more than 0"),
        ("--timeout -5s", "--timeout '-5s': a duration cannot be negative"),
        ("--max-events 0", "--max-events '0': must be 1 or more"),
        ("--ring-size 3Mi", "must be a power of two"),
        ("--pid abc", "--pid 'abc': not a whole number"),
        ("--pid 99999999999", "between 0 and 4294967295"),
        ("--max-depth 0", "--max-depth '0': must be at least 1"),
        ("--max-depth 65", "--max-depth '65': must be at most 64"),
        ("--path aaaaaaaaaaaaaaaaa", "longer than 15 bytes"),
        ("-l a(", "-l: invalid label selector 'a(' at character"),
        ("/etc/passwd", "'/etc/passwd' is not the name of a pod"),
        ("--filter=", "--filter '': is empty"),
        ("--color maybe", "must be one of auto, always, never"),
        ("-o jsno", "did you mean json"),
        ("--privileged=perhaps", "true or false"),
        ("-n", "flag -n needs a value"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    runs: Runs, capsys: pytest.CaptureFixture[str], words: str, reason: str
) -> None:
    assert reason in refusal(capsys, "trace", "open", *words.split())
    assert runs == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("profile cpu --frequency 0", "--frequency '0': must be at least 1"),
        ("trace dns --wait 0s", "--wait '0s': must be at least 1s"),
    ],
)
@pytest.mark.usefixtures("built_in")
def test_bounds_come_from_the_gadgets_yaml(
    runs: Runs, capsys: pytest.CaptureFixture[str], words: str, reason: str
) -> None:
    assert reason in refusal(capsys, *words.split())
    assert runs == []


def test_an_end_by_count_is_enough_for_an_expectation(asked: Ask) -> None:
    assert asked("trace open --expect x --max-events 5").expect == "x"


def test_a_run_on_this_machine_can_wait_longer_until_it_is_attached(asked: Ask) -> None:
    assert asked("trace open --local --start-timeout 5m").agent.start_timeout == 300
