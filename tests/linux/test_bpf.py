"""Names of bpf(2)'s commands and types."""

import pytest

from kubectl_gadget.linux.bpf import bpf_command_name, bpf_map_type_name, bpf_program_type_name


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
