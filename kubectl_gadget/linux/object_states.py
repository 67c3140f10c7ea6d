"""Names of Linux's numbers in snapshots: states of tasks and sockets, file types, device numbers.

The trap: a task's state is a set of bits; only the most informative one is shown, as in fs/proc/array.c.
"""

from kubectl_gadget.linux.network import tcp_state_name

_TASK_STATES = (
    (0x20, "zombie"),
    (0x10, "dead"),
    (0x08, "traced"),
    (0x04, "stopped"),
    (0x40, "parked"),
    (0x02, "blocked"),
    (0x01, "sleeping"),
)
_NO_LOAD_BLOCKED = 0x402
_FILE_TYPES = {
    0o170000: "",
    0o010000: "pipe", 0o020000: "character", 0o040000: "directory", 0o060000: "block", 0o100000: "regular",
    0o120000: "link", 0o140000: "socket", 0: "anonymous",
}  # fmt: skip
_CONNECTED, _UNCONNECTED = 256, 257


def task_state_name(state: int) -> str:
    """`running` (or waiting for a CPU), `sleeping`, `blocked` (uninterruptible), `idle`, `zombie` and so on."""
    if state & _NO_LOAD_BLOCKED == _NO_LOAD_BLOCKED:
        return "idle"
    return next((name for bit, name in _TASK_STATES if state & bit), "running")


def file_type_name(type: int) -> str:
    """The file type in a mode (inode(7)) as a word; `anonymous` for kernel objects that have no type bits."""
    return _FILE_TYPES.get(type, oct(type))


def socket_state_name(state: int) -> str:
    """TCP's states; CONNECTED and UNCONNECTED for other protocols (bpf/snapshot_socket.bpf.c)."""
    return {_CONNECTED: "CONNECTED", _UNCONNECTED: "UNCONNECTED"}.get(state) or tcp_state_name(state)


def device_number_text(number: int) -> str:
    """`8:1`: major and minor number in the kernel's encoding (12 and 20 bits)."""
    return f"{number >> 20}:{number & 0xFFFFF}"


def protection_text(bits: int) -> str:
    """`r-x` for PROT_READ|PROT_EXEC; empty for no access."""
    if bits == 0xFFFFFFFF:
        return ""
    return "".join(letter if bits & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x")))
