"""Lines of mountinfo, and what the kernel escapes in them."""

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.agent.host.mountinfo import MountPoint, parse_mountinfo

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
