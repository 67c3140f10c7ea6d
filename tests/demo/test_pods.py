"""These start real containers with runc, on whatever cgroup layout the machine has."""

import ipaddress
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kubectl_gadget.demo import PODS, DemoPods, demo_pods
from kubectl_gadget.demo.pods import free_block
from kubectl_gadget.demo.runc import cgroup2_mount
from kubectl_gadget.errors import GadgetError
from tests.conftest import why_no_containers
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]


@pytest.fixture
def state(request: pytest.FixtureRequest) -> Path:
    return Path(f"/run/kubectl-gadget-test-{os.getpid()}-{abs(hash(request.node.name)) % 10**6}")


def cgroup_of(state: Path) -> Path:
    return cgroup2_mount() / state.name


def test_a_container_runs_in_the_cgroup_that_its_bundle_names(state: Path) -> None:
    with DemoPods(state) as pods:
        pod = pods.start_pod("default", "xwing", {"spaceship": ["sleep", "60"]})
        container = pod.containers["spaceship"]
        assert str(container.pid) in (container.cgroup / "cgroup.procs").read_text().split()
        assert container.cgroup.name == container.id
        config = json.loads((container.bundle / "config.json").read_text())
        assert config["linux"]["cgroupsPath"].endswith(f"/kubepods/besteffort/pod{pod.uid}/{container.id}")
        assert container.bundle == state / "io.containerd.runtime.v2.task" / "k8s.io" / container.id


def test_the_systemd_form_of_the_cgroup_path_works_too(state: Path) -> None:
    with DemoPods(state, driver="systemd") as pods:
        container = pods.start_pod("default", "xwing", {"spaceship": ["sleep", "60"]}).containers["spaceship"]
        assert container.cgroup.name == f"cri-containerd-{container.id}.scope"
        assert str(container.pid) in (container.cgroup / "cgroup.procs").read_text().split()


def test_containers_of_one_pod_share_its_network(state: Path) -> None:
    with DemoPods(state) as pods:
        pod = pods.start_pod("default", "tiefighter", {"engine": ["sleep", "60"], "laser": ["sleep", "60"]})
        networks = {os.readlink(f"/proc/{container.pid}/ns/net") for container in pod.containers.values()}
        assert networks == {os.readlink(f"/proc/{pod.sandbox.pid}/ns/net")}
        assert networks != {os.readlink("/proc/self/ns/net")}


def test_containers_have_a_parent_that_works_in_a_bundle_as_a_shim_does(state: Path) -> None:
    with DemoPods(state) as pods:
        container = pods.start_pod("default", "xwing", {"spaceship": ["sleep", "60"]}).containers["spaceship"]
        status = Path(f"/proc/{container.pid}/status").read_text()
        parent = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
        assert Path(os.readlink(f"/proc/{parent}/cwd")) == container.bundle


def test_a_short_container_gives_back_its_exit_code(state: Path) -> None:
    with DemoPods(state) as pods:
        pod = pods.run_short("default", "short", ["sh", "-c", "exit 7"])
        assert pod.containers["main"].exit_code == 7


def test_a_command_that_does_not_exist_is_an_error_in_the_words_of_runc(state: Path) -> None:
    with DemoPods(state) as pods, pytest.raises(GadgetError, match="no-such-program"):
        pods.start_pod("default", "xwing", {"spaceship": ["no-such-program"]})
    assert not state.exists()


def test_nothing_is_left_after_the_block(state: Path) -> None:
    with demo_pods(state):
        assert cgroup_of(state).is_dir()
    assert not state.exists()
    assert not cgroup_of(state).exists()


def test_two_runs_cannot_share_a_state_folder(state: Path) -> None:
    with DemoPods(state), pytest.raises(GadgetError, match="another demo"), DemoPods(state):
        pass


