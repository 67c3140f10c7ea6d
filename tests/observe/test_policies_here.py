"""`kubectl gadget observe -f` and `enforce -f` with real pods on this machine, by the ways that every kernel has."""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import DemoPods
from tests.conftest import why_no_bpf, why_no_containers
from tests.gadget_run import GADGET
from tests.observe.containers import FIRST_ACTS, first_act
from tests.observe.strict_schema import ENUMS, MESSAGES
from tests.strict_reader import strict_reader

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]
TIMES = 13
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: secrets}
spec:
  %s
  kprobes:
  - call: sys_openat
    syscall: true
    message: a secret was read
    args: [{index: 0, type: int}, {index: 1, type: string}]
    selectors:
    - matchArgs: [{index: 1, operator: Prefix, values: ["%s"]}]
      %s
"""


OF_TRACEPOINT = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: secrets}
spec:
  tracepoints:
  - subsystem: syscalls
    event: sys_enter_openat
    args: [{index: 5, type: int}, {index: 6, type: string}]
    selectors:
    - matchArgs: [{index: 6, operator: Equal, values: [/tmp/secret]}]
"""


@pytest.fixture(scope="module")
def pods() -> Iterator[DemoPods]:
    if why_no_bpf():
        pytest.skip(str(why_no_bpf()))
    state = Path(f"/run/kubectl-gadget-policies-{os.getpid()}")
    with DemoPods(state) as found:
        yield found


def policy(folder: Path, scope: str = "", actions: str = "", path: str = "/tmp/secret") -> str:
    file = folder / "policy.yaml"
    file.write_text(POLICY % (scope, path, actions))
    return str(file)


@contextmanager
def running(*arguments: str) -> Iterator[list[str]]:
    """Runs a command while the block does its deed; its lines are in the list afterwards."""
    command = [*GADGET, *arguments]
    found: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        while "tracing processes on" not in (line := process.stderr.readline()):
            assert line, "".join(said)
            said.append(line)
        yield found
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert "lost: 0" in errors
    found += out.splitlines()


def run(pods: DemoPods, namespace: str, name: str, script: str) -> int | None:
    """Runs a shell script as the pod's only container; its exit code."""
    return pods.run_short(namespace, name, ["/bin/sh", "-c", script]).containers["main"].exit_code


LOOP = f"i=0; while [ $i -lt {TIMES} ]; do read x < /tmp/secret; i=$((i+1)); done"
READS = f"echo x > /tmp/secret; {LOOP}; read x < /etc/hosts"


def test_what_a_policy_matches_is_reported_with_the_pod_and_the_process(pods: DemoPods, tmp_path: Path) -> None:
    with running("observe", "--local", "-A", "-o", "json", "-e", "kprobe", "-f", policy(tmp_path)) as lines:
        run(pods, "default", "reader", READS)
    events = [json.loads(line)["process_kprobe"] for line in lines]
    assert len(events) == TIMES + 1
    assert {event["process"]["pod"]["name"] for event in events} == {"reader"}
    assert {event["args"][1]["string_arg"] for event in events} == {"/tmp/secret"}
    assert {(event["policy_name"], event["message"]) for event in events} == {("secrets", "a secret was read")}


def test_each_line_of_jsonpb_is_read_by_a_strict_reader(pods: DemoPods, tmp_path: Path) -> None:
    read = strict_reader(ENUMS, MESSAGES, "Response")
    with running("observe", "--local", "-A", "-o", "jsonpb", "--ancestors", "-f", policy(tmp_path)) as lines:
        run(pods, "default", "reader", READS)
    kinds = Counter(read(line).WhichOneof("one") for line in lines)
    assert kinds["process_kprobe"] == TIMES + 1
    assert kinds["process_exec"]
    assert kinds["process_exit"]
    (name,) = {read(line).process_kprobe.function_name for line in lines if "process_kprobe" in line}
    assert name == f"__{'arm64' if os.uname().machine == 'aarch64' else 'x64'}_sys_openat"


def test_a_policy_applies_to_the_namespaces_that_it_selects(pods: DemoPods, tmp_path: Path) -> None:
    label = "k8s:io.kubernetes.pod.namespace"
    scope = f"podSelector: {{matchExpressions: [{{key: '{label}', operator: NotIn, values: [spared]}}]}}"
    with running("observe", "--local", "-A", "-o", "json", "-e", "kprobe", "-f", policy(tmp_path, scope)) as lines:
        run(pods, "spared", "spared", READS)
        run(pods, "watched", "watched", READS)
    names = [json.loads(line)["process_kprobe"]["process"]["pod"]["name"] for line in lines]
    assert names == ["watched"] * (TIMES + 1)


def test_enforce_kills_and_says_so_and_stops_when_it_ends(pods: DemoPods, tmp_path: Path) -> None:
    killing = policy(tmp_path, actions="matchActions: [{action: Sigkill}]")
    with running("enforce", "--local", "-n", "default", "--allow-weaker", "-f", killing) as lines:
        assert run(pods, "default", "killed", READS) == 128 + signal.SIGKILL
        assert run(pods, "other", "not-selected", READS) == 0
    assert sum(line.endswith("/tmp/secret SENT SIGKILL") for line in lines) == 1
    assert sum(line.startswith("💥") and "SIGKILL" in line for line in lines) == 1
    assert run(pods, "default", "later", READS) == 0


