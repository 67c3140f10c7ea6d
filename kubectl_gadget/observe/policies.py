"""Records of the engine of policies as happenings, for a story: which policy, what was there, what was done about it.

The trap: one record is several happenings, one for each policy whose selector it has.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.exec_id import ExecId
from kubectl_gadget.events.linux import errno_name
from kubectl_gadget.events.linux_process import signal_name
from kubectl_gadget.events.schema import Field, Gadget, Record
from kubectl_gadget.observe.happening import Argument, Hook, PolicyEvent
from kubectl_gadget.policies.engine.decode import HEAD, Match, Value, matches
from kubectl_gadget.policies.engine.hooks import CompiledHook
from kubectl_gadget.policies.engine.slots import Type
from kubectl_gadget.policies.model import Argument as Read

NAME = "policy"
_FIELDS = (
    ("timestamp", 0, 8, "gadget_timestamp"),
    ("cgroup", 8, 8, "gadget_cgroup"),
    ("pid", 16, 4, "__u32"),
    ("tid", 20, 4, "__u32"),
    ("marks", 72, 4, "__u32"),
)
GADGET = Gadget(
    name=NAME,
    command=("observe",),
    group="security",
    summary="What policies matched",
    description="",
    record=Record("policy_event", HEAD, tuple(Field(name, at, size, type) for name, at, size, type in _FIELDS)),
    columns=(),
    programs=(),
    globals={},
)
"""As the client knows it. What it runs is made by policies.engine, and not by its programs."""
_HOOKS: dict[str, Hook] = {"fentry": "kprobe", "raw_tracepoint": "tracepoint"}
_LENGTH = (1 << 30) - 1
_FAMILIES = {1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET"}
_PROTOCOLS = {1: "IPPROTO_ICMP", 6: "IPPROTO_TCP", 17: "IPPROTO_UDP", 58: "IPPROTO_ICMPV6", 132: "IPPROTO_SCTP"}
_FILES = (Type.FILE, Type.PATH, Type.FD, Type.DENTRY, Type.BINPRM, Type.KIOCB)


def decoder(hooks: Sequence[CompiledHook]) -> Callable[[Batch], Sequence[Sequence[PolicyEvent]]]:
    """Those of each record, in the order of policies."""

    def decode(batch: Batch) -> Sequence[Sequence[PolicyEvent]]:
        data = batch.buffer.bytes
        found = []
        for start, tid in zip(batch.starts.tolist(), batch.raw("tid").tolist(), strict=True):
            length = int.from_bytes(data[start - 8 : start - 4].tobytes(), "little") & _LENGTH
            record = data[start : start + length].tobytes()
            found.append([event(match, tid) for match in matches(record, hooks)])
        return found

    return decode


def event(match: Match, tid: int) -> PolicyEvent:
    """A match as it is told."""
    hook, place = match.place.hook, match.place
    pairs = zip(hook.arguments, match.values, strict=True)
    subsystem, _, name = hook.target.rpartition("/")
    action = next((action.kind for action in place.selector.actions), "Post") if place.enforced else "Post"
    returned = match.returned and hook.return_argument
    return PolicyEvent(
        hook=_HOOKS.get(hook.kind, hook.kind),  # type: ignore[arg-type]
        process=ExecId(*match.exec),
        tid=tid,
        function=name if "tracepoint" in hook.kind else hook.target,
        subsystem=subsystem,
        args=tuple(argument(read, value) for read, value in pairs if value is not None),
        returned=argument(returned, match.returned) if returned and match.returned else None,
        policy=place.policy.name,
        message=hook.message,
        tags=hook.tags,
        action=action,
        return_action=next((action.kind for action in place.selector.return_actions), ""),
        blocked=match.verdict != 0,
        verdict=_verdict(match),
    )


def _verdict(match: Match) -> str:
    parts = [errno_name(-match.verdict)] if match.verdict else []
    return " ".join([*parts, *([signal_name(match.signal)] if match.signal else [])])


def argument(read: Read, value: Value) -> Argument:
    """An argument in the form that JSON of security events has for its type."""
    kind, shown = _shown(read.type, value)
    return Argument(kind, shown, read.label)


def _shown(name: str, value: Value) -> tuple[str, Any]:
    type, numbers = value.slot.type, value.numbers
    text = value.text.decode("utf-8", "backslashreplace")
    if type is Type.NUMBER:
        return _number(name, numbers[0], value.slot.size)
    if type in _FILES:
        kind = {"path": "path", "linux_binprm": "linux_binprm"}.get(name, "file")
        return kind, {"path": text, "permission": _permissions(numbers[0])} if not value.unreadable else {"path": "-"}
    if type in (Type.SOCK, Type.SOCKET, Type.SKB):
        return ("skb" if type is Type.SKB else "sock"), _connection(value)
    if type is Type.SOCKADDR:
        return "sockaddr", {
            "family": _FAMILIES.get(numbers[3], str(numbers[3])),
            "addr": _address(value.addresses[1]) or text,
            "port": numbers[1],
        }
    if type is Type.CRED:
        names = ("uid", "gid", "suid", "sgid", "euid", "egid", "fsuid", "fsgid")
        shown: dict[str, Any] = dict(zip(names, numbers, strict=False))
        sets = ("permitted", "effective", "inheritable")
        caps = {name: f"{bits:#x}" for name, bits in zip(sets, numbers[8:11], strict=True)}
        return "process_credentials", shown | {"caps": caps}
    if type is Type.USER_NAMESPACE:
        return "user_ns", dict(zip(("level", "uid", "gid", "ns"), numbers, strict=True))
    if type is Type.CAPABILITY_SET:
        return (name if name.startswith("cap_") else "kernel_cap_t"), f"{numbers[0]:016x}"
    if type is Type.BPF_MAP:
        members = ("MapType", "KeySize", "ValueSize", "MaxEntries")
        return "bpf_map", dict(zip(members, numbers, strict=True)) | {"MapName": text}
    if type is Type.BPF_PROGRAM:
        return "bpf_prog", {"ProgType": numbers[0], "InsnCnt": numbers[1], "ProgName": text}
    if type in (Type.MODULE, Type.NET_DEVICE):
        return ("module" if type is Type.MODULE else "net_dev"), {"name": text}
    if value.unreadable:
        return "string", "-"
    return "string", text


def _number(name: str, number: int, size: int) -> tuple[str, Any]:
    if name == "capability":
        return "capability", {"value": number}
    if name in ("size_t", "ulong", "uint64"):
        return "size", number
    if name.startswith("uint"):
        return "uint", number
    return ("long" if size == 8 else "int"), number


def _permissions(mode: int) -> str:
    import stat

    return stat.filemode(mode) if mode else ""


def _connection(value: Value) -> dict[str, Any]:
    numbers = value.numbers
    return {
        "family": _FAMILIES.get(numbers[3], str(numbers[3])),
        "protocol": _PROTOCOLS.get(numbers[2], str(numbers[2])),
        "saddr": _address(value.addresses[0]),
        "daddr": _address(value.addresses[1]),
        "sport": numbers[0],
        "dport": numbers[1],
    }


def _address(address: IPv4Address | IPv6Address | None) -> str:
    return "" if address is None else str(address)