def client(state: Path) -> subprocess.Popen[str]:
    """A process that starts the demo's pods, says so and waits."""
    program = (
        "import sys; from pathlib import Path; from kubectl_gadget.demo import demo_pods\n"
        "with demo_pods(Path(sys.argv[1])): print('up', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def networks_below(process: subprocess.Popen[str], state: Path) -> set[str]:
    """The network namespaces of the demo: of its pods, and the shim's, which connects them."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    pids = [*children, *(path.read_text().strip() for path in state.rglob("init.pid"))]
    found = {os.readlink(f"/proc/{pid}/ns/net") for pid in pids}
    assert os.readlink("/proc/self/ns/net") not in found
    return found


def networks_of_all() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):  # it ended
            found.add(os.readlink(path))
    return found


def test_pods_vanish_with_a_client_that_is_killed(state: Path) -> None:
    before = set(os.listdir("/sys/class/net"))
    process = client(state)
    networks = networks_below(process, state)
    assert len(networks) == 1 + len(PODS)
    (shim,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    shim_ended = os.pidfd_open(int(shim))
    process.kill()
    process.communicate()
    wait_until_gone(state)
    poll = select.poll()  # this process may have more files open than select() can name
    poll.register(shim_ended, select.POLLIN)
    poll.poll()
    os.close(shim_ended)
    assert not cgroup_of(state).exists()
    assert not networks & networks_of_all()
    assert set(os.listdir("/sys/class/net")) <= before


def test_pods_vanish_with_a_client_that_is_interrupted(state: Path) -> None:
    process = client(state)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert not state.exists()
    assert not cgroup_of(state).exists()


def test_the_next_run_sweeps_what_a_killed_client_and_its_shim_left(state: Path) -> None:
    process = client(state)
    networks = networks_below(process, state)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in [*map(int, children), process.pid]:
        kill_and_wait(pid)
    process.communicate()
    assert cgroup_of(state).is_dir()
    assert networks & networks_of_all()
    with DemoPods(state) as pods:
        assert not networks & networks_of_all()
        pods.start_pod("default", "xwing", {"spaceship": ["sleep", "60"]})
        assert len(list(cgroup_of(state).glob("kubepods/besteffort/pod*"))) == 1
    assert not state.exists()


def kill_and_wait(pid: int) -> None:
    """Kills a process that need not be our child, and blocks until it has ended and so let go of its lock."""
    ended = os.pidfd_open(pid)
    signal.pidfd_send_signal(ended, signal.SIGKILL)
    poll = select.poll()  # not select(), which takes no descriptor above 1,023
    poll.register(ended, select.POLLIN)
    poll.poll()
    os.close(ended)


def wait_until_gone(state: Path) -> None:
    """Blocks until the shim has removed the folder, which it does last."""
    wait_until(lambda: not state.exists(), f"the removal of {state}")


# test_cables


HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
DEFAULT = "eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"


def route(network: str) -> str:
    """A line of /proc/net/route of an x86 machine."""
    found = ipaddress.IPv4Network(network)
    address, mask = (bytes(reversed(item.packed)).hex().upper() for item in (found.network_address, found.netmask))
    return f"eth0\t{address}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n"


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ((), "10.213.77.0/24"),
        (("10.0.0.0/8",), "172.29.213.0/24"),
        (("10.213.77.128/25", "172.29.0.0/16"), "192.168.213.0/24"),
        (("10.213.0.0/16", "172.16.0.0/12", "192.168.0.0/16"), "198.18.213.0/24"),
        (("10.214.0.0/16",), "10.213.77.0/24"),
    ],
)
def test_the_block_is_one_that_no_route_leads_to(taken: tuple[str, ...], chosen: str, tmp_path: Path) -> None:
    (tmp_path / "route").write_text(HEAD + DEFAULT + "".join(map(route, taken)))
    assert str(free_block(tmp_path / "route")) == chosen


def test_a_machine_without_ipv4_has_the_first_block(tmp_path: Path) -> None:
    assert str(free_block(tmp_path / "none")) == "10.213.77.0/24"
