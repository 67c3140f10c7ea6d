"""-o jsonpb is read by a strict reader of security events, and so is all of -o json that its schema has a kind for."""

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from kubectl_gadget.observe.happening import FileEvent, Happening
from kubectl_gadget.observe.printing.messages import message
from kubectl_gadget.observe.printing.strict_body import MEMBERS
from kubectl_gadget.policies.compiler.encoding.slots import SlotSource, argument_slot
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.model import NOWHERE
from kubectl_gadget.policies.model import Argument as Written
from kubectl_gadget.wire.policy_events.argument_values import argument
from kubectl_gadget.wire.policy_events.event import Credentials, EventArgument, PolicyEvent, StackEntry
from kubectl_gadget.wire.policy_events.exec_id import ExecId
from kubectl_gadget.wire.policy_events.policy_record import NUMBERS, WITH_ADDRESSES, Value
from tests.observe.lives import SHELL, Life, event, executed, vi
from tests.observe.strict_schema import ENUMS, MESSAGES
from tests.strict_reader import strict_reader

ALL = (1 << 64) - 1
KINDS = {
    "file_arg": ("fd", "file", "dentry", "kiocb"),
    "string_arg": ("string", "filename", "data_loc"),
    "bytes_arg": ("char_buf", "char_iovec", "iov_iter", "const_buf"),
    "int_arg": ("int", "int8", "int16", "int32", "sint8", "sint16", "sint32"),
    "uint_arg": ("uint8", "uint16", "uint32"),
    "long_arg": ("long", "int64", "sint64"),
    "size_arg": ("ulong", "size_t", "uint64"),
    "sock_arg": ("sock", "socket"),
    "module_arg": ("module", "load_info"),
    "process_credentials_arg": ("cred",),
    "user_ns_arg": ("user_namespace",),
    "sockaddrun_arg": ("sockaddr_un",),
    "net_dev_arg": ("net_device",),
    "syscall_id": ("syscall64",),
}
"""The member that arguments of these types are; of all others it is their own name."""
MEMBER = {type: member for member, types in KINDS.items() for type in types}


@pytest.fixture(scope="module", name="read")
def a_strict_reader() -> Callable[[str], Any]:
    return strict_reader(ENUMS, MESSAGES, "Response")


def value_of(type: str, **values: Any) -> Value:
    """As a record has it, of numbers that say something wherever the type has any."""
    slot = argument_slot(Written(type=type, index=0, size_index=1), SlotSource.ARGUMENT, False, NOWHERE)
    assert slot is not None
    count = NUMBERS.get(slot.type, 0)
    addresses = (IPv4Address("10.0.0.1"), IPv6Address("fd00::1")) if slot.type in WITH_ADDRESSES else ()
    plain = Value(slot.form, (2,) * count, addresses, b"text")
    return replace(plain, **values)


def living() -> Life:
    """SHELL runs."""
    life = Life()
    vi(life)
    return life


def seen(*arguments: EventArgument) -> PolicyEvent:
    return PolicyEvent("kprobe", SHELL, function="f", args=arguments, policy="p")


def read_argument(read: Callable[[str], Any], shown: EventArgument, *, strict: bool = True) -> tuple[str, Any]:
    """Which member it is, and its value."""
    found = read(message(living().told(seen(shown)), strict=strict)).process_kprobe.args[0]
    name = found.WhichOneof("one")
    return name, getattr(found, name)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("type", sorted(ARGUMENT_TYPES.keys() - {"auto", "nop"}))
def test_an_argument_of_each_type_is_read(read: Callable[[str], Any], type: str, strict: bool) -> None:
    name, _ = read_argument(read, argument(type, "l", value_of(type), "x86_64"), strict=strict)
    assert name == MEMBER.get(type, f"{type}_arg")


@pytest.mark.parametrize("type", sorted(ARGUMENT_TYPES.keys() - {"auto", "nop"}))
def test_what_has_no_name_and_what_is_as_large_as_can_be_is_read(read: Callable[[str], Any], type: str) -> None:
    plain = value_of(type)
    bits = ARGUMENT_TYPES[type].bits
    most = (1 << bits - plain.form.signed) - 1 if bits else 0xFFFFFFFF
    read_argument(read, argument(type, "", value_of(type, numbers=(most,) * len(plain.numbers)), "x86_64"))
    least = -(1 << bits - 1) if plain.form.signed else 0
    read_argument(read, argument(type, "", value_of(type, numbers=(least,) * len(plain.numbers)), "aarch64"))


