import shutil
from pathlib import Path

import pytest

from kubectl_gadget.demo import runc
from kubectl_gadget.demo.pods import cgroup_path
from kubectl_gadget.demo.runc import BundleSpec, write_bundle, write_image_root
from kubectl_gadget.errors import GadgetError


def spec(container: str | None, sandbox_pid: int | None) -> BundleSpec:
    return BundleSpec(
        id="c" * 64,
        sandbox_id="5" * 64,
        namespace="default",
        pod="xwing",
        pod_uid="1-2-3",
        container=container,
        image="busybox:1",
        command=["/bin/true"],
        uid=7,
        cgroups_path="/a/b",
        sandbox_pid=sandbox_pid,
    )


def test_a_container_is_annotated_as_containerd_does_it() -> None:
    assert spec("spaceship", 42).annotations() == {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "spaceship",
        "io.kubernetes.cri.image-name": "busybox:1",
        "io.kubernetes.cri.sandbox-id": "5" * 64,
        "io.kubernetes.cri.sandbox-name": "xwing",
        "io.kubernetes.cri.sandbox-namespace": "default",
        "io.kubernetes.cri.sandbox-uid": "1-2-3",
    }


def test_a_sandbox_has_no_container_name() -> None:
    annotations = spec(None, None).annotations()
    assert annotations["io.kubernetes.cri.container-type"] == "sandbox"
    assert "io.kubernetes.cri.container-name" not in annotations


def test_a_container_joins_the_namespaces_of_its_sandbox() -> None:
    namespaces = spec("spaceship", 42).config()["linux"]["namespaces"]
    assert {"type": "network", "path": "/proc/42/ns/net"} in namespaces
    assert {"type": "pid"} in namespaces


def test_nothing_is_asked_of_runc_that_needs_a_controller_or_a_limit() -> None:
    config = spec("spaceship", 42).config()
    assert "resources" not in config["linux"]
    assert "rlimits" not in config["process"]
    assert "oomScoreAdj" not in config["process"]


@pytest.mark.parametrize(
    ("driver", "path"),
    [
        ("cgroupfs", "kubepods/besteffort/poda-b/cc"),
        (
            "systemd",
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda_b.slice/cri-containerd-cc.scope",
        ),
    ],
)
def test_both_cgroup_drivers_have_their_form_of_path(driver: str, path: str) -> None:
    assert cgroup_path(driver, "a-b", "cc") == path  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox-static is not installed")
def test_a_bundle_has_a_root_file_system_and_its_config(tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None
    write_image_root(tmp_path / "image", busybox)
    write_bundle(tmp_path / "bundle", tmp_path / "image", spec("spaceship", 42))
    assert (tmp_path / "bundle" / "config.json").is_file()
    assert (tmp_path / "bundle" / "rootfs" / "bin" / "cat").resolve().name == "busybox"
    assert (tmp_path / "bundle" / "rootfs" / "etc" / "shadow").stat().st_mode & 0o777 == 0o600


# test_runc


HYBRID = """31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw
"""


def test_cgroup_v2_is_found_where_a_hybrid_machine_mounts_it(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(HYBRID)
    assert runc.cgroup2_mount(tmp_path / "mountinfo") == Path("/sys/fs/cgroup/unified")


def test_without_cgroup_v2_the_error_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(HYBRID.replace("cgroup2", "cgroup"))
    with pytest.raises(GadgetError, match="cgroup v2 is not mounted") as caught:
        runc.cgroup2_mount(tmp_path / "mountinfo")
    assert "unified_cgroup_hierarchy" in str(caught.value.remedy)


def test_without_root_the_remedy_is_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(GadgetError, match="root") as caught:
        runc.find_runc(Path("/nowhere"), lambda command, bundle: 0)
    assert str(caught.value.remedy).startswith("sudo")


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(GadgetError, match="busybox") as caught:
        runc.find_program("busybox", "busybox-static")
    assert caught.value.remedy == "sudo apt-get install busybox-static"
