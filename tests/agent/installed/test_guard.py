"""Installed policies: in force from the ConfigMap's file alone, through changes of it and through the agent's death."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.agent.guards import DENIES, RELEASE, RunningGuard

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]


def test_each_event_is_one_line_with_the_policy_and_the_process(running: RunningGuard) -> None:
    digest = running.install(running.policy("secrets"))
    running.start()
    states = running.wait_for(digest)
    assert states["secrets"]["state"] == "enabled"
    running.open_secret(13)
    events = running.events("secrets", 13)
    assert len(events) == 13
    assert {event["args"][1]["string_arg"] for event in events} == {str(running.secret)}
    assert {event["process"]["binary"] for event in events} == {os.path.realpath("/proc/self/exe")}
    assert {event["parent"]["pid"] for event in events} == {os.getppid()}


def test_nothing_is_lost_and_nothing_reported_twice_when_the_agent_is_killed(running: RunningGuard) -> None:
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    running.open_secret(7)
    running.events("secrets", 7)
    running.kill()
    running.open_secret(11)
    running.start()
    running.events("secrets", 7 + 11)
    running.open_secret(5)
    assert len(running.events("secrets", 7 + 11 + 5)) == 7 + 11 + 5
    assert any("is taken over: secrets" in line.get("message", "") for line in running.lines())


def test_a_signal_is_sent_while_no_agent_runs(running: RunningGuard) -> None:
    digest = running.install(running.policy("kills", "Sigkill"), allow_weaker=True)
    running.start()
    assert running.wait_for(digest)["kills"]["hooks"][0]["method"] == "only sends signals"
    running.kill()
    assert subprocess.run(["cat", running.secret], check=False).returncode == -signal.SIGKILL


OPENS = """
import select, sys
n = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    open(sys.argv[1]).close()
    n += 1
print(n)
"""


def test_a_policy_that_comes_and_one_that_goes_leave_the_third_without_a_gap(running: RunningGuard) -> None:
    """A process opens files all the time and counts them. The policy that stays reports each once, except for one that
    each CPU may report twice at the moment of the exchange."""
    stays, goes, comes = running.policy("stays"), running.policy("goes"), running.policy("comes")
    digest = running.install(stays, goes)
    running.start()
    running.wait_for(digest)
    command = [sys.executable, "-c", OPENS, str(running.secret)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as opener:
        digest = running.install(stays, comes)
        states = running.wait_for(digest)
        out, _ = opener.communicate(timeout=120)
    assert set(states) == {"stays", "comes"}
    told = _of_process(running, "stays", opener.pid, int(out))
    assert int(out) <= told <= int(out) + (os.cpu_count() or 1)
    running.open_secret(3)
    running.events("comes", 3)
    assert not _count(running, "goes", os.getpid())


def _count(running: RunningGuard, policy: str, pid: int) -> int:
    bodies = (line.get("process_kprobe") for line in running.lines())
    return sum(bool(body) and body["policy_name"] == policy and body["process"]["pid"] == pid for body in bodies)


def _of_process(running: RunningGuard, policy: str, pid: int, times: int) -> int:
    running.wait_until(lambda: _count(running, policy, pid) >= times)
    return _count(running, policy, pid)


NOWHERE = """
  - call: there_is_no_such_function
    syscall: false
"""


FOLLOWS = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: follows}}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{{index: 1, type: string}}]
    selectors:
    - matchBinaries: [{{operator: In, values: ["{binary}"], followChildren: true}}]
      matchArgs: [{{index: 1, operator: Equal, values: ["{secret}"]}}]
"""


