"""Installed policies without a cluster: a folder in the place of the ConfigMap, and the agent's process.

with guard(tmp_path) as running:
    running.install(SECRETS)
    …
    running.kill()          # as kill -9 does
    running.start()
    events = running.events("secrets", 13)
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget import gadgets
from kubectl_gadget.policies.installation import installed_file, policies_to_store
from tests.waiting import PATIENCE, wait_until


class RunningGuard:
    """`secret` is a file of this test alone; `pins` is where the policies of `namespace` are pinned."""

    def __init__(self, folder: Path, file_system: Path, namespace: str = "kubectl-gadget") -> None:
        self.folder = folder / "policies"
        self.pins = file_system / "kubectl-gadget-policies" / namespace
        self.secret = folder / "secret"
        self.run = folder / "run"
        for path in (self.folder, self.run):
            path.mkdir()
        self.secret.write_text("secret")
        self._log = folder / "log"
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {
            **os.environ,
            "KUBECTL_GADGET_RUN": str(self.run),
            "KUBECTL_GADGET_PINS": str(file_system),
            "POD_NAMESPACE": namespace,
            "NODE_NAME": "node-1",
        }

    def policy(self, name: str, action: str = "") -> str:
        """One that tells each opening of the secret."""
        actions = f"matchActions: [{{action: {action}}}]" if action else ""
        return POLICY.format(name=name, secret=self.secret, actions=actions)

    def install(self, *texts: str, allow_weaker: bool = False, owner: str = "uid-1") -> str:
        """The file that a client would have put into the ConfigMap; its digest."""
        objects = {machine: gadgets.object_bytes("policy", machine) for machine in (os.uname().machine,)}
        policies = policies_to_store([("test.yaml", "\n---\n".join(texts))], "default") if texts else []
        digest, data = installed_file(policies, allow_weaker, objects, owner)
        (self.folder / "new").write_bytes(data)
        (self.folder / "new").rename(self.folder / "policies.zip")
        return digest

    def start(self) -> None:
        # What it has pinned is unmounted after a run that was killed (tests/leftovers.py), and nothing else holds it.
        dies_with_us = ["setpriv", "--pdeathsig", "KILL"]
        command = [*dies_with_us, sys.executable, "-m", "kubectl_gadget.agent", "policies", str(self.folder)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None

    def wait_for_end(self) -> None:
        """Of the process, which release() ends."""
        assert self._process is not None
        assert self._process.wait(PATIENCE) == 0
        self._process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def release(self, *words: str) -> Any:
        """As undeploy does it; how many sets were in force, of each owner, and why others are kept."""
        done = subprocess.run([*RELEASE, *words], capture_output=True, text=True, env=self.environment, check=True)
        found = json.loads(done.stdout)
        return found["removed"] | found["kept"]

    def state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.run / "kubectl-gadget.policies").read_text())
        except FileNotFoundError:
            return {}
        return found

    def wait_for(self, digest: str) -> dict[str, dict[str, Any]]:
        """Until this is in force; the state of each policy."""
        self.wait_until(lambda: self.state().get("digest") == digest)
        return {state["name"]: state for state in self.state()["policies"]}

    def open_secret(self, times: int) -> None:
        for _ in range(times):
            self.secret.read_text()

    def lines(self) -> list[dict[str, Any]]:
        complete = self._log.read_text().rpartition("\n")[0]  # the last line may still be written
        return [json.loads(line) for line in complete.splitlines()]

    def events(self, policy: str, times: int) -> list[dict[str, Any]]:
        """Of this policy and this process, once there are so many, and all that came soon after."""

        def found() -> list[dict[str, Any]]:
            bodies = [line["process_kprobe"] for line in self.lines() if "process_kprobe" in line]
            return [one for one in bodies if one["policy_name"] == policy and one["process"]["pid"] == os.getpid()]

        self.wait_until(lambda: len(found()) >= times)
        return found()

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Fails when the process ends before."""
        wait_until(condition, state=lambda: self._log.read_text()[-4000:], over=self._has_ended)

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None


RELEASE = (sys.executable, "-m", "kubectl_gadget.agent", "release")

POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: {name}}}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{{index: 0, type: int}}, {{index: 1, type: string}}]
    selectors:
    - matchArgs: [{{index: 1, operator: Equal, values: ["{secret}"]}}]
      {actions}
"""


@contextmanager
def bpf_file_system(folder: Path) -> Iterator[Path]:
    """One of this test's own."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no bpf file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def guard(folder: Path) -> Iterator[RunningGuard]:
    """Not started yet; nothing stays."""
    with bpf_file_system(folder / "bpf") as file_system:
        found = RunningGuard(folder, file_system)
        try:
            yield found
        finally:
            found.stop()


DENIES = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: denies}}
spec:
  lsmhooks:
  - hook: file_open
    args: [{{index: 0, type: file}}]
    selectors:
    - matchArgs: [{{index: 0, operator: Equal, values: ["{secret}"]}}]
      matchActions: [{{action: Override, argError: -1}}]
"""
"""A policy that denies opening a file, through security modules."""
