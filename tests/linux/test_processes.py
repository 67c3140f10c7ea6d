"""Names of signals, their codes, and capabilities."""

import signal

import pytest

from kubectl_gadget.linux.processes import (
    capability_name,
    capability_names,
    capability_summary,
    namespace_kind_names,
    namespace_names,
    prctl_option_name,
    protection_text,
    ptrace_request_name,
    signal_code_name,
    signal_name,
)


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
