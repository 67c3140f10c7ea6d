"""Names of Linux's numbers."""

import ipaddress
import signal
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets.schema import About, AgentSide, Field, Gadget, ProgramChoice, RecordLayout
from kubectl_gadget.linux.names import (
    address_text,
    bpf_command_name,
    bpf_map_type_name,
    bpf_program_type_name,
    capability_name,
    capability_names,
    capability_summary,
    family_name,
    fsnotify_mask_names,
    lsm_argument_texts,
    mount_flag_names,
    namespace_kind_names,
    namespace_names,
    prctl_option_name,
    protection_text,
    protocol_name,
    ptrace_request_name,
    signal_code_name,
    signal_name,
    tcp_flag_names,
    tcp_state_name,
)
from kubectl_gadget.rows.amounts import bytes_text, duration_text
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.members import filter_members, row_members, shown
from tests.rows.records import column, ring


@pytest.mark.parametrize(
    ("call", "flags", "names"),
    [
        (0, 0, ""),
        (1, 0, ""),
        (1, 1 | 4096 | 16384, "MS_RDONLY|MS_BIND|MS_REC"),
        (1, 0xC0ED0000 | 2, "MS_NOSUID"),
        (2, 2, "MNT_DETACH"),
        (5, 0, "FSCONFIG_SET_FLAG"),
        (5, 6, "FSCONFIG_CMD_CREATE"),
        (5, 77, "77"),
        (6, 0x10 | 1, "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOATIME"),
        (6, 0x70, "MOUNT_ATTR__ATIME"),
        (7, 0x44, "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH"),
        (8, 0x80001, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC"),
        (8, 1 << 30, "0x40000000"),
    ],
)
def test_flags_mean_what_they_do_in_their_call(call: int, flags: int, names: str) -> None:
    assert mount_flag_names(call << 32 | flags) == names


def test_a_bit_means_what_its_own_interface_says() -> None:
    assert fsnotify_mask_names(0x102 | 0x40000000) == "MODIFY|CREATE|ISDIR"
    assert fsnotify_mask_names(1 << 63 | 0x20 | 0x40000000) == "OPEN|ONDIR"
    assert fsnotify_mask_names(0x8000) == "IGNORED"
    assert fsnotify_mask_names(1 << 63 | 0x8000) == "FS_ERROR"
    assert fsnotify_mask_names(1 << 63 | 1 << 40) == hex(1 << 40)
    assert fsnotify_mask_names(0) == ""


# Names of the network's numbers, addresses as text, and numbers that may be unknown.


TCP = Gadget(
    name="trace_tcp",
    command=("trace", "tcp"),
    about=About("network", ""),
    record=RecordLayout(
        "tcp",
        40,
        (
            Field("remote", 0, 16, "gadget_ip"),
            Field("duration", 16, 8, "gadget_duration"),
            Field("sent", 24, 8, "gadget_bytes"),
            Field("operation", 32, 4, "operation", values=((1, "connect"), (2, "accept"), (3, "close"))),
            Field("remote_port", 36, 2, "gadget_port"),
            Field("family", 38, 2, "gadget_address_family"),
        ),
    ),
    columns=tuple(map(column, ("remote", "duration", "sent", "operation", "remote_port", "family"))),
    agent=AgentSide((ProgramChoice((("state_changed",),)),)),
)
UNKNOWN = (1 << 64) - 1


def record(remote: str = "1.2.3.4", duration: int = 5, sent: int = 7, operation: int = 1) -> bytes:
    address = ipaddress.ip_address(remote)
    raw = address.packed if len(address.packed) == 16 else bytes(10) + b"\xff\xff" + address.packed
    return raw + struct.pack("<QQIHH", duration, sent, operation, 443, 2)


def test_a_connection_reads_as_people_and_machines_want_it() -> None:
    batch = decode(TCP, "node-1", ring(record(), record("2001:db8::", UNKNOWN, UNKNOWN, 3)))
    row = {member.name: member.read(batch).values() for member in row_members(TCP) if not member.optional}
    assert row == {
        "remote": ["1.2.3.4", "2001:db8::"],
        "duration": [5, None],
        "sent": [7, None],
        "operation": ["connect", "close"],
        "remote_port": [443, 443],
        "family": ["IPv4", "IPv4"],
        "family_raw": [2, 2],
    }
    assert shown(batch, TCP.column("duration")) == ["5ns", "-"]
    assert shown(batch, TCP.column("sent")) == ["7B", "-"]


def test_an_unknown_number_is_null_in_json() -> None:
    batch = decode(TCP, "node-1", ring(record(), record(duration=UNKNOWN)))
    template, (numbers,) = filter_members(TCP)["duration"].read(batch).json()
    assert [template % number for number in numbers] == ["5", "null"]


def test_no_address_is_null_and_a_dash() -> None:
    batch = decode(TCP, "node-1", ring(record("ffff:" * 7 + "ffff")))
    assert filter_members(TCP)["remote"].read(batch).values() == [None]
    assert shown(batch, TCP.column("remote")) == ["-"]


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_is_spelt_as_rfc_5952_says_and_a_mapped_one_as_ipv4(address: ipaddress.IPv6Address) -> None:
    spelt = address_text(address.packed.rstrip(b"\0"))
    if address == ipaddress.IPv6Address("ffff:" * 7 + "ffff"):
        assert spelt is None
    else:
        assert spelt is not None
        assert ipaddress.ip_address(spelt) == (address.ipv4_mapped or address)


@pytest.mark.parametrize(
    ("address", "text"), [("::", "::"), ("::1", "::1"), ("::ffff:0.0.0.0", "0.0.0.0"), ("fe80::1", "fe80::1")]
)
def test_well_known_addresses(address: str, text: str) -> None:
    assert address_text(ipaddress.IPv6Address(address).packed) == text


def test_numbers_of_the_network_have_linux_names() -> None:
    assert [family_name(number) for number in (2, 10, 99)] == ["IPv4", "IPv6", "99"]
    assert [protocol_name(number) for number in (6, 17, 58, 200)] == ["TCP", "UDP", "ICMPv6", "200"]
    assert [tcp_state_name(number) for number in (0, 1, 12, 13)] == ["", "ESTABLISHED", "NEW_SYN_RECV", "13"]
    assert [tcp_flag_names(flags) for flags in (0, 0x02, 0x12, 0x118)] == ["", "SYN", "SYN|ACK", "PSH|ACK|0x100"]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0ns"), (999, "999ns"), (1000, "1.00µs"), (12_345, "12.3µs"), (123_456_789, "123ms"),
        (999_999_999, "1.00s"), (98_700_000_000, "98.7s"), (245_000_000_000, "4m05s"), (7_500_000_000_000, "2h05m"),
    ],
)  # fmt: skip
def test_a_duration_has_three_digits_that_count(nanoseconds: int, text: str) -> None:
    assert duration_text(nanoseconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1.00KiB"), (1_048_575, "1.00MiB"), (5 << 60, "5.00EiB")]
)
def test_bytes_are_counted_in_powers_of_1024(count: int, text: str) -> None:
    assert bytes_text(count) == text


