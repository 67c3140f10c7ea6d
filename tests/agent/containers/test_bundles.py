"""Where what describes a container is found: folders of a node, made here."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.containers import bundles
from kubectl_gadget.agent.containers.bundles import Bundles
from kubectl_gadget.agent.containers.identity import ContainerIdentity

ID = "0123456789abcdef" * 4
UNNAMED = ContainerIdentity(ID, 4711, "", "", "", ID[:12], "", "", "container")
CONTAINERD = {
    "annotations": {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-namespace": "default",
        "io.kubernetes.cri.sandbox-name": "xwing",
        "io.kubernetes.cri.container-name": "spaceship",
    }
}
CRIO = {
    "annotations": {
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.pod.namespace": "default",
        "io.kubernetes.pod.name": "xwing",
        "io.kubernetes.container.name": "spaceship",
    }
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's file system, as it is mounted in the agent's pod."""
    monkeypatch.setenv("KUBECTL_GADGET_HOST", str(tmp_path))
    return tmp_path


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "folder",
    [
        "run/containerd/io.containerd.runtime.v2.task/k8s.io",
        "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io",
        "run/k0s/containerd/io.containerd.runtime.v2.task/k8s.io",
        "var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task/k8s.io",
    ],
)
def test_containerds_usual_folders_are_known(host: Path, folder: str) -> None:
    write(host / folder / ID / "config.json", CONTAINERD)
    named = Bundles("").name(UNNAMED, "", 0)
    assert named
    assert (named.pod, named.container, named.runtime) == ("xwing", "spaceship", "containerd")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only folders of root are believed")
def test_another_containerds_folder_below_run_is_found(host: Path) -> None:
    write(host / "run/my-distribution/io.containerd.runtime.v2.task/k8s.io" / ID / "config.json", CONTAINERD)
    named = Bundles("").name(UNNAMED, "", 0)
    assert named
    assert named.pod == "xwing"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs another owner")
def test_a_users_folder_below_run_is_not_trusted(host: Path) -> None:
    folder = host / "run/user/io.containerd.runtime.v2.task"
    write(folder / "k8s.io" / ID / "config.json", CONTAINERD)
    os.chown(folder, 1000, 1000)
    assert Bundles("").name(UNNAMED, "", 0) is None


def test_crios_folder_is_known(host: Path) -> None:
    write(host / "var/lib/containers/storage/overlay-containers" / ID / "userdata/config.json", CRIO)
    named = Bundles("").name(UNNAMED, "", 0)
    assert named
    assert (named.namespace, named.pod, named.runtime) == ("default", "xwing", "cri-o")


def test_docker_names_its_container(host: Path) -> None:
    write(host / "run/containerd/io.containerd.runtime.v2.task/moby" / ID / "config.json", {"ociVersion": "1.1.0"})
    write(host / "var/lib/docker/containers" / ID / "config.v2.json", {"Name": "/web", "Config": {"Image": "nginx"}})
    named = Bundles("").name(UNNAMED, "", 0)
    assert named
    assert (named.container, named.image, named.runtime, named.pod) == ("web", "nginx", "docker", "")


def test_docker_names_its_container_where_its_settings_say(host: Path) -> None:
    write(host / "etc/docker/daemon.json", {"data-root": "/data/docker"})
    write(host / "data/docker/containers" / ID / "config.v2.json", {"Name": "/web", "Config": {"Image": "nginx"}})
    named = Bundles("").name(UNNAMED, "", 0)
    assert named
    assert (named.container, named.runtime) == ("web", "docker")


@pytest.mark.parametrize("settings", [[], {"data-root": 7}, {"data-root": "../../x"}, {}])
def test_no_content_of_dockers_settings_breaks_the_search(host: Path, settings: Any) -> None:
    write(host / "etc/docker/daemon.json", settings)
    assert Bundles("").name(UNNAMED, "", 0) is None


@pytest.mark.parametrize("driver", ["overlay", "vfs", "btrfs", "zfs"])
@pytest.mark.parametrize("file", ["containers.json", "volatile-containers.json"])
def test_podman_names_its_container(host: Path, driver: str, file: str) -> None:
    storage = host / f"var/lib/containers/storage/{driver}-containers"
    write(storage / ID / "userdata/config.json", {"annotations": {}})
    write(storage / file, [{"id": ID, "names": ["db"]}])
    named = Bundles("").name(UNNAMED, "", 0)
    assert named
    assert (named.container, named.runtime) == ("db", "podman")


