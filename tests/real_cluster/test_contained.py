"""Observers on a real cluster (pytest --cluster): they trace, and nothing works for them that the users' right can do.

What each attack is for stands in SECURITY.md. An attack that fails for another reason than the policy would show
nothing, so each is first seen to work with agents that are not contained.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.payload import payload
from kubectl_gadget.wire.frames import FrameDecoder, FrameType, encode
from kubectl_gadget.wire.message import parse
from kubectl_gadget.wire.session_command import SessionCommand
from tests.agent.session.test_declared import asked
from tests.json_frames import encode_json
from tests.real_cluster.real_cluster import (
    AGENT_FLAGS,
    AGENTS,
    gadget,
    kubectl,
    leftovers,
    listed,
    run_pod,
    until_ready,
)
from tests.real_cluster.test_runs import service_account

pytestmark = pytest.mark.cluster

LOOP = "while :; do cat /etc/passwd >/dev/null; sleep 0.2; done"
# Each prints FOUND when it has done what it is for. Which processes see the node's root differs, so all are tried.
ROOTS = (
    "import glob, os, socket\nroots = [p for p in glob.glob('/proc/[0-9]*/root') if os.access(p + '/etc', os.R_OK)]\n"
)
READS = "print('FOUND' if any(os.path.exists(r + PATH) and open(r + PATH, 'rb').read() for r in roots) else '')\n"
WRITES = """
for root in roots:
    try:
        with open(root + '/tmp/kubectl-gadget-was-here', 'x'): pass
        os.unlink(root + '/tmp/kubectl-gadget-was-here')
    except OSError:
        continue
    print('FOUND')
    break
"""
CONNECTS = """
for path in [root + folder for root in roots for folder in ('/run/containerd', '/var/run/containerd', '/run/crio')]:
    try:
        os.chdir(path)
        socket.socket(socket.AF_UNIX).connect('crio.sock' if path.endswith('crio') else 'containerd.sock')
    except OSError:
        continue
    print('FOUND')
    break
"""
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
ATTACKS = {
    "the node's shadow file is read": f"{ROOTS}PATH = '/etc/shadow'\n{READS}",
    "tokens of other pods are read": f"{ROOTS}PATH = '{TOKEN}'\n{READS}",
    "a file is written through /proc/PID/root": ROOTS + WRITES,
    "the runtime's socket is used": ROOTS + CONNECTS,
}


def agent_of(pod: str, namespace: str) -> str:
    """The agent on the pod's node."""
    node = kubectl("get", "pod", "-n", namespace, pod, "-o", "jsonpath={.spec.nodeName}")
    words = ("-l", "app.kubernetes.io/component=agent", f"--field-selector=spec.nodeName={node}", "-o", "name")
    return kubectl("get", "pods", "-n", AGENTS, *words).split()[0]


