"""JSON in the schema that readers know: the required members, and no others."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from kubectl_gadget.kube.resources import PODS
from kubectl_gadget.linux.names import NAMESPACE_KINDS
from kubectl_gadget.observe.happening import FileEvent, Happening
from kubectl_gadget.observe.messages import MEMBERS, PodDetails, message
from kubectl_gadget.observe.processes import Process
from kubectl_gadget.policies.compiler.slots import SlotSource, argument_slot
from kubectl_gadget.policies.language import ARGUMENT_TYPES
from kubectl_gadget.policies.model import NOWHERE
from kubectl_gadget.policies.model import Argument as Written
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.wire.policy_events import Credentials, EventArgument, ExecId, PolicyEvent, StackEntry
from kubectl_gadget.wire.policy_record import NUMBERS, WITH_ADDRESSES, Value
from kubectl_gadget.wire.record_reader import argument
from tests.observe.lives import ROOT, SHELL, XWING, Life, event, executed, vi
from tests.observe.strict_schema import ENUMS, MESSAGES
from tests.strict_reader import strict_reader

ENVELOPE = {"node_name", "time", "aggregation_info", "cluster_name", "node_labels"}
PROCESS = {
    *("exec_id", "parent_exec_id", "pid", "tid", "uid", "auid", "user", "cwd", "binary", "arguments", "flags"),
    *("start_time", "refcnt", "docker", "in_init_tree", "environment_variables", "cap", "ns", "process_credentials"),
    *("binary_properties", "pod"),
}
"""Of the schema that readers know."""
POLICY = {
    *("process", "parent", "ancestors", "function_name", "args", "data", "return", "action", "return_action"),
    *("kernel_stack_trace", "user_stack_trace", "policy_name", "message", "tags"),
}
OURS = {"blocked", "verdict", "file_id"}


def read(happened: Happening, life: Life, **values: Any) -> tuple[str, dict[str, Any]]:
    """The type, and the event's own object."""
    whole = json.loads(message(life.told(happened), **values))
    (name,) = whole.keys() - ENVELOPE
    assert whole["node_name"] == "node-1"
    return name, whole[name]


def test_an_exec_has_the_process_and_its_parent() -> None:
    life = Life()
    life.apply(event("running", SHELL, exe="/bin/sh", args=("sh",), container_pid=1))
    name, found = read(executed(ExecId(2001, 11), "/usr/bin/vi", "a b", parent=SHELL), life)
    assert name == "process_exec"
    assert found.keys() == {"process", "parent"}
    process, parent = found["process"], found["parent"]
    assert process.keys() | parent.keys() <= PROCESS
    assert base64.b64decode(process["exec_id"]) == b"node-1:2001:11"
    assert process["parent_exec_id"] == parent["exec_id"] == base64.b64encode(b"node-1:1000:10").decode()
    assert (process["pid"], process["tid"], process["uid"], process["auid"]) == (11, 11, 0, 4294967295)
    assert (process["binary"], process["arguments"], process["flags"]) == ("/usr/bin/vi", '"a b"', "execve rootcwd")
    assert process["start_time"] == "2023-11-14T22:13:22.000000000Z"
    assert (process["refcnt"], parent["refcnt"], process["in_init_tree"]) == (1, 2, True)
    assert process["docker"] == "c" * 31
    assert process["pod"] == {
        "namespace": "default",
        "name": "xwing",
        "uid": "u1",
        "container": {"id": "containerd://" + "c" * 64, "name": "spaceship", "image": {"name": "busybox"}, "pid": 11},
    }


def test_what_a_cluster_knows_of_pods_stands_with_each_process() -> None:
    life = Life()
    life.apply(event("running", SHELL, exe="/bin/sh", args=("sh",), container_pid=1))
    known = {"pod_labels": {"app": "x"}, "workload": "xwing", "workload_kind": "Deployment"}
    asked = []

    def details(container: Container) -> dict[str, Any]:
        asked.append(container.pod)
        return known

    _, found = read(executed(ExecId(2001, 11), "/usr/bin/vi", "a", parent=SHELL), life, details=details)
    for process in (found["process"], found["parent"]):
        assert {name: process["pod"][name] for name in known} == known
    assert asked == ["xwing", "xwing"]


