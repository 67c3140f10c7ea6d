"""`kubectl gadget enforce -f` as a user runs it, on this machine's own processes: what it denies, what it says, and
that nothing stays when it ends, however it does.

Denying takes BPF among the security modules, or fmod_ret, which not every kernel has; such tests are skipped there. The
virtual machine has the first of them: emulated, each takes half a minute, so they wait for what has to come.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_gadget.agent.kernel import features
from kubectl_gadget.demo.pods import DemoPods
from kubectl_gadget.kube.inventory import LOCAL_LABEL
from tests.conftest import why_no_containers
from tests.gadget_run import GADGET, GadgetRun
from tests.observe.containers import FIRST_ACTS, first_act
from tests.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]
TIMES, EACCES = 7, 13
OVER_LSM = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: guarded}
spec:
  lsmhooks:
  - hook: file_open
    args: [{index: 0, type: file}]
    selectors:
    - matchArgs: [{index: 0, operator: Equal, values: ["%s"]}]
      matchActions: [{action: Override, argError: -13}]
"""
OVER_CALL = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: guarded}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{index: 1, type: string}]
    selectors:
    - matchArgs: [{index: 1, operator: Equal, values: ["%s"]}]
      matchActions: [{action: Sigkill}]
"""
SEEN = "echo x > /tmp/own || exit 3; cat /tmp/own || exit 4"
SEEN_AND_OTHER = f"{SEEN}; /bin/busybox-other true && exit 5; echo x > /tmp/other && exit 6; exit 0"
MANY = 50
AT_ONCE = """
import os, sys, time
begin, end = os.pipe()
for _ in range(int(sys.argv[2])):
    if not os.fork():
        os.close(end)
        os.read(begin, 1)
        os.open(sys.argv[1], os.O_RDONLY)
        time.sleep(200)
os.close(end)
sys.exit(any(os.wait()[1] != 9 for _ in range(int(sys.argv[2]))))
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("secret")
    return path


