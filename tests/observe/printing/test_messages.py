"""JSON in the schema that readers know: the required members, and no others."""

import base64
import json
from dataclasses import replace
from typing import Any

from kubectl_gadget.linux.processes import NAMESPACE_KINDS
from kubectl_gadget.observe.happening import FileEvent, Happening
from kubectl_gadget.observe.printing.messages import message
from kubectl_gadget.observe.process import Process
from kubectl_gadget.rows.container_lookup import Container
from kubectl_gadget.wire.policy_events.event import Credentials, EventArgument, PolicyEvent, StackEntry
from kubectl_gadget.wire.policy_events.exec_id import ExecId
from tests.observe.lives import ROOT, SHELL, XWING, Life, event, executed, vi

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
