from pathlib import Path

import pytest

from kubectl_gadget.demo import runc
from kubectl_gadget.errors import GadgetError

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