def test_credentials_and_namespaces_of_a_policys_event_are_its_own() -> None:
    life = Life()
    life.apply(event("running", SHELL, exe="/bin/sh", args=("sh",), container_pid=1))
    credentials = Credentials(7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 1, 0)
    numbers = tuple(range(100, 110))
    seen = PolicyEvent("kprobe", SHELL, credentials=credentials, namespaces=numbers, host_namespaces=1)
    _, found = read(seen, life)
    assert found["process"]["uid"] == 7
    assert found["process"]["cap"] == {"effective": ["CAP_CHOWN"]}
    assert found["process"]["ns"] == {
        kind: {"inum": number, **({"is_host": True} if kind == "uts" else {})}
        for kind, number in zip(NAMESPACE_KINDS, numbers, strict=True)
    }


def test_credentials_of_an_event_are_reported_also_where_the_program_is_not_known() -> None:
    credentials = Credentials(7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 1, 0)
    seen = PolicyEvent("kprobe", ExecId(99, 5), 99, function="f", credentials=credentials, namespaces=(5,) * 10)
    unknown = Process("node-1", seen.process, XWING)
    body = json.loads(message(Life().told(seen, unknown)))["process_kprobe"]
    process = body["process"]
    assert "binary" not in process
    assert (process["uid"], process["process_credentials"]["fsuid"], process["ns"]["pid"]["inum"]) == (7, 7, 5)
    assert process["cap"]["effective"] == ["CAP_CHOWN"]


def test_capabilities_and_namespaces_have_their_names() -> None:
    life = Life()
    _, found = read(executed(SHELL, "/bin/x", host_namespaces=1), life)
    process = found["process"]
    assert process["cap"].keys() == {"permitted", "effective"}
    assert "CAP_SYS_ADMIN" in process["cap"]["effective"]
    assert process["ns"].keys() == set(NAMESPACE_KINDS)
    assert process["ns"]["uts"] == {"inum": 4026531840, "is_host": True}
    assert process["ns"]["net"] == {"inum": 4026531840}
    assert process["process_credentials"]["fsgid"] == 0


def test_an_unknown_parent_is_null() -> None:
    _, found = read(executed(SHELL, "/bin/x", parent=ExecId(1, 1)), Life())
    assert found["parent"] is None
    assert base64.b64decode(found["process"]["parent_exec_id"]) == b"node-1:1:1"


def test_an_exit_has_status_or_signal_and_when() -> None:
    life = Life()
    life.apply(executed(SHELL, "/bin/x"))
    name, found = read(event("exit", SHELL, code=0), life)
    assert (name, found["status"], found["time"]) == ("process_exit", 0, "2023-11-14T22:13:22.000000000Z")
    life.apply(executed(ExecId(5, 5), "/bin/x"))
    _, found = read(event("exit", ExecId(5, 5), code=-1, signal=9), life)
    assert (found["signal"], "status" in found) == ("SIGKILL", False)


def test_special_files_are_reported() -> None:
    life = Life()
    happened = executed(SHELL, "/bin/x", exe="/memfd:x", path="/dev/fd/3", inode=7, links=0, gained=3)
    _, found = read(happened, life)
    assert found["process"]["binary_properties"] == {
        "setuid": 0,
        "setgid": 0,
        "privileges_changed": ["PRIVILEGES_RAISED_EXEC_FILE_SETUID", "PRIVILEGES_RAISED_EXEC_FILE_SETGID"],
        "file": {"inode": {"number": "7", "links": 0}, "path": "/memfd:x"},
    }


def test_all_ancestors_come_when_asked_for() -> None:
    life = Life()
    identity = vi(life)
    life.apply(event("fork", ExecId(4000, 20), identity))
    _, found = read(executed(ExecId(4001, 20), "/bin/ls"), life, ancestors=True)
    assert found["parent"]["binary"] == "/usr/bin/vi"
    assert [ancestor["binary"] for ancestor in found["ancestors"]] == ["/bin/sh"]


def test_a_policys_event_has_the_members_of_its_hook() -> None:
    life = Life()
    identity = vi(life)
    happened = PolicyEvent(
        "kprobe",
        identity,
        tid=12,
        function="security_file_permission",
        args=(
            EventArgument("file", {"path": "/etc/passwd", "permission": "-rw-r--r--"}, "file"),
            EventArgument("int", 2),
        ),
        returned=EventArgument("int", -1),
        policy="guard",
        message="hands off",
        tags=("a", "b"),
        action="Override",
        blocked=True,
        verdict="EPERM",
        kernel_stack=(StackEntry(255, "f", 1),),
    )
    name, found = read(happened, life)
    assert name == "process_kprobe"
    assert found.keys() <= POLICY | OURS
    assert found["process"]["tid"] == 12
    assert found["args"] == [
        {"file_arg": {"path": "/etc/passwd", "permission": "-rw-r--r--"}, "label": "file"},
        {"int_arg": 2},
    ]
    assert (found["return"], found["action"]) == ({"int_arg": -1}, "KPROBE_ACTION_OVERRIDE")
    assert (found["policy_name"], found["message"], found["tags"]) == ("guard", "hands off", ["a", "b"])
    assert found["kernel_stack_trace"] == [{"address": "255", "offset": "1", "symbol": "f"}]
    assert (found["blocked"], found["verdict"]) == (True, "EPERM")


