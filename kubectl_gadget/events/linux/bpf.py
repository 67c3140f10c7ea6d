"""Names of bpf(2)'s commands, program types and map types (include/uapi/linux/bpf.h), in order from 0."""

from kubectl_gadget.policy_events.kernel_enums import BPF_COMMANDS, BPF_MAP_TYPES, BPF_PROGRAM_TYPES

_NONE = 0xFFFFFFFF


def bpf_command_name(number: int) -> str:
    """`PROG_LOAD` for BPF_PROG_LOAD; the number itself if it has no name here."""
    return BPF_COMMANDS[number] if number < len(BPF_COMMANDS) else str(number)


def bpf_program_type_name(number: int) -> str:
    """`KPROBE` for BPF_PROG_TYPE_KPROBE; empty for no type, and the number itself if it has no name here."""
    return _name(BPF_PROGRAM_TYPES, number)


def bpf_map_type_name(number: int) -> str:
    """`HASH` for BPF_MAP_TYPE_HASH; empty for no type, and the number itself if it has no name here."""
    return _name(BPF_MAP_TYPES, number)


def _name(names: list[str], number: int) -> str:
    if number == _NONE:
        return ""
    return names[number] if number < len(names) else str(number)