@contextmanager
def with_shim(host: Path, *prefix: str, below: str = "") -> Iterator[str]:
    """A container's cgroup whose only process is the child of a shim, which stands in a bundle, until the block ends.
    `prefix`: the shim's command line begins with it."""
    write(host / "elsewhere" / ID / "config.json", CONTAINERD)
    words = [*prefix, "sh", "-c", "sleep 600 & echo $!; wait"]
    shim = subprocess.Popen(words, cwd=host / "elsewhere" / ID, stdout=subprocess.PIPE, text=True)
    assert shim.stdout
    process = shim.stdout.readline()
    if not process:
        pytest.skip(f"this machine refuses {prefix[0]}")
    try:
        cgroup = host / "cgroups" / f"cri-containerd-{ID}.scope"
        (cgroup / "container").mkdir(parents=True)
        for folder in ("", "/container"):
            Path(f"{cgroup}{folder}/cgroup.procs").write_text(process if folder == below else "")
        yield cgroup.name
    finally:
        os.kill(int(process), signal.SIGKILL)
        shim.communicate()


@pytest.mark.parametrize("below", ["", "/container"])
def test_an_unusual_folder_is_learnt_from_the_shim(host: Path, below: str) -> None:
    """crun with systemd moves the container's processes into a cgroup below the scope."""
    with with_shim(host, below=below) as path:
        named = Bundles(str(host / "cgroups")).name(UNNAMED, path, 0)
    assert named
    assert named.pod == "xwing"


@pytest.mark.parametrize("kind", ["--user", "--mount"])
def test_nothing_is_learnt_from_a_process_in_namespaces_that_are_not_the_nodes(host: Path, kind: str) -> None:
    with with_shim(host, "unshare", kind) as path:
        assert Bundles(str(host / "cgroups")).name(UNNAMED, path, 0) is None


def test_nothing_is_learnt_from_a_process_in_a_container(host: Path) -> None:
    with with_shim(host) as path:
        assert Bundles(str(host / "cgroups"), lambda _: True).name(UNNAMED, path, 0) is None


def test_nothing_is_learnt_of_a_folder_that_others_may_write_to(host: Path) -> None:
    with with_shim(host) as path:
        (host / "elsewhere").chmod(0o777)
        assert Bundles(str(host / "cgroups")).name(UNNAMED, path, 0) is None


def test_the_command_line_of_a_runtime_does_not_make_a_container_believed(host: Path) -> None:
    write(host / "bundle" / "config.json", {"linux": {"cgroupsPath": "/web"}})
    words = ["runc", "-c", "echo; sleep 600; :", "create", "--bundle", f"{host}/bundle", "web"]
    process = subprocess.Popen(words, executable="/bin/sh", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # /proc shows its command line only some time after exec
    try:
        assert Bundles("").created_by(process.pid, "web") == ("runc", "web")
        assert Bundles("", lambda _: True).created_by(process.pid, "web") is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_container_that_runc_knows_is_found_by_its_state(host: Path) -> None:
    state = {"cgroup_paths": {"": "/sys/fs/cgroup/web"}, "config": {"labels": ["x=y", "bundle=/srv/web"]}}
    write(host / "run/runc/web/state.json", state)
    write(host / "srv/web/config.json", {"ociVersion": "1.1.0"})
    found = Bundles("")
    (known,) = (known for known in found.known_to_runc() if known.id == "web")
    assert known.bundle
    assert (known.cgroup, known.bundle.folder.seen, known.bundle.name) == ("/sys/fs/cgroup/web", f"{host}/srv", "web")
    unnamed = UNNAMED._replace(id="web", container="web", runtime="runc")
    assert found.name(unnamed, "web", 0) == unnamed


@pytest.mark.parametrize("state", [None, [], {}, {"cgroup_paths": []}, {"cgroup_paths": {"": 1}}, {"config": 1}])
def test_no_state_breaks_the_search(host: Path, state: Any) -> None:
    write(host / "run/runc/web/state.json", state)
    assert Bundles("").known_to_runc() == []


def test_without_any_name_the_result_is_none(host: Path) -> None:
    assert Bundles("").name(UNNAMED, "", 0) is None


def test_a_fifo_is_not_a_configuration_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert bundles.read_json(str(tmp_path), "config.json") is None


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_file_that_is_not_json_is_not_a_configuration(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)
    assert bundles.read_json(str(tmp_path), "config.json") is None


def test_a_file_elsewhere_or_on_another_mount_is_not_a_configuration(tmp_path: Path) -> None:
    write(tmp_path / "secret" / "config.json", CONTAINERD)
    place = tmp_path / "place"
    (place / "bundle").mkdir(parents=True)
    (place / "bundle" / "config.json").symlink_to(tmp_path / "secret" / "config.json")
    (place / "link").symlink_to(tmp_path / "secret")
    for path in ("bundle/config.json", "link/config.json", "../secret/config.json", "/proc/self/status"):
        assert bundles.read_json(str(place), path) is None
    assert bundles.read_json(str(tmp_path), "secret/config.json") == CONTAINERD


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(1 << 40)
    assert bundles.read_json(str(tmp_path), "config.json") is None