def test_what_processes_had_at_their_exec_is_kept_while_no_agent_runs(running: RunningGuard, tmp_path: Path) -> None:
    """With a shell of its own: this process may descend from the system's, which the policy would follow as well."""
    binary = shutil.copy(os.path.realpath("/bin/sh"), tmp_path / "a-shell")
    digest = running.install(FOLLOWS.format(binary=binary, secret=running.secret))
    running.start()
    running.wait_for(digest)
    running.kill()
    subprocess.run([binary, "-c", f"for i in 1 2 3; do cat {running.secret}; done"], check=True, capture_output=True)
    subprocess.run(["cat", running.secret], check=True, capture_output=True)
    running.start()
    running.wait_until(lambda: sum("process_kprobe" in line for line in running.lines()) >= 3)
    bodies = [line["process_kprobe"] for line in running.lines() if "process_kprobe" in line]
    assert [body["parent"]["binary"] for body in bodies] == [str(binary)] * 3


def test_a_policy_that_the_node_cannot_carry_out_is_reported_and_the_others_hold(running: RunningGuard) -> None:
    digest = running.install(running.policy("secrets"), running.policy("nowhere") + NOWHERE)
    running.start()
    states = running.wait_for(digest)
    assert states["nowhere"]["state"] == "load_error"
    assert "cannot attach to there_is_no_such_function" in states["nowhere"]["error"]
    running.open_secret(3)
    assert len(running.events("secrets", 3)) == 3
    assert not _count(running, "nowhere", os.getpid()), "its hook that is there must not hold either"


def test_hooks_of_one_name_fail_each_for_its_own_reason(running: RunningGuard) -> None:
    """At a function that is not there, and at its return."""
    at_return = NOWHERE + "    return: true\n    returnArg: {type: int}\n"
    texts = [running.policy("at-call") + NOWHERE, running.policy("at-return") + at_return]
    digest = running.install(running.policy("secrets"), *texts)
    running.start()
    running.wait_for(digest)
    running.kill()
    running.start()
    running.wait_until(lambda: any("is taken over" in line.get("message", "") for line in running.lines()))
    running.wait_until(lambda: bool(running.state()["policies"]))
    errors = {one["name"]: one["error"] for one in running.state()["policies"]}
    assert "secrets" not in errors or not errors["secrets"]
    assert "there_is_no_such_function" in errors["at-call"]
    assert "fexit/" in errors["at-return"]
    assert "fexit/" not in errors["at-call"]


def test_an_unreadable_file_leaves_the_old_policies_in_force(running: RunningGuard) -> None:
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    (running.folder / "new").write_bytes(b"no zip")
    (running.folder / "new").rename(running.folder / "policies.zip")
    running.wait_until(lambda: "cannot be decoded" in running.state()["problem"])
    running.open_secret(3)
    assert len(running.events("secrets", 3)) == 3


def test_a_set_of_another_version_stays_in_force_until_a_readable_one_replaces_it(running: RunningGuard) -> None:
    """As after an update of the agents: no process reads its events, and its policies stay in force."""
    digest = running.install(running.policy("kills", "Sigkill"), allow_weaker=True)
    command = [sys.executable, "-c", OLD, str(running.folder)]
    old = subprocess.Popen(command, env=running.environment)
    running.wait_for(digest)
    old.kill()
    old.wait()
    (running.folder / "policies.zip").rename(running.folder / "later")
    (running.folder / "policies.zip").write_bytes(b"of another version")
    running.start()
    running.wait_until(lambda: "cannot be decoded" in running.state()["problem"])
    assert any("its records have the format 0" in line.get("message", "") for line in running.lines())
    assert subprocess.run(["cat", running.secret], check=False).returncode == -signal.SIGKILL
    (running.folder / "later").rename(running.folder / "policies.zip")
    running.wait_for(digest)
    assert subprocess.run(["cat", running.secret], check=False).returncode == -signal.SIGKILL
    assert len(list(running.pins.iterdir())) == 1


OLD = """
import sys
from kubectl_gadget.agent.installed import guard, in_force
in_force.FORMAT = 0
guard.run(*sys.argv[1:])
"""


def test_uninstalling_everything_leaves_nothing_pinned(running: RunningGuard) -> None:
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    assert len(list(running.pins.iterdir())) == 1
    running.wait_for(running.install())
    assert not list(running.pins.iterdir())