def test_each_hook_says_its_place_in_its_own_members() -> None:
    life = Life()
    identity = vi(life)
    places = {
        "tracepoint": {"subsys": "s", "event": "f"},
        "uprobe": {"path": "/p", "symbol": "f"},
        "usdt": {"path": "/p", "provider": "s", "name": "f"},
        "lsm": {"function_name": "f"},
    }
    for hook, place in places.items():
        happened = PolicyEvent(hook, identity, function="f", subsystem="s", path="/p")  # type: ignore[arg-type]
        name, found = read(happened, life)
        assert name == f"process_{hook}"
        assert {key: found[key] for key in place} == place


def test_a_followed_file_has_one_id() -> None:
    life = Life()
    name, found = read(FileEvent("write", vi(life), 11, "/etc/passwd", 0xABC, 7, 3, bytes=1275), life)
    assert (name, found["operation"], found["bytes"]) == ("process_file", "write", 1275)
    assert found["file"] == {"path": "/etc/passwd", "id": "abc", "inode": 7, "device": "0:3"}


def test_credentials_are_those_at_the_time_of_the_event() -> None:
    life = Life()
    nobody = replace(ROOT, uid=65534, effective=1)
    _, found = read(FileEvent("read", vi(life), 11, "/x", 1, 2, 3, credentials=nobody), life)
    assert (found["process"]["uid"], found["process"]["cap"]["effective"]) == (65534, ["CAP_CHOWN"])
    assert found["process"]["process_credentials"]["uid"] == 65534


def test_bytes_that_are_not_text_do_not_break_the_line() -> None:
    life = Life()
    text = message(life.told(executed(SHELL, "/bin/x", "\udcff\n")))
    assert "\n" not in text
    assert json.loads(text)["process_exec"]["process"]["arguments"] == '"\ufffd\n"'
    text.encode()


# -o jsonpb is read by a strict reader of security events, and so is all of -o json that its schema has a kind
# for.


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


# Labels and workloads of pods for JSON of events.


def pod(name: str, uid: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name, "uid": uid, **metadata}}


OWNED = pod(
    "web-5d4f-x2k9",
    "uid-1",
    labels={"app": "web", "pod-template-hash": "5d4f"},
    ownerReferences=[{"kind": "ReplicaSet", "name": "web-5d4f", "controller": True}],
)
STATIC = pod(
    "etcd-node",
    "uid-2",
    annotations={"kubernetes.io/config.hash": "hash-2", "kubernetes.io/config.mirror": "hash-2"},
    ownerReferences=[{"apiVersion": "v1", "kind": "Node", "name": "node", "uid": "uid-0", "controller": True}],
) | {"spec": {"nodeName": "node"}}
DECOY = pod("decoy", "uid-3", labels={"app": "none"}, annotations={"kubernetes.io/config.hash": "uid-1"})


def test_a_pod_is_known_by_its_uid_with_labels_and_what_it_is_a_replica_of() -> None:
    details = PodDetails()
    details.take({PODS: [OWNED, DECOY]})
    assert details.of(Container(pod_uid="uid-1")) == {
        "pod_labels": {"app": "web", "pod-template-hash": "5d4f"},
        "workload": "web",
        "workload_kind": "Deployment",
    }


def test_a_static_pod_is_known_by_the_uid_that_its_containers_bear_and_any_by_its_name() -> None:
    details = PodDetails()
    details.take({PODS: [OWNED, STATIC]})
    known = details.of(Container(pod_uid="hash-2"))
    assert (known["workload"], known["workload_kind"]) == ("etcd-node", "Pod")
    assert details.of(Container(namespace="shop", pod="web-5d4f-x2k9"))["workload"] == "web"


def test_a_pod_that_was_not_listed_has_no_details() -> None:
    assert PodDetails().of(Container(pod_uid="uid-1", namespace="shop", pod="web")) == {}