class Enforcing:
    """The command, once it has begun; `said` is its standard error up to there."""

    def __init__(self, process: "subprocess.Popen[str]", said: str, out: Path) -> None:
        self.process = process
        self.said = said
        self.told = out.read_text
        """what it has written so far"""

    def end(self, number: int) -> tuple[str, str]:
        """All that it told, and its standard error, from now to its end."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.told(), said


def start(folder: Path, policy: str, *flags: str) -> Enforcing:
    """Skips the test where this kernel cannot deny."""
    file = folder / "policy.yaml"
    file.write_text(policy)
    command = [*GADGET, "enforce", "--local", "-A", "--host", "--start-timeout", "5m", "-f", str(file)]
    out = folder / "out"
    with out.open("w") as stream:
        process = subprocess.Popen([*command, *flags], stdout=stream, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    while line := process.stderr.readline():
        said += line
        if "press Ctrl-C to stop" in line:
            return Enforcing(process, said, out)
    process.communicate(timeout=PATIENCE)
    if "cannot attach to" in said:
        pytest.skip(" ".join(said[said.index("cannot attach to") :].split()))
    raise AssertionError(said)


@contextmanager
def ended(enforcing: Enforcing) -> Iterator[Enforcing]:
    try:
        yield enforcing
    finally:
        enforcing.process.kill()
        enforcing.process.communicate(timeout=PATIENCE)


def is_open(path: Path) -> bool:
    try:
        path.read_text()
    except PermissionError:
        return False
    return True


def wait_for_line(enforcing: Enforcing, path: Path, deed: Callable[[], bool] = lambda: True) -> str:
    """The first line about the file; the deed is done again and again, and has to succeed."""

    def found() -> bool:
        assert deed()
        return str(path) in enforcing.told()

    wait_until(found, f"a line about {path}")
    return next(line for line in enforcing.told().splitlines() if str(path) in line)


def test_what_is_denied_says_so_and_ctrl_c_ends_it(secret: Path, tmp_path: Path) -> None:
    with ended(start(tmp_path, OVER_LSM % secret)) as enforcing:
        assert "denies at lsm/file_open" in enforcing.said
        wait_until(lambda: not is_open(secret), "the file to be denied")
        told = wait_for_line(enforcing, secret)
        assert "BLOCKED" in told
        assert "EACCES" in told
        enforcing.end(signal.SIGINT)
        assert is_open(secret)


@pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers()))
def test_a_container_whose_first_act_is_denied_does_not_get_what_it_wants(tmp_path: Path) -> None:
    with DemoPods(Path(f"/run/kubectl-gadget-first-{os.getpid()}")) as pods:
        first_act(pods)
        pod = pods.start_pod("default", "first", {})
        assert pods.add_container(pod, "before", ["/bin/first-act"], until_end=True).exit_code == 0
        with ended(start(tmp_path, OVER_LSM % "/forbidden")) as enforcing:
            codes = [
                pods.add_container(pod, f"c{n}", ["/bin/first-act"], until_end=True).exit_code
                for n in range(FIRST_ACTS)
            ]
            told, said = enforcing.end(signal.SIGINT)
    assert codes == [EACCES] * FIRST_ACTS
    assert (
        sum("default/first /bin/first-act" in line and "BLOCKED" in line for line in told.splitlines()) == FIRST_ACTS
    ), said


def pod_with_label(folder: Path, namespace: str, name: str) -> str:
    """What kubectl would print of it: the policy selects it by this label."""
    metadata = {"name": name, "namespace": namespace, "labels": {LOCAL_LABEL: name}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}}
    file = folder / "objects.yaml"
    file.write_text(json.dumps({"kind": "List", "items": [pod]}))
    return str(file)


@pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers()))
def test_a_policy_from_a_baseline_denies_other_programs_and_writes(tmp_path: Path) -> None:
    """And nothing that the baseline has, nor what the runtime does when it starts a container."""
    if why := features.lacking("fmod_ret"):
        pytest.skip(why)
    namespace, baseline = f"advised-{os.getpid()}", str(tmp_path / "baseline.yaml")
    with DemoPods(Path(f"/run/kubectl-gadget-{namespace}")) as pods:
        shutil.copy(pods.image_root / "bin" / "busybox", pods.image_root / "bin" / "busybox-other")
        with GadgetRun(tmp_path, "behavior", "save", baseline, "-n", namespace, "--local") as run:
            pod = pods.run_short(namespace, "cart", ["/bin/sh", "-c", SEEN])
            assert run.stop() == 0, run.said()
        assert pods.add_container(pod, "main", ["/bin/sh", "-c", SEEN_AND_OTHER], until_end=True).exit_code == 5, (
            "nothing is denied yet"
        )
        advise = [*GADGET, "advise", "tracingpolicy", "--from", baseline, "--deny"]
        policy = subprocess.run(advise, check=True, stdout=subprocess.PIPE, text=True).stdout
        with ended(start(tmp_path, policy, "--objects", pod_with_label(tmp_path, namespace, "cart"))) as enforcing:
            assert pods.add_container(pod, "main", ["/bin/sh", "-c", SEEN_AND_OTHER], until_end=True).exit_code == 0
            told, said = enforcing.end(signal.SIGINT)
    blocked = [line for line in told.splitlines() if "BLOCKED" in line]
    assert len(blocked) == 2, f"{told}\n{said}"
    assert "/bin/busybox-other" in blocked[0]
    assert "/tmp/other" in blocked[1]


def test_nothing_stays_of_a_client_that_is_killed(secret: Path, tmp_path: Path) -> None:
    with ended(start(tmp_path, OVER_LSM % secret)) as enforcing:
        wait_until(lambda: not is_open(secret), "the file to be denied")
        enforcing.process.kill()
        wait_until(lambda: is_open(secret), "the policy's end")


def test_a_dry_run_denies_nothing_and_reports_what_it_would(secret: Path, tmp_path: Path) -> None:
    with ended(start(tmp_path, OVER_LSM % secret, "--dry-run")) as enforcing:
        told = wait_for_line(enforcing, secret, lambda: is_open(secret))
        assert told.endswith(" WOULD BE BLOCKED EACCES")
        enforcing.end(signal.SIGINT)


def test_a_node_that_can_only_send_signals_is_refused_with_a_way_out(secret: Path, tmp_path: Path) -> None:
    """No kernel that this runs on is built with error injection for system calls."""
    file = tmp_path / "policy.yaml"
    file.write_text(OVER_CALL % secret)
    command = [*GADGET, "enforce", "--local", "-A", "--host", "--start-timeout", "5m", "-f", str(file)]
    done = subprocess.run([*command, "--timeout", "1s"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode == 0 and os.path.exists("/sys/kernel/debug/error_injection/list"):
        pytest.skip("this kernel has error injection, so system calls can be overridden here")
    assert done.returncode == 1, done.stderr
    assert "cannot attach to sys_openat on this node" in done.stderr
    assert "--allow-weaker, which lets such nodes only send signals" in done.stderr
    assert is_open(secret)


def test_no_weaker_hook_is_suggested_for_a_node_that_lacks_the_hook(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text((OVER_LSM % "/secret").replace("file_open", "no_such_hook"))
    command = [*GADGET, "enforce", "--local", "-A", "--host", "--start-timeout", "5m", "-f", str(file)]
    done = subprocess.run([*command, "--timeout", "1s"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1, done.stderr
    assert "cannot attach to no_such_hook on this node" in done.stderr
    assert "--allow-weaker" not in done.stderr


def test_where_it_is_allowed_a_signal_is_sent_and_the_node_says_so(secret: Path, tmp_path: Path) -> None:
    with ended(start(tmp_path, OVER_CALL % secret, "--allow-weaker")) as enforcing:
        assert "only sends signals at" in enforcing.said
        done = subprocess.run(["cat", secret], capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL
        enforcing.end(signal.SIGINT)
        assert subprocess.run(["cat", secret], capture_output=True, check=False).returncode == 0


def test_the_agent_kills_the_process_that_did_it_afterwards_and_no_other(secret: Path, tmp_path: Path) -> None:
    with ended(start(tmp_path, OVER_CALL % secret, "--action", "kill")) as enforcing:
        assert "kills from user space, after the fact, at" in enforcing.said
        with subprocess.Popen(["sh", "-c", f"read x < {secret}; exec sleep 1000"]) as doer:
            assert doer.wait(PATIENCE) == -signal.SIGKILL
        assert subprocess.run(["cat", tmp_path / "policy.yaml"], capture_output=True, check=False).returncode == 0
        assert "BLOCKED" not in wait_for_line(enforcing, secret), "it was done before"
        _, said = enforcing.end(signal.SIGINT)
        assert "by agents: 1 killed" in said


def test_the_agent_kills_each_of_many_processes_that_do_it_at_once(secret: Path, tmp_path: Path) -> None:
    with ended(start(tmp_path, OVER_CALL % secret, "--action", "kill")) as enforcing:
        done = subprocess.run([sys.executable, "-c", AT_ONCE, secret, str(MANY)], check=False, timeout=PATIENCE)
        assert done.returncode == 0
        _, said = enforcing.end(signal.SIGINT)
        assert f"by agents: {MANY} killed" in said


def refused(folder: Path, *flags: str) -> str:
    file = folder / "policy.yaml"
    file.write_text(OVER_CALL % "/secret")
    command = [*GADGET, "enforce", "-f", str(file), *flags]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_flags_that_contradict_an_action_are_refused(tmp_path: Path) -> None:
    assert "only for --action kernel" in refused(tmp_path, "--local", "--action", "kill", "--dry-run")
    assert "--yes is only for" in refused(tmp_path, "--local", "--action", "kill", "--yes")
    assert "needs a cluster" in refused(tmp_path, "--local", "--action", "delete-pod", "--yes")