# Names of signals, their codes, and capabilities.


def test_signals_have_the_names_that_this_system_gives_them() -> None:
    for number in signal.Signals:
        if number < 32 and number.name not in ("SIGIOT", "SIGCLD", "SIGPOLL"):
            assert signal_name(number) == number.name


@pytest.mark.parametrize(("number", "name"), [(0, ""), (33, "33"), (34, "SIGRTMIN"), (64, "SIGRTMIN+30"), (65, "65")])
def test_other_signals(number: int, name: str) -> None:
    assert signal_name(number) == name


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(9, 0, "SI_USER"), (11, 1, "SEGV_MAPERR"), (17, 2, "CLD_KILLED"), (14, 0x80, "SI_KERNEL"), (10, -1, "SI_QUEUE"),
     (10, 1, "1"), (11, 99, "99")],
)  # fmt: skip
def test_a_code_means_something_for_its_signal(number: int, code: int, name: str) -> None:
    assert signal_code_name(number, code) == name


def test_capabilities() -> None:
    assert (capability_name(21), capability_name(40), capability_name(41)) == (
        "CAP_SYS_ADMIN",
        "CAP_CHECKPOINT_RESTORE",
        "41",
    )
    assert capability_names(0) == "none"
    assert capability_names((1 << 41) - 1) == "all"
    assert capability_names(1 << 5 | 1 << 7 | 1 << 63) == "CAP_KILL|CAP_SETUID|63"


def test_namespaces() -> None:
    assert namespace_names(0x10020000) == "CLONE_NEWNS|CLONE_NEWUSER"
    assert namespace_names(0x10000) == "0x10000"
    assert namespace_names(0) == ""