def test_pins_are_removed_when_their_file_is_gone(running: RunningGuard) -> None:
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    running.kill()
    (running.folder / "policies.zip").unlink()
    running.start()
    running.wait_until(lambda: running.pins.exists() and not list(running.pins.iterdir()))


def test_hooks_at_entry_and_exit_of_a_call_are_both_taken_over(running: RunningGuard) -> None:
    """Both have the call's name."""
    returns = running.policy("returns").replace(
        "syscall: true", "syscall: true\n    return: true\n    returnArg: {type: int}"
    )
    digest = running.install(running.policy("secrets"), returns)
    running.start()
    before = running.wait_for(digest)
    assert before["secrets"]["hooks"] != before["returns"]["hooks"]
    running.kill()
    (running.run / "kubectl-gadget.policies").unlink()
    running.start()
    after = running.wait_for(digest)
    assert {name: state["hooks"] for name, state in after.items()} == {
        name: state["hooks"] for name, state in before.items()
    }


def test_a_set_whose_calls_could_not_be_checked_is_loaded_again(running: RunningGuard) -> None:
    """Without the dispatcher's tables, nobody would notice that its programs are not called any more."""
    digest = running.install(running.policy("secrets"))
    command = [sys.executable, "-c", WITHOUT_TABLES, str(running.folder)]
    before = subprocess.Popen(command, env=running.environment)
    running.wait_for(digest)
    before.kill()
    before.wait()
    (running.run / "kubectl-gadget.policies").unlink()
    running.start()
    running.wait_for(digest)
    assert any(
        "is not taken over: its description lacks the tables" in line.get("message", "") for line in running.lines()
    )
    running.open_secret(3)
    assert len(running.events("secrets", 3)) == 3
    assert len(list(running.pins.iterdir())) == 1


WITHOUT_TABLES = """
import sys
from kubectl_gadget.agent.installed import guard, in_force
in_force._pinned_calls = lambda calls: None
guard.run(*sys.argv[1:])
"""


def test_a_set_that_cannot_be_taken_over_is_out_of_force_once_another_one_is(running: RunningGuard) -> None:
    digest = running.install(running.policy("kills", "Sigkill"), allow_weaker=True)
    running.start()
    running.wait_for(digest)
    running.kill()
    (folder,) = running.pins.iterdir()
    (folder / "0_policy_counts").unlink()
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    assert any("is not taken over" in line.get("message", "") for line in running.lines())
    assert subprocess.run(["cat", running.secret], check=False, capture_output=True).returncode == 0


