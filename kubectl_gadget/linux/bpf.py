"""Names of bpf(2)'s commands, program types and map types (include/uapi/linux/bpf.h), in order from 0."""

from kubectl_gadget.linux.tables import Namer
from kubectl_gadget.wire.policy_events.kernel_enums import BPF_COMMANDS, BPF_MAP_TYPES, BPF_PROGRAM_TYPES

_NONE = 0xFFFFFFFF

bpf_command_name = Namer(BPF_COMMANDS)
"""`PROG_LOAD` for BPF_PROG_LOAD"""
bpf_program_type_name = Namer(BPF_PROGRAM_TYPES, _NONE)
"""`KPROBE` for BPF_PROG_TYPE_KPROBE"""
bpf_map_type_name = Namer(BPF_MAP_TYPES, _NONE)
"""`HASH` for BPF_MAP_TYPE_HASH"""