@pytest.mark.parametrize("type", sorted(ARGUMENT_TYPES.keys() - {"auto", "nop", "syscall64"}))
def test_what_cannot_be_read_says_so_whatever_its_type(read: Callable[[str], Any], type: str) -> None:
    lost = value_of(type, unreadable=True, text=b"", numbers=(0,) * len(value_of(type).numbers))
    shown = argument(type, "l", lost, "x86_64")
    name, found = read_argument(read, shown)
    assert (name, type in found.Message, "cannot be read" in found.Message) == ("error_arg", True, True)
    assert shown.text == "-"


def test_a_buffer_that_cannot_be_read_says_how_long_it_was(read: Callable[[str], Any]) -> None:
    lost = value_of("char_buf", unreadable=True, text=b"", numbers=(7,))
    _, found = read_argument(read, argument("char_buf", "", lost, "x86_64"))
    assert found.Message == "the char_buf of 7 bytes cannot be read"


def test_a_path_whose_upper_part_lacks_says_so(read: Callable[[str], Any]) -> None:
    cut = value_of("file", unreadable=True, cut=True, text=b"/deep/down")
    _, found = read_argument(read, argument("file", "", cut, "x86_64"))
    assert (found.path, found.flags) == ("/deep/down", "unresolvedPathComponents")


@pytest.mark.parametrize(
    ("size", "signed", "number", "member"),
    [
        (1, True, -128, "int_arg"),
        (2, False, 65535, "uint_arg"),
        (4, True, -1, "int_arg"),
        (4, False, 0xFFFFFFFF, "uint_arg"),
        (8, True, -1, "long_arg"),
        (8, False, ALL, "size_arg"),
    ],
)
def test_a_number_whose_type_is_left_to_the_node_is_as_wide_as_there(
    read: Callable[[str], Any], size: int, signed: bool, number: int, member: str
) -> None:
    value = Value(value_of("int").form._replace(size=size, signed=signed), (number,))
    assert read_argument(read, argument("auto", "", value, "x86_64")) == (member, number)


def test_a_socket_has_type_mark_priority_state_and_a_cookie_that_is_not_an_address(read: Callable[[str], Any]) -> None:
    place = 0xFFFF8881_23456789
    halves = (7 | (place & 0xFFFFFFFF) << 32, 6 | place >> 32 << 32)
    sock = argument("sock", "", value_of("sock", numbers=(1, 2, 6, 2, 10, 1, *halves)), "x86_64")
    _, found = read_argument(read, sock)
    assert (found.family, found.type, found.protocol, found.state) == (
        *("AF_INET", "SOCK_STREAM", "IPPROTO_TCP", "TCP_LISTEN"),
    )
    assert (found.sport, found.dport, found.mark, found.priority) == (1, 2, 7, 6)
    assert found.cookie not in (0, place)
    again = argument("sock", "", value_of("sock", numbers=(1, 2, 6, 2, 1, 1, *halves)), "x86_64")
    assert read_argument(read, again)[1].cookie == found.cookie
    assert sock.text == "tcp 10.0.0.1:1 -> [fd00::1]:2"


def test_a_packet_has_hash_length_mark_priority_and_protocol(read: Callable[[str], Any]) -> None:
    packet = value_of("skb", numbers=(1, 2, 17, 2, 0, 0, 3 | 1500 << 32, 4 | 0xABCD << 32))
    _, found = read_argument(read, argument("skb", "", packet, "x86_64"))
    assert (found.hash, found.len, found.mark, found.priority, found.proto) == (0xABCD, 1500, 3, 4, 17)


def test_credentials_have_secure_bits_and_capabilities_by_name_and_the_user_namespace(
    read: Callable[[str], Any],
) -> None:
    numbers = (
        0 | 16 << 32,
        1 | 1 << 32,
        2 | 1000 << 32,
        3 | 1001 << 32,
        4,
        5,
        6,
        7,
        1 << 1,
        1 << 21,
        1 << 40,
        4026531837,
    )
    _, found = read_argument(read, argument("cred", "", value_of("cred", numbers=numbers), "x86_64"))
    assert [found.uid.value, found.gid.value, found.suid.value, found.sgid.value] == [0, 1, 2, 3]
    assert [found.euid.value, found.egid.value, found.fsuid.value, found.fsgid.value] == [4, 5, 6, 7]
    assert list(found.securebits) == [16]
    assert [list(found.caps.permitted), list(found.caps.effective), list(found.caps.inheritable)] == [[1], [21], [40]]
    namespace = found.user_ns
    assert [namespace.level.value, namespace.uid.value, namespace.gid.value] == [1, 1000, 1001]
    assert (namespace.ns.inum, namespace.ns.is_host) == (4026531837, False)