def execute(account: Path, pod: str, *command: str, flags: tuple[str, ...] = ("-i",), text: bytes = b"") -> str:
    """What `kubectl exec` prints on both streams."""
    words = ["kubectl", f"--kubeconfig={account}", "exec", *flags, "-n", AGENTS, pod, "--", *command]
    done = subprocess.run(words, input=text, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def bind(account_of: str, namespace: str, role: str) -> None:
    subject = f"--serviceaccount={account_of}:tester"
    kubectl("create", "rolebinding", "-n", namespace, f"{account_of}-{role}"[:60], f"--clusterrole={role}", subject)


def let_kubectl_exec(subject: str) -> None:
    """kubectl looks at the pod before it execs, which we do not; the attacker is to be no weaker for that."""
    kubectl("create", "role", "-n", AGENTS, "look", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "-n", AGENTS, "look", "--role=look", subject)


@pytest.fixture
def contained() -> Iterator[None]:
    result = gadget("deploy", "--contained", *AGENT_FLAGS)
    assert result.returncode == 0, result.stderr
    yield
    result = gadget("undeploy")
    assert result.returncode == 0, result.stderr
    assert leftovers() == ""
    policies = kubectl("get", "validatingadmissionpolicies,validatingadmissionpolicybindings", "-o", "name")
    assert "kubectl-gadget" not in policies


@pytest.fixture
def other() -> Iterator[str]:
    name = "kg-test-other"
    kubectl("create", "namespace", name)
    run_pod(name, "opener", LOOP)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def observer(contained: None, namespace: str, tmp_path: Path) -> Path:
    """The kubeconfig of an observer of `namespace`."""
    run_pod(namespace, "opener", LOOP)
    until_ready(namespace, "opener")
    account = service_account(namespace, tmp_path)
    bind(namespace, namespace, "kubectl-gadget-namespace-observer")
    subject = f"--serviceaccount={namespace}:tester"
    kubectl("create", "rolebinding", "-n", AGENTS, namespace, f"--role={manifests.OBSERVER}", subject)
    let_kubectl_exec(subject)
    return account


@pytest.mark.usefixtures("deployed")
def test_the_users_right_is_root_on_the_nodes_as_security_md_says(namespace: str, tmp_path: Path) -> None:
    run_pod(namespace, "opener", LOOP)
    until_ready(namespace, "opener")
    account = service_account(namespace, tmp_path)
    subject = f"--serviceaccount={namespace}:tester"
    kubectl("create", "rolebinding", "-n", AGENTS, namespace, "--role=kubectl-gadget-user", subject)
    let_kubectl_exec(subject)
    pod = agent_of("opener", namespace)
    found = {what for what, program in ATTACKS.items() if "FOUND" in execute(account, pod, "python3", "-c", program)}
    assert found == set(ATTACKS)


def test_an_observer_traces_its_namespace_and_no_other(observer: Path, namespace: str, other: str) -> None:
    for words in (("trace", "open"), ("trace", "exec+tcp"), ("top", "file", "--once"), ("snapshot", "process")):
        result = gadget(*words, "-n", namespace, "--timeout", "6s", "-o", "json", kubeconfig=observer)
        assert result.returncode == 0, result.stderr
        pods = {json.loads(line)["namespace"] for line in result.stdout.splitlines()}
        assert pods == {namespace}, words
    for flags in (("-n", other), ("-A",), ("-n", namespace, "--host")):
        result = gadget("trace", "open", *flags, "--timeout", "3s", kubeconfig=observer)
        assert result.returncode == 1, result.stderr
        assert result.stdout == ""
    result = gadget("status", kubeconfig=observer)
    assert "Forbidden" in result.stderr  # it lists nodes


def test_contents_take_a_right_of_their_own(observer: Path, namespace: str) -> None:
    for words in (("trace", "ssl"), ("tcpdump",), ("trace", "exec+http")):
        result = gadget(*words, "-n", namespace, "--timeout", "3s", kubeconfig=observer)
        assert result.returncode == 1, result.stdout
        assert "traces/contents" in result.stderr
    rule = {"apiGroups": ["kubectl-gadget"], "resources": ["traces/contents"], "verbs": ["observe"]}
    metadata = {"name": "contents", "namespace": namespace}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [rule]}
    kubectl("apply", "-f", "-", text=json.dumps(role))
    subject = f"--serviceaccount={namespace}:tester"
    kubectl("create", "rolebinding", "-n", namespace, "contents", "--role=contents", subject)
    result = gadget("trace", "ssl", "-n", namespace, "--timeout", "3s", kubeconfig=observer)
    assert result.returncode == 0, result.stderr


def test_nothing_that_the_users_right_can_do_works_for_an_observer(observer: Path, namespace: str) -> None:
    pod = agent_of("opener", namespace)
    refused = "ValidatingAdmissionPolicy 'kubectl-gadget-observer'"
    for what, program in ATTACKS.items():
        said = execute(observer, pod, "python3", "-c", program)
        assert "FOUND" not in said, what
        assert refused in said, what
    session = (*payload().start, "session")
    python, isolated, runs, text, offer, _ = session
    only = f"--only-namespace={namespace}"
    for command in (
        ("sh",),
        ("python3",),
        session,
        (*session, "--gadgets=trace_open"),
        (*session, "--gadgets=policy", "--enforces"),
        (*session, "--contained", "--gadgets=trace_open"),  # all namespaces
        (*session, "--contained", "--gadgets=trace_open", "--only-namespace=kube-system"),
        (*session, "--contained", "--gadgets=trace_open", only, "--only-namespace=kube-system"),
        (*session, "--contained", "--gadgets=trace_open", only, "more"),
        (*session, "--contained", "--gadgets="),
        (*session, "--contained", "--gadgets=", only),
        (*session, "--contained", "--gadgets", "trace_open"),
        (*session, "--contained", "--gadgets=status"),
        (*session, "--contained", "--gadgets=trace_open", "--gadgets="),
        (*session, "--contained", "--gadgets=,trace_open", only),
        (*session, "--contained", "--gadgets= trace_open", only),
        (*session, "--contained", "--gadgets=trace_op\u0435n", only),
        (*session, "--contained", "--gadgets=trace_open", "--only-namespace="),
        (*session, "--contained", only, "--gadgets=trace_open"),
        (*session, "--contained", "--gadgets=own:trace_open", only),
        (*session, "--contained", "--gadgets=trace_open,", only),
        (*session, "--contained", "--gadgets=trace_open", f"{only}\n"),
        ("/usr/bin/python3", *session[1:], "--contained", "--gadgets=trace_open", only),
        (python, runs, *session[3:], "--contained", "--gadgets=trace_open", only),
        (python, isolated, runs, text + " ", offer, "session", "--contained", "--gadgets=trace_open", only),
        (python, isolated, runs, "print(1)", offer, "session", "--contained", "--gadgets=trace_open", only),
        (python, isolated, runs, text, f"{offer}0", "session", "--contained", "--gadgets=trace_open", only),
        (*manifests.AGENT_COMMAND, "session", "--contained", "--gadgets=trace_open", only),
        (*session[:-1], "idle"),
        (*session[:-1], "release"),
        (*session[:-1], "bcc", "--tool=opensnoop"),
        (*session[:-1], "policies", "/policies"),
    ):
        assert refused in execute(observer, pod, *command), command
    # The one command, with a terminal or in another container.
    allowed = (*session, "--contained", "--gadgets=trace_open", only)
    assert "HELLO" not in execute(observer, pod, *allowed, flags=("-i", "-c", "debugger"))
    assert '"protocol":1' in execute(observer, pod, *allowed)
    for words in (
        ("attach", "-n", AGENTS, pod),
        ("port-forward", "-n", AGENTS, pod, "10250"),
        ("debug", "-n", AGENTS, pod, "--image=busybox", "--", "id"),
        ("delete", "-n", AGENTS, pod),
        ("label", "-n", AGENTS, pod, "a=b"),
        ("get", "secrets", "-n", AGENTS),
        ("delete", "validatingadmissionpolicy", manifests.OBSERVER),
        ("label", "namespace", AGENTS, "kubernetes.io/metadata.name=x", "--overwrite"),
    ):
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={observer}", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode != 0, words
        assert "orbidden" in done.stderr or refused in done.stderr, done.stderr


