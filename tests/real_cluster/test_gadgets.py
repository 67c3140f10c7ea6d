"""Every gadget on a real cluster, in agents as `deploy` makes them: with a pod's capabilities, and the default seccomp
profile of the runtime.

What a gadget needs may be missing in the nodes' kernel, too. Only `trace lsm` needs something that common kernels lack,
and its error then names the kernel.
"""

from collections.abc import Iterator

import pytest

from kubectl_gadget.gadgets.load import load_gadget, load_index
from tests.real_cluster.real_cluster import AGENT_FLAGS, AGENTS, gadget, kubectl, listed

pytestmark = pytest.mark.cluster
NEEDED = {"profile functions": ("--function", "libc.so:malloc")}
"""Parameters without which a gadget does nothing."""
ELSEWHERE = {"enforce"}
"""Tested with the policies that it takes (test_real_cluster_policies.py)."""
PRIVILEGED = "top bpf"
LSM = "trace lsm"
AT_ONCE = 6


def commands() -> list[str]:
    """Of all gadgets; those that trace in one stream are run together, some at a time."""
    words = {" ".join(entry.command): entry.name for entry in load_index()}
    chosen = sorted(words.keys() - ELSEWHERE - {PRIVILEGED, LSM})
    streams = [one for one in chosen if one.startswith("trace ") and load_gadget(words[one]).kind == "stream"]
    names = [one.removeprefix("trace ") for one in streams]
    together = [f"trace {'+'.join(names[start : start + AT_ONCE])}" for start in range(0, len(names), AT_ONCE)]
    return together + [one for one in chosen if one not in streams]


@pytest.fixture(scope="module", autouse=True)
def _deployed() -> Iterator[None]:
    result = gadget("deploy", *AGENT_FLAGS)
    assert result.returncode == 0, result.stderr
    yield
    assert gadget("undeploy").returncode == 0


def test_agents_run_with_the_default_profile_of_the_runtime() -> None:
    agents = listed("pods", "-n", AGENTS, "-l", "app.kubernetes.io/component=agent")
    for agent in agents:
        (container,) = agent["spec"]["containers"]
        assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        words = ("python3", "-c", "print(open('/proc/self/status').read())")
        status = kubectl("exec", "-n", AGENTS, agent["metadata"]["name"], "--", *words)
        assert "\nSeccomp:\t2\n" in status
    assert len(agents) == len(listed("nodes"))


@pytest.mark.parametrize("command", commands())
def test_a_gadget_runs_on_every_node(command: str) -> None:
    result = gadget(*command.split(), *NEEDED.get(command, ()), "-A", "--timeout", "2s", "-o", "json")
    assert result.returncode == 0, result.stderr
    assert f"from {len(listed('nodes'))} nodes" in result.stderr


def test_what_needs_more_says_so() -> None:
    result = gadget(*PRIVILEGED.split(), "-A", "--timeout", "2s")
    assert result.returncode == 1
    assert "try: --privileged" in result.stderr


def test_what_the_kernel_lacks_is_named() -> None:
    result = gadget(*LSM.split(), "-A", "--timeout", "2s")
    assert result.returncode == 0 or "this kernel has no lsm programs" in result.stderr, result.stderr
