"""Where cgroup v2 is mounted, and the walk through the tree."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.agent.host import cgroups
from kubectl_gadget.agent.host.cgroups import MountPoint, parse_mountinfo
from kubectl_gadget.errors import AgentError

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
)
POD = (
    "900 880 0:26 /../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup rw\n"
    "901 880 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw"
)


def chosen(text: str, host: str = "") -> str | None:
    return cgroups.choose_mount(parse_mountinfo(text.encode()), host)


def test_the_unified_hierarchy_is_found() -> None:
    assert chosen(UNIFIED) == "/sys/fs/cgroup"


def test_on_a_hybrid_host_the_unified_part_is_found() -> None:
    assert chosen(HYBRID) == "/sys/fs/cgroup/unified"


def test_in_a_pod_the_nodes_tree_is_taken_and_not_the_pods() -> None:
    assert chosen(POD, "/host") == "/host/sys/fs/cgroup"


def test_in_a_pod_the_pods_own_tree_is_not_used() -> None:
    assert chosen(UNIFIED, "/host") is None


def test_a_mount_point_elsewhere_is_used_if_it_is_the_only_one() -> None:
    assert chosen("1 2 0:3 / /mnt/my\\040cgroups rw - cgroup2 none rw") == "/mnt/my cgroups"


def test_cgroup_v1_alone_is_an_error_that_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "node-7")
    monkeypatch.setenv("KUBECTL_GADGET_HOST", "/nowhere")
    with pytest.raises(AgentError, match="node node-7 has no cgroup v2 hierarchy") as error:
        cgroups.find_root()
    assert "unified_cgroup_hierarchy" in str(error.value.remedy)


def test_the_walk_gives_every_folder_after_its_parent(tmp_path: Path) -> None:
    (tmp_path / "kubepods" / "pod1" / "c").mkdir(parents=True)
    (tmp_path / "init").mkdir()
    (tmp_path / "cgroup.procs").touch()
    found = list(cgroups.walk(str(tmp_path)))
    assert {cgroup.path for cgroup in found} == {"", "init", "kubepods", "kubepods/pod1", "kubepods/pod1/c"}
    ids = {cgroup.id: number for number, cgroup in enumerate(found)}
    assert found[0].parent == 0
    assert all(ids[cgroup.parent] < number for number, cgroup in enumerate(found) if number)
    assert {cgroup.id for cgroup in found} == {os.stat(tmp_path / cgroup.path).st_ino for cgroup in found}


def test_a_cgroup_that_is_gone_has_no_processes(tmp_path: Path) -> None:
    assert cgroups.processes(str(tmp_path), "gone") == []


def test_the_first_process_of_a_cgroup_may_be_in_one_below_it(tmp_path: Path) -> None:
    for path, pids in (("web.scope", ""), ("web.scope/container", "17\n18\n"), ("empty", "")):
        (tmp_path / path).mkdir()
        (tmp_path / path / "cgroup.procs").write_text(pids)
    assert cgroups.first_process(str(tmp_path), "web.scope") == 17
    assert cgroups.first_process(str(tmp_path), "empty") is None
    assert cgroups.first_process(str(tmp_path), "removed") is None


def test_not_all_of_thousands_of_cgroups_are_searched_for_a_process(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / "many" / str(number)).mkdir(parents=True)
        (tmp_path / "many" / str(number) / "cgroup.procs").touch()
    opened = []
    original = cgroups.processes
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cgroups, "processes", lambda root, path: opened.append(path) or original(root, path))
        assert cgroups.first_process(str(tmp_path), "many") is None
    assert len(opened) < 100


# Lines of mountinfo, and what the kernel escapes in them.


LINE = b"36 35 98:4 /mnt1 /mnt\\0402 rw,noatime master:1 propagate_from:7 new:3 - ext3 /dev/ro\\134ot rw,sync"


def test_a_line_has_its_fields_unescaped() -> None:
    (mount,) = parse_mountinfo(LINE + b"\n")
    expected = MountPoint(
        id=36,
        parent=35,
        device=98 << 20 | 4,
        root=b"/mnt1",
        target=b"/mnt 2",
        options=b"rw,noatime",
        propagation=b"master:1 propagate_from:7",
        type=b"ext3",
        source=b"/dev/ro\\ot",
        super_options=b"rw,sync",
    )
    assert mount == expected


def test_a_mount_without_tags_is_private() -> None:
    (mount,) = parse_mountinfo(b"1 2 0:3 - - rw - proc - rw")
    assert (mount.propagation, mount.root, mount.target, mount.source) == (b"private", b"-", b"-", b"-")


@given(st.binary())
def test_any_bytes_are_parsed_to_mounts(data: bytes) -> None:
    for mount in parse_mountinfo(data):
        assert isinstance(mount, MountPoint)


@given(st.binary(min_size=1).filter(lambda point: b"\0" not in point))
def test_an_escaped_mount_point_comes_back(point: bytes) -> None:
    escaped = b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in point)
    (mount,) = parse_mountinfo(b"1 2 0:3 / %b rw - cgroup2 none rw" % escaped)
    assert mount.target == point
