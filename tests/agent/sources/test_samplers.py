"""What a cgroup's files and /etc/resolv.conf say, and what they do not."""

from pathlib import Path

from kubectl_gadget.agent.sources.samplers import ContainerUsage, read_resolv_conf, read_usage, unknown_counts

FILES = {
    "cpu.stat": "usage_usec 4711\nuser_usec 4000\nnr_throttled 3\nthrottled_usec 17\n",
    "cpu.pressure": "some avg10=0.00 avg60=0.10 avg300=0.00 total=23\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
    "memory.pressure": "some avg10=0.00 avg60=0.10 avg300=0.00 total=29\n",
    "io.pressure": "some avg10=0.00 avg60=0.10 avg300=0.00 total=31\n",
    "memory.stat": "anon 5\npgfault 7\npgmajfault 11\n",
    "memory.current": "1048576\n",
    "pids.current": "13\n",
    "io.stat": "8:0 rbytes=4096 wbytes=100 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=512 wbytes=1 rios=1 wios=1\n",
}


def test_all_files_are_read_and_times_are_nanoseconds(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    assert read_usage(str(tmp_path)) == ContainerUsage(
        cpu_time=4_711_000,
        throttled=17_000,
        cpu_stalled=23_000,
        memory_stalled=29_000,
        io_stalled=31_000,
        major_faults=11,
        read_bytes=4608,
        written_bytes=101,
        memory=1048576,
        processes=13,
    )


def test_without_controllers_values_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 5\n")
    assert read_usage(str(tmp_path)) == ContainerUsage(5000, *[None] * 9)


def test_a_removed_cgroup_has_no_usage(tmp_path: Path) -> None:
    assert read_usage(str(tmp_path / "gone")) is None


def test_missing_controllers_are_reported_with_the_values_that_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "cpu.pressure").write_text(FILES["cpu.pressure"])
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert list(unknown_counts(str(tmp_path))) == []
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    (told,) = unknown_counts(str(tmp_path))
    assert "memory and major faults, disk bytes" in told
    assert "lacks the controllers memory, io" in told


def test_a_resolv_conf_is_read_as_the_libraries_do() -> None:
    text = b"""
# nameserver 10.0.0.1
; nameserver 10.0.0.2
nameserver 10.96.0.10 trailing
nameserver fd00::a
domain one.example
search shop.svc.cluster.local svc.cluster.local
options ndots:2 timeout:1
options ndots:5 single-request
sortlist 130.155.160.0
"""
    assert read_resolv_conf(text) == {
        "nameservers": b"10.96.0.10\0fd00::a\0",
        "search": b"shop.svc.cluster.local\0svc.cluster.local\0",
        "options": b"ndots:2\0timeout:1\0ndots:5\0single-request\0",
        "ndots": 5,
        "errno": 0,
    }


def test_the_number_of_dots_has_bounds() -> None:
    assert read_resolv_conf(b"")["ndots"] == 1
    assert read_resolv_conf(b"options ndots:")["ndots"] == 1
    assert read_resolv_conf(b"options ndots:-3")["ndots"] == 1
    assert read_resolv_conf(b"options ndots:" + b"9" * 5000)["ndots"] == 15


def test_no_line_can_add_entries_of_lists() -> None:
    assert read_resolv_conf(b"nameserver 10.0.0.1\0nameserver\0 10.0.0.2")["nameservers"] == b"10.0.0.1nameserver\0"