def test_administrators_are_held_by_the_policy_as_well(observer: Path, namespace: str) -> None:
    pod = agent_of("opener", namespace)
    refused = "ValidatingAdmissionPolicy 'kubectl-gadget-observer'"
    for words in (
        ("exec", "-n", AGENTS, pod, "--", "python3", "-c", "1"),
        ("attach", "-n", AGENTS, pod),
        ("port-forward", "-n", AGENTS, pod, "10250"),
        ("debug", "-n", AGENTS, pod, "--image=busybox", "--", "id"),
    ):
        done = subprocess.run(["kubectl", *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert refused in done.stderr, done.stderr


def test_what_is_sent_into_the_one_command_does_no_more(observer: Path, namespace: str, other: str) -> None:
    """Frames by hand: another object, other places of variables, another filter, tables, questions about the kernel."""
    until_ready(other, "opener")
    pod = agent_of("opener", namespace)
    (agent,) = (found for found in listed("pods", "-n", AGENTS) if f"pod/{found['metadata']['name']}" == pod)
    command = manifests.contained_command(SessionCommand(("trace_open",), namespace=namespace), agent)
    spec, elf = asked("trace_open")
    own = encode(FrameType.OBJECT, elf)
    moved = json.loads(json.dumps(spec))
    moved["globals"]["filter_path"]["offset"] = 0
    for frames in (
        encode(FrameType.OBJECT, elf[:-1] + b"x"),
        own + encode_json(FrameType.RUN, {"gadgets": [moved]}),
        own + encode_json(FrameType.RUN, {"gadgets": [spec | {"name": "trace_exec"}]}),
        own + encode_json(FrameType.RUN, {"gadgets": [{"name": "policy", "kind": "policy", "object": 0, "hooks": []}]}),
        encode_json(FrameType.LOOK_UP, {"functions": ["sys_write"]}),
        encode_json(FrameType.UPDATE, {"gadget": 0}),
    ):
        ended = frames_of(observer, pod, command, frames)
        assert "error" in ended[-1]
        assert not any("gadgets" in frame for frame in ended[:-1])
    run = {"gadgets": [spec], "filter": {"namespaces": None, "host": True}}
    began = frames_of(observer, pod, command, own + encode_json(FrameType.RUN, run))
    said = json.dumps(began)
    assert any("containers" in frame for frame in began)
    assert namespace in said
    assert other not in said


def frames_of(account: Path, pod: str, command: tuple[str, ...], frames: bytes) -> list[dict[str, object]]:
    """What the agent answers, but for events; the input ends when it has said END, or after five reports."""
    words = ["kubectl", f"--kubeconfig={account}", "exec", "-i", "-n", AGENTS, pod, "--", *command]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    with suppress(BrokenPipeError):  # what it answered says why
        process.stdin.write(frames)
        process.stdin.flush()
    decoder, found = FrameDecoder(), []
    reports = 0
    while data := process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
        for frame in decoder.feed(data):
            if frame.type in (FrameType.EVENTS, FrameType.BOOT):
                continue
            found.append(parse(frame.payload))
            reports += frame.type == FrameType.STATS
        if reports >= 3 and not process.stdin.closed:
            process.stdin.close()
    if not process.stdin.closed:
        process.stdin.close()
    process.stdout.close()
    process.wait(30)
    return found