def test_an_unknown_set_of_capabilities_has_no_name() -> None:
    assert capability_names((1 << 64) - 1) == ""


def test_people_see_what_is_missing_where_that_is_little() -> None:
    everything = (1 << 41) - 1
    assert capability_summary(everything) == "all"
    assert capability_summary(everything & ~(1 << 25)) == "all but CAP_SYS_TIME"
    assert capability_summary(everything & ~(1 << 25 | 1 << 5)) == "all but CAP_KILL|CAP_SYS_TIME"
    assert capability_summary(1 << 5 | 1 << 7) == "CAP_KILL|CAP_SETUID"
    assert capability_summary(everything ^ 1 << 25 | 1 << 63).endswith("|63")
    assert (capability_summary(0), capability_summary((1 << 64) - 1)) == ("none", "")
    assert "CAP_SYS_TIME" not in capability_names(everything & ~(1 << 25))


def test_requests_and_options() -> None:
    assert [ptrace_request_name(number) for number in (0, 16, 0x4206, 99, 0xFFFFFFFF)] == [
        "PTRACE_TRACEME",
        "PTRACE_ATTACH",
        "PTRACE_SEIZE",
        "99",
        "",
    ]
    assert [prctl_option_name(number) for number in (24, 99, 0xFFFFFFFF)] == ["PR_CAPBSET_DROP", "99", ""]


def test_kinds_of_namespaces() -> None:
    assert [namespace_kind_names(bits) for bits in (0, 1, 1 | 1 << 9, 0xFFFFFFFF)] == ["", "uts", "uts|user", ""]


def test_protections_are_written_as_in_proc_maps() -> None:
    assert [protection_text(bits) for bits in (0, 1, 3, 5, 7, 0xFFFFFFFF)] == ["---", "r--", "rw-", "r-x", "rwx", ""]


# Names of bpf(2)'s commands and types.


@pytest.mark.parametrize(
    ("number", "command", "program", "kind"),
    [
        (0, "MAP_CREATE", "UNSPEC", "UNSPEC"),
        (5, "PROG_LOAD", "TRACEPOINT", "PERCPU_HASH"),
        (17, "RAW_TRACEPOINT_OPEN", "RAW_TRACEPOINT", "XSKMAP"),
        (29, "LINK_UPDATE", "LSM", "TASK_STORAGE"),
        (999, "999", "999", "999"),
    ],
)
def test_names(number: int, command: str, program: str, kind: str) -> None:
    assert bpf_command_name(number) == command
    assert bpf_program_type_name(number) == program
    assert bpf_map_type_name(number) == kind


def test_none_has_no_name() -> None:
    assert bpf_program_type_name(0xFFFFFFFF) == bpf_map_type_name(0xFFFFFFFF) == ""


@pytest.mark.parametrize(
    ("hook", "values", "text"),
    [
        ("path_chmod", (0o640,), "mode=0640"),
        ("path_chown", (0, 0xFFFFFFFF), "uid=0 gid=unchanged"),
        ("path_mknod", (0o20600, 0x100103), "mode=20600 device=1:259"),
        ("file_open", (0o2000,), "flags=O_RDONLY|O_APPEND"),
        ("file_fcntl", (1034, 0), "command=F_GET_SEALS argument=0x0"),
        ("mmap_file", (5, 2), "protection=PROT_READ|PROT_EXEC flags=MAP_PRIVATE"),
        ("file_mprotect", (0,), "protection=0"),
        ("sb_mount", (1,), "flags=MS_RDONLY"),
        ("task_kill", (9,), "signal=SIGKILL"),
        ("ptrace_access_check", (0x12,), "mode=ATTACH|REALCREDS"),
        ("socket_create", (2, 1, 6), "family=IPv4 type=SOCK_STREAM protocol=TCP"),
        ("bpf", (5,), "command=BPF_PROG_LOAD"),
        ("bpf", (99,), "command=99"),
        ("kernel_read_file", (2,), "for=module"),
        ("path_unlink", (), ""),
        ("a_new_hook", (7,), "argument_1=7"),
    ],
)
def test_arguments_are_spelt_as_their_hook_means_them(hook: str, values: tuple[int, ...], text: str) -> None:
    assert lsm_argument_texts(hook, values, "x86_64") == text


def test_flags_of_an_open_file_are_those_of_the_nodes_architecture() -> None:
    assert lsm_argument_texts("file_open", (0o40000,), "aarch64") == "flags=O_RDONLY|O_DIRECTORY"