def test_a_container_whose_first_act_is_forbidden_does_no_second(pods: DemoPods, tmp_path: Path) -> None:
    first_act(pods)
    killing = policy(tmp_path, actions="matchActions: [{action: Sigkill}]", path="/forbidden")
    pod = pods.start_pod("default", "first", {})
    assert pods.add_container(pod, "before", ["/bin/first-act"], until_end=True).exit_code == 0
    with running("enforce", "--local", "-A", "--allow-weaker", "-e", "kprobe", "-f", killing) as lines:
        codes = [
            pods.add_container(pod, f"c{n}", ["/bin/first-act"], until_end=True).exit_code for n in range(FIRST_ACTS)
        ]
    assert codes == [128 + signal.SIGKILL] * FIRST_ACTS
    assert lines == ["📬 openat  default/first /bin/first-act /forbidden SENT SIGKILL"] * FIRST_ACTS


def test_a_dry_run_reports_and_kills_no_process(pods: DemoPods, tmp_path: Path) -> None:
    killing = policy(tmp_path, actions="matchActions: [{action: Sigkill}]")
    with running("enforce", "--local", "-A", "--dry-run", "-e", "kprobe", "-f", killing) as lines:
        assert run(pods, "default", "spared", READS) == 0
    assert len(lines) == TIMES + 1
    assert {line.partition("/tmp/secret ")[2] for line in lines} == {"WOULD BE SENT SIGKILL"}


def test_a_tracepoints_fields_are_counted_as_its_format_lists_them(pods: DemoPods, tmp_path: Path) -> None:
    path = tmp_path / "tracepoint.yaml"
    path.write_text(OF_TRACEPOINT)
    with running("observe", "--local", "-A", "-o", "json", "-e", "tracepoint", "-f", str(path)) as lines:
        run(pods, "default", "reader", READS)
    events = [json.loads(line)["process_tracepoint"] for line in lines]
    assert len(events) == TIMES + 1
    assert {(event["subsys"], event["event"]) for event in events} == {("syscalls", "sys_enter_openat")}
    assert {event["args"][1]["string_arg"] for event in events} == {"/tmp/secret"}


def test_fields_of_another_type_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tracepoint.yaml"
    path.write_text(OF_TRACEPOINT.replace("syscalls", "sched").replace("sys_enter_openat", "sched_process_exec"))
    command = [*GADGET, "observe", "--local", "-f", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "old_pid, does not have the requested type" in done.stderr


def objects(folder: Path, namespace: str, **apps: str) -> str:
    items = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
            "spec": {"containers": []},
        }
        for name, app in apps.items()
    ]
    (folder / "objects.yaml").write_text(json.dumps({"kind": "List", "items": items}))
    return str(folder / "objects.yaml")


def test_a_policy_applies_to_the_pods_whose_labels_it_selects(pods: DemoPods, tmp_path: Path) -> None:
    file = policy(tmp_path, "podSelector: {matchLabels: {app: web}}")
    known = objects(tmp_path, "default", web="web", other="db")
    with running("observe", "--local", "-A", "-o", "json", "-e", "kprobe", "-f", file, "--objects", known) as lines:
        for name in ("web", "other", "unknown"):
            run(pods, "default", name, READS)
    events = [json.loads(line)["process_kprobe"] for line in lines]
    # Nobody has said whose labels the third one has.
    names = [event["process"]["pod"]["name"] for event in events]
    assert {name: names.count(name) for name in names} == {"web": TIMES + 1, "unknown": TIMES + 1}


def test_a_pod_with_unknown_labels_is_guarded_from_its_first_instruction(pods: DemoPods, tmp_path: Path) -> None:
    scope, actions = "podSelector: {matchLabels: {app: web}}", "matchActions: [{action: Sigkill}]"
    file = policy(tmp_path, scope, actions, "/tmp/guarded")
    # Its own, since whoever is not known is killed.
    namespace = f"guarded-{os.getpid()}"
    known = objects(tmp_path, namespace, web="web", other="db")
    with running(
        "enforce",
        "--local",
        "-n",
        namespace,
        "--allow-weaker",
        "-o",
        "json",
        "-e",
        "kprobe",
        "-f",
        file,
        "--objects",
        known,
    ):
        codes = {
            name: run(pods, namespace, name, READS.replace("secret", "guarded")) for name in ("web", "other", "unknown")
        }
    assert codes["other"] == 0
    assert codes["web"] == codes["unknown"] != 0


def test_unknown_labels_are_requested(tmp_path: Path) -> None:
    file = policy(tmp_path, "podSelector: {matchLabels: {app: web}}")
    command = [*GADGET, "observe", "--local", "-A", "-f", file]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--objects FILE" in result.stderr


OF_A_PROGRAM = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: probed}
spec:
  uprobes:
  - path: /bin/busybox
    addrs: [%d]
    message: busybox was started
"""


def test_a_probe_in_an_image_sees_containers_from_their_first_instruction(pods: DemoPods, tmp_path: Path) -> None:
    """Its file is known by another container of the image."""
    with (pods.image_root / "bin" / "busybox").open("rb") as file:
        entry = int.from_bytes(file.read(32)[24:32], "little")
    name = f"probed-{os.getpid()}"
    path = tmp_path / "probe.yaml"
    path.write_text(OF_A_PROGRAM % entry)
    pods.start_pod("default", "resident", {"waiting": ["/bin/sleep", "600"]})
    with running("observe", "--local", "-A", "-o", "json", "-e", "uprobe", "-f", str(path)) as lines:
        run(pods, "default", name, f"i=0; while [ $i -lt {TIMES} ]; do /bin/sleep 0; i=$((i+1)); done")
    events = [json.loads(line)["process_uprobe"] for line in lines]
    # Other pods of this machine start programs, too.
    events = [event for event in events if event["process"]["pod"]["name"] == name]
    events = [event for event in events if event["process"]["pod"]["container"]["name"] == "main"]
    assert len(events) == TIMES + 1
    assert {(event["path"], event["symbol"], event["message"]) for event in events} == {
        ("/bin/busybox", str(entry), "busybox was started")
    }
