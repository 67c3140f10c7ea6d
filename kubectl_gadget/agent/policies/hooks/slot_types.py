"""What depends on the node's kernel in a policy: offsets of struct members, and types of arguments (`auto`).

RUN's `resolve` has the slots that need it (docs/protocol.md, "Policies"); the results are written into the slots. The
trap: BTF does not distinguish pointers into the caller's memory from others, so this is not used for arguments of
system calls.
"""

import struct
from collections.abc import Iterable

from kubectl_gadget.agent.bpf import btf
from kubectl_gadget.agent.bpf.btf import Btf, ValueType
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.policy_messages import Resolve, Way

SLOT_BYTES, MOST_STEPS = 40, 6
_SIGNED, _EMBEDDED = 1, 4
"""enum policy_flag."""
_NUMBER, _STRING = 1, 2
_STRUCTS = {
    **{"file": 4, "path": 5, "dentry": 7, "linux_binprm": 8, "sock": 9, "socket": 10, "sockaddr": 11, "cred": 12},
    **{"kiocb": 13, "user_namespace": 14, "module": 15, "bpf_map": 16, "bpf_prog": 17, "net_device": 18, "sk_buff": 19},
    **{"iov_iter": 23, "load_info": 24, "bpf_attr": 25, "perf_event": 26},
}
"""enum policy_type, by the type that is pointed to."""
_WITHOUT_TEXT = (9, 10, 12, 14, 19)


def resolve(slots: bytes, entries: Iterable[Resolve], way: Way) -> bytes:
    """Returns the slots, with the offsets and types of this kernel. Raises AgentError and FrameError."""
    found = bytearray(slots)
    for entry in entries:
        kernel = _types(entry)
        start = _start(kernel, entry, way)
        steps, end = kernel.follow(start, entry.path) if entry.path else ([], start)
        if len(steps) > MOST_STEPS:
            raise AgentError(f"{len(steps)} pointers to follow; at most {MOST_STEPS} are supported")
        at = SLOT_BYTES * entry.slot
        if not 0 <= at <= len(found) - SLOT_BYTES:
            raise FrameError(f"RUN: `resolve` has the slot {entry.slot}, of {len(found) // SLOT_BYTES}")
        value = kernel.value_type(end)
        if steps and value.is_in_place:
            found[at + 2] |= _EMBEDDED
        if steps:
            struct.pack_into(f"<I{len(steps)}I", found, at + 12, len(steps), *steps)
        if entry.auto:
            _decide(found, at, value, entry, way)
    return bytes(found)


def _types(entry: Resolve) -> Btf:
    """Returns the BTF to use: of the kernel, one of its modules, or a file. Raises AgentError."""
    if module := entry.module:
        return btf.module(module)
    if path := entry.btf:
        return btf.in_file(path)
    return btf.kernel()


def _start(kernel: Btf, entry: Resolve, way: Way) -> int:
    """Returns the type at which `path` starts."""
    named = {"task": "task_struct", "registers": "pt_regs"}.get(entry.source, entry.struct)
    if named:
        id = kernel.struct(named)
        if id is None:
            raise AgentError(f"{kernel.whose} has no struct {named}")
        return id
    name = way.target
    if way.kind == "raw_tracepoint":
        prototype = kernel.tracepoint(name)
    else:
        prototype = kernel.prototype(f"bpf_lsm_{name}" if way.kind == "lsm" else name)
    if entry.source == "return":
        if prototype is None or not prototype.result:
            raise AgentError(f"{name} returns nothing")
        return prototype.result
    if prototype is None or not 0 <= entry.index < len(prototype.parameters):
        raise AgentError(f"{name} has no parameter {entry.index}")
    return prototype.parameters[entry.index]


def _decide(slots: bytearray, at: int, value: ValueType, entry: Resolve, way: Way) -> None:
    type, size, flags = _NUMBER, 8, 0
    if value.is_text:
        type = _STRING
    elif value.name in _STRUCTS:
        type = _STRUCTS[value.name]
    elif not value.is_pointer:
        size, flags = value.size, _SIGNED if value.signed else 0
        if size not in (1, 2, 4, 8):
            raise AgentError(f"argument {entry.index} of {way.target} is a {value.name}, which cannot be read")
    compared = entry.compared
    if (compared and (compared == "number") != (type == _NUMBER)) or (compared == "text" and type in _WITHOUT_TEXT):
        what = f"argument {entry.index} of {way.target} is a {value.name or 'text'} on this node"
        raise AgentError(f"{what}, which cannot be compared with a {compared}", "the argument's type in the policy")
    slots[at], slots[at + 3] = type, size
    slots[at + 2] |= flags