def test_types_of_programs_maps_and_events_are_words(read: Callable[[str], Any]) -> None:
    def shown(type: str, *numbers: int) -> Any:
        return read_argument(read, argument(type, "", value_of(type, numbers=numbers), "x86_64"))[1]

    assert shown("bpf_map", 1, 4, 8, 16).MapType == "BPF_MAP_TYPE_HASH"
    assert shown("bpf_prog", 2, 4).ProgType == shown("bpf_attr", 2, 4).ProgType == "BPF_PROG_TYPE_KPROBE"
    assert shown("perf_event", 1, 2, 3).Type == "PERF_TYPE_SOFTWARE"
    assert shown("bpf_cmd", 5) == 5
    assert (shown("capability", 21).value.value, shown("capability", 21).name) == (21, "CAP_SYS_ADMIN")
    assert list(shown("module", 1, 1 | 1 << 12 | 1 << 13).tainted) == [1, 4096, 8192]


def events() -> list[Happening]:
    """One of each kind, with all that they may have."""
    all_rights = Credentials(0, 0, 0, 0, 0, 0, 0, 0, 0x2FF, (1 << 63) - 1, 0x1FFFFFFFFFF, 3)
    number = (EventArgument("int", -1, "l"),)
    frames = (StackEntry(255, "f", 1, "m"), StackEntry(module="m"))
    plain = PolicyEvent(
        *("kprobe", SHELL, 12, "__x64_f", number, number, number[0], True, "EPERM", frames, frames, all_rights),
        *(tuple(range(1, 11)), 1, "comm", "sha256:ab", "77"),
        **{"function": "f", "subsystem": "s", "path": "/p", "offset": 4096, "reference_counter": 8, "policy": "p"},
        **{"message": "m", "tags": ("a",), "action": "Override", "return_action": "Post", "would_be": "SENT SIGKILL"},
    )
    loader = replace(plain, hook="loader", args=(EventArgument("build_id", "abcd"),))
    hooks = ("kprobe", "tracepoint", "uprobe", "usdt", "lsm")
    return [
        executed(ExecId(5, 5), "/bin/x", exe="/memfd:x", inode=1 << 63, links=0, gained=7, parent=SHELL),
        event("exit", ExecId(5, 5), code=255),
        event("exit", SHELL, signal=9, code=-1),
        *(replace(plain, hook=hook) for hook in hooks),  # type: ignore[arg-type]
        loader,
    ]


def test_each_kind_of_event_is_read(read: Callable[[str], Any]) -> None:
    life = living()
    found = set()
    for happened in events():
        text = message(life.told(happened), True, lambda _: {"pod_labels": {"a": "b"}, "workload": "w"}, strict=True)
        found.add(read(text).WhichOneof("one"))
    assert found == MEMBERS.keys()


def test_the_capabilities_of_root_have_the_schemas_own_names(read: Callable[[str], Any]) -> None:
    life = Life()
    text = message(life.told(executed(SHELL, "/bin/x")))
    assert list(read(text).process_exec.process.cap.effective) == list(range(41))


def test_what_is_ours_stands_in_json_and_not_in_the_strict_form() -> None:
    life = living()
    (kprobe,) = (one for one in events() if isinstance(one, PolicyEvent) and one.hook == "kprobe")
    ours = {"blocked", "verdict", "would_be", "file_id"}
    assert ours <= json.loads(message(life.told(kprobe)))["process_kprobe"].keys()
    strict = json.loads(message(life.told(kprobe), strict=True))["process_kprobe"]
    assert not ours & strict.keys()
    assert strict["function_name"] == "__x64_f"
    assert "process_file" in json.loads(message(life.told(FileEvent("read", SHELL, 10, "/x", 1, 2, 3))))


def test_numbers_of_64_bits_are_texts_in_the_strict_form(read: Callable[[str], Any]) -> None:
    told = living().told(seen(EventArgument("size", ALL), EventArgument("long", -1)))
    assert [list(one.values()) for one in json.loads(message(told, strict=True))["process_kprobe"]["args"]] == [
        [str(ALL)],
        ["-1"],
    ]
    assert read(message(told, strict=True)).process_kprobe.args[0].size_arg == ALL
