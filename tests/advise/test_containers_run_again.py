"""Advice for real containers, which then have to run under it: profile, capabilities, read-only root, flows."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_gadget.demo.pods import DemoPods
from kubectl_gadget.demo.runc import BundleSpec
from tests.conftest import why_no_bpf, why_no_containers
from tests.gadget_run import GADGET, GadgetRun
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPods]:
    if why_no_bpf():
        pytest.skip(str(why_no_bpf()))
    state = Path("/run") / f"kubectl-gadget-advise-{tmp_path_factory.getbasetemp().parent.name}"
    with DemoPods(state) as found:
        yield found


class Watching:
    """`kubectl gadget advise …`, which watches; `advice` ends it and returns what it printed."""

    def __init__(self, *words: str) -> None:
        command = [*GADGET, "advise", *words, "--local"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        first = self._process.stderr.readline()
        assert "press Ctrl-C to stop" in first, first + self._process.stderr.read()

    def advice(self) -> str:
        self._process.send_signal(2)
        text, self.errors = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, self.errors
        return text

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@contextmanager
def watching(*words: str) -> Iterator[Watching]:
    made = Watching(*words)
    try:
        yield made
    finally:
        made.kill()


def run(pods: DemoPods, pod: str, script: str) -> int | None:
    """Runs a shell script as a pod's only container to its end; its exit code."""
    return pods.run_short("advise", pod, ["/bin/sh", "-ec", script]).containers["main"].exit_code


