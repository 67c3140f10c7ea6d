"""Names of bpf(2)'s commands and types."""

import pytest

from kubectl_gadget.linux.bpf import bpf_command_name, bpf_map_type_name, bpf_program_type_name, lsm_argument_texts


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