def test_two_processes_never_have_the_same_pins(running: RunningGuard) -> None:
    """As when a node's old agent has not ended yet."""
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    command = [sys.executable, "-m", "kubectl_gadget.agent", "policies", str(running.folder)]
    other = running.environment | {"KUBECTL_GADGET_RUN": str(running.folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=other, timeout=120, check=False)
    assert done.returncode == 1
    assert "another agent uses" in json.loads(done.stdout)["message"]


def test_release_ends_the_process_and_leaves_nothing_pinned(running: RunningGuard) -> None:
    digest = running.install(running.policy("kills", "Sigkill"), allow_weaker=True)
    running.start()
    running.wait_for(digest)
    assert running.release("own") == {"own": 1}
    assert not running.pins.exists()
    assert subprocess.run(["cat", running.secret], check=False, capture_output=True).returncode == 0


def test_release_writes_what_happened_before_it(running: RunningGuard) -> None:
    running.start()
    running.wait_for(running.install(running.policy("secrets")))
    os.kill(running.pid, signal.SIGSTOP)
    for _ in range(100):  # for more than the second after which it looks again for what to do
        running.open_secret(10)
        time.sleep(0.02)
    with subprocess.Popen([*RELEASE, "own"], env=running.environment, stdout=subprocess.DEVNULL) as release:
        running.wait_until((running.run / "kubectl-gadget.release").exists)
        os.kill(running.pid, signal.SIGCONT)
    assert release.returncode == 0
    running.wait_for_end()
    assert len(running.events("secrets", 1000)) == 1000


def test_without_a_bpf_file_system_policies_hold_and_the_state_says_for_how_long(
    running: RunningGuard, tmp_path: Path
) -> None:
    running.environment["KUBECTL_GADGET_PINS"] = str(tmp_path / "plain")
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    assert not running.state()["pinned"]
    assert "can be pinned" in running.state()["not_pinned"]


def test_the_pods_main_process_starts_it_again(running: RunningGuard) -> None:
    digest = running.install(running.policy("secrets"))
    command = [sys.executable, "-m", "kubectl_gadget.agent", "idle"]
    command += ["--policies", str(running.folder), "--idle-timeout", "0"]
    log_file = running.run / "idle.log"
    with log_file.open("wb") as log, subprocess.Popen(command, stdout=log, env=running.environment) as idle:
        try:
            running.wait_for(digest)
            first = _guard_of(idle.pid)
            os.kill(first, signal.SIGKILL)
            running.wait_until(lambda: _guard_of(idle.pid) not in (0, first))
        finally:
            last = _guard_of(idle.pid)
            idle.send_signal(signal.SIGTERM)
    running.wait_until(lambda: not Path(f"/proc/{last}/fd/0").exists())
    assert idle.returncode == 0
    assert [json.loads(line) for line in (running.run / "idle.log").read_text().splitlines()]


def _guard_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


def test_what_is_denied_stays_denied_while_no_agent_runs(running: RunningGuard) -> None:
    """Through security modules, which this machine may not have. It is tried all the time, also while an agent ends,
    while another one takes over, and while a policy is replaced."""
    denies = DENIES.format(secret=running.secret)
    digest = running.install(denies)
    running.start()
    state = running.wait_for(digest)["denies"]
    if state["state"] != "enabled":
        pytest.skip(" ".join(state["error"].split()))
    assert state["hooks"][0]["method"] == "denies"
    with tried_all_the_time(running.secret) as outcomes:
        running.kill()
        before = outcomes["denied"]
        running.wait_until(lambda: outcomes["denied"] > before)
        running.start()
        running.wait_until(lambda: any("taken over" in line.get("message", "") for line in running.lines()))
        running.wait_for(running.install(denies.replace("-1", "-13")))
    assert not outcomes["done"]
    assert running.release("own") == {"own": 1}
    running.open_secret(1)


@contextmanager
def tried_all_the_time(secret: Path) -> Iterator[Counter[str]]:
    """How often opening the file was `denied`, and how often `done`, which a thread does until the block ends."""
    outcomes: Counter[str] = Counter()
    ended = threading.Event()

    def hammer() -> None:
        while not ended.is_set():
            try:
                secret.read_text()
                outcomes["done"] += 1
            except PermissionError:
                outcomes["denied"] += 1
                time.sleep(0.002)  # each is a line of the log

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        yield outcomes
    finally:
        ended.set()
        thread.join()


STOPPED_IN_A_CALLBACK = """
import ctypes, os, signal
from kubectl_gadget.agent.installed import guard
def called():
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(10):
        pass
class Guard:
    def __init__(self, *_): pass
    def take_over(self): ctypes.CFUNCTYPE(None)(called)()
    def turn(self): pass
    def wait(self): pass
guard.Guard = Guard
raise SystemExit(guard.run(""))
"""


def test_a_signal_that_comes_while_libbpf_prints_ends_the_process(tmp_path: Path) -> None:
    """What a signal's handler raises is ignored in a callback from C."""
    command = [sys.executable, "-c", STOPPED_IN_A_CALLBACK]
    environment = os.environ | {"KUBECTL_GADGET_RUN": str(tmp_path)}
    assert subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False).returncode == 0