def configured(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Containers are made with what `change` does to their config.json, until the test ends."""
    config = BundleSpec.config

    def changed(spec: BundleSpec) -> dict[str, Any]:
        made = config(spec)
        if spec.container is not None:
            change(made)
        return made

    monkeypatch.setattr(BundleSpec, "config", changed)


WORK = "mkdir /tmp/work; cp /etc/hosts /tmp/work/; ls -l /tmp/work | sort > /tmp/work/list; chown 1000 /tmp/work/list"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_container_runs_again_under_the_profile_that_was_made_for_it(
    pods: DemoPods, monkeypatch: pytest.MonkeyPatch, no_new_privileges: bool
) -> None:
    name = f"seccomp-{no_new_privileges}".lower()
    assert run(pods, name, "mkfifo /tmp/pipe") == 0
    with watching("seccomp", name) as watch:
        assert run(pods, name, WORK) == 0
        profile = json.loads(watch.advice())
    assert {"mkdir", "fchownat", "chown", "lchown"} & set(profile["syscalls"][0]["names"])
    assert not {"mount", "pivot_root", "setns"} & set(profile["syscalls"][0]["names"]), "that was runc"
    assert "too short to be complete" in watch.errors

    def change(config: dict[str, Any]) -> None:
        config["linux"]["seccomp"] = profile
        config["process"]["noNewPrivileges"] = no_new_privileges

    configured(monkeypatch, change)
    for _ in range(3):
        assert run(pods, name, WORK) == 0
    assert run(pods, name, "mkfifo /tmp/pipe") != 0, "what was not seen is refused"


def test_a_container_runs_again_with_the_capabilities_that_were_advised(
    pods: DemoPods, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "touch /tmp/file; chown 1000 /tmp/file; chroot / /bin/true; ! mount -t tmpfs none /tmp"
    with watching("capabilities", "capable") as watch:
        assert run(pods, "capable", script) == 0
        (advice,) = list(yaml.safe_load_all(text := watch.advice()))
    (container,) = advice["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN", "SYS_CHROOT"]}
    assert "requested SYS_ADMIN, which was denied: mount (mount)" in text

    wanted = [f"CAP_{name}" for name in container["securityContext"]["capabilities"]["add"]]
    for names, code in ((wanted, 0), (wanted[:1], 1), (wanted[1:], 1)):
        capabilities = {kind: names for kind in ("bounding", "effective", "permitted")}
        with monkeypatch.context() as patch:
            configured(patch, lambda config, found=capabilities: config["process"].update(capabilities=found))
            assert (run(pods, "capable", script) != 0) == bool(code), names


def test_a_container_runs_again_with_a_read_only_root_and_the_volumes_that_were_advised(
    pods: DemoPods, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "mkdir -p /cache/app; echo x > /cache/app/file; mv /cache/app/file /cache/app/moved; touch /tmp/own"
    with watching("filesystem", "writer") as watch:
        assert run(pods, "writer", script) == 0
        (advice,) = list(yaml.safe_load_all(text := watch.advice()))
    (container,) = advice["spec"]["containers"]
    assert container["securityContext"] == {"readOnlyRootFilesystem": True}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/cache"]
    assert [volume["name"] for volume in advice["spec"]["volumes"]] == [container["volumeMounts"][0]["name"]]
    assert "written to, but not part of the root file system: /tmp" in text

    def read_only(config: dict[str, Any]) -> None:
        config["root"]["readonly"] = True

    def with_volumes(config: dict[str, Any]) -> None:
        for mount in container["volumeMounts"]:
            options = ["nosuid", "nodev", "mode=1777"]
            config["mounts"].append(
                {"destination": mount["mountPath"], "type": "tmpfs", "source": "tmpfs", "options": options}
            )

    configured(monkeypatch, with_volumes)
    # The image has no /cache, and runc makes it: the root file system has to be writable for that once.
    assert run(pods, "writer", "test -d /cache") == 0
    configured(monkeypatch, read_only)
    assert run(pods, "writer", "! touch /here") == 0
    assert run(pods, "writer", script) == 0


def test_two_pods_that_talk_get_policies_that_name_each_other(pods: DemoPods, tmp_path: Path) -> None:
    recording = tmp_path / "flows.kgr"
    rows = tmp_path / "rows.kgr"
    with (
        watching("networkpolicy", "--record", str(recording)) as watch,
        GadgetRun(tmp_path, "trace", "tcp+udp", "--local", "--record", str(rows)) as recorder,
    ):
        serve = ["/bin/sh", "-c", "while :; do nc -l -p 8080 -e /bin/cat; done"]
        server = pods.start_pod("advise", "server", {"main": serve})
        call = "until echo hello | nc -w 5 10.99.0.2 8080 | grep hello; do :; done; touch /tmp/done; sleep 100003"
        client = pods.start_pod("advise", "client", {"main": ["/bin/sh", "-c", call]})
        connect(client.sandbox.pid, server.sandbox.pid)
        wait_until(Path(f"/proc/{client.containers['main'].pid}/root/tmp/done").exists, "the client's end")
        documents = {item["metadata"]["name"]: item for item in yaml.safe_load_all(watch.advice())}
        recorder.stop()
    labels = {name: {"matchLabels": {"app.kubernetes.io/name": name}} for name in ("client", "server")}
    ports = [{"protocol": "TCP", "port": 8080}]
    assert documents["client"]["spec"]["egress"] == [{"to": [{"podSelector": labels["server"]}], "ports": ports}]
    assert documents["server"]["spec"]["ingress"] == [{"from": [{"podSelector": labels["client"]}], "ports": ports}]
    assert documents["client"]["spec"]["ingress"] == documents["server"]["spec"]["egress"] == []
    for words in (
        ("advise", "networkpolicy", "--from", recording),
        ("replay", recording, "advise", "networkpolicy"),
        ("replay", recording),
        ("replay", rows, "advise", "networkpolicy"),
    ):
        done = subprocess.run([*GADGET, *words], capture_output=True, text=True, check=True)
        assert list(yaml.safe_load_all(done.stdout)) == list(documents.values()), done.stderr
    assert "warning: the recording has trace tcp and trace udp instead of top flow, and so lacks" in done.stderr
    lacking = subprocess.run([*GADGET, "replay", recording, "advise", "seccomp"], capture_output=True, check=False)
    assert b"the recording has no events of top syscalls" in lacking.stderr

    policies = tmp_path / "policies.yaml"
    policies.write_text(yaml.safe_dump_all(documents.values()))
    assert check(recording, policies) == (0, "")
    documents["server"]["spec"]["ingress"][0]["ports"][0]["port"] = 8081
    policies.write_text(yaml.safe_dump_all(documents.values()))
    code, report = check(recording, policies)
    assert code == 4
    assert "advise/server" in report
    assert "pod advise/client" in report


def connect(one: int, other: int) -> None:
    """Joins the network namespaces of two processes, as 10.99.0.1 and 10.99.0.2."""
    script = (
        "ip link add eth0 netns /proc/$1/ns/net type veth peer name eth0 netns /proc/$2/ns/net; n=1; "
        "for pid in $1 $2; do nsenter --net=/proc/$pid/ns/net sh -ec "
        '"ip address add 10.99.0.$n/24 dev eth0; ip link set lo up; ip link set eth0 up"; n=$((n+1)); done'
    )
    subprocess.run(["sh", "-ec", script, "sh", str(one), str(other)], check=True)


def check(recording: Path, policies: Path) -> tuple[int, str]:
    command = [*GADGET, "advise", "networkpolicy", "--from", str(recording), "--check", str(policies)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout
