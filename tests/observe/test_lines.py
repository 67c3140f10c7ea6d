"""Lines, in the shapes that readers know."""

import json
from dataclasses import replace
from typing import Any

import pytest

from kubectl_gadget.observe.happening import FileEvent
from kubectl_gadget.observe.lines import line
from kubectl_gadget.observe.messages import message
from kubectl_gadget.observe.run import SHOWN, LineOptions
from kubectl_gadget.rows.containers import HOST
from kubectl_gadget.wire.policy_events import EventArgument, ExecId, PolicyEvent, StackEntry
from tests.observe.lives import SHELL, Life, event, executed, vi

FILE = EventArgument("file", {"path": "/etc/passwd"})
SOCK = EventArgument(
    "sock",
    {
        "family": "AF_INET",
        "protocol": "IPPROTO_TCP",
        "saddr": "10.0.0.1",
        "sport": 4321,
        "daddr": "10.0.0.2",
        "dport": 80,
    },
)
SOCK6 = EventArgument(
    "sock", {"protocol": "IPPROTO_TCP", "saddr": "fe80::1", "sport": 1, "daddr": "fe80::2", "dport": 2}
)


def done(function: str, *args: EventArgument, hook: Any = "kprobe", **values: Any) -> str:
    """The line of a policy's event of vi, from its shape on, without vi's arguments."""
    life = Life()
    happened = PolicyEvent(hook, vi(life), function=function, args=args, **values)
    return line(life.told(happened))


def test_the_story_of_an_editor_reads_as_everywhere() -> None:
    life = Life()
    life.apply(event("running", SHELL, exe="/bin/sh", args=("sh",)))
    identity = ExecId(2001, 11)
    lines = [line(life.told(executed(identity, "/usr/bin/vi", "/etc/passwd", parent=SHELL)))]
    for operation, amount in (("open", None), ("write", 1275), ("close", None)):
        happened = FileEvent(operation, identity, 11, "/etc/passwd", 1, 2, 3, bytes=amount)
        lines.append(line(life.told(happened)))
    lines.append(line(life.told(event("exit", identity))))
    assert lines == [
        "🚀 process default/xwing /usr/bin/vi /etc/passwd",
        "📬 open    default/xwing /usr/bin/vi /etc/passwd",
        "📝 write   default/xwing /usr/bin/vi /etc/passwd 1275 bytes",
        "📪 close   default/xwing /usr/bin/vi /etc/passwd",
        "💥 exit    default/xwing /usr/bin/vi /etc/passwd 0",
    ]


def test_a_signal_stands_where_the_status_would() -> None:
    life = Life()
    identity = vi(life)
    assert line(life.told(event("exit", identity, signal=9, code=-1))).endswith("/usr/bin/vi /etc/passwd SIGKILL")


def test_a_process_of_the_host_has_the_name_of_the_node() -> None:
    told = Life().told(executed(SHELL, "/bin/ls"), container=HOST)
    assert line(told) == "🚀 process node-1 /bin/ls"


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        ("sys_write", (FILE, EventArgument("size", 42)), "📝 write   default/xwing /usr/bin/vi /etc/passwd 42 bytes"),
        (
            "__x64_sys_read",
            (FILE, EventArgument("size", 42)),
            "📚 read    default/xwing /usr/bin/vi /etc/passwd 42 bytes",
        ),
        ("fd_install", (EventArgument("int", 3), FILE), "📬 open    default/xwing /usr/bin/vi /etc/passwd"),
        ("sys_close", (EventArgument("int", 3), FILE), "📪 close   default/xwing /usr/bin/vi /etc/passwd"),
        (
            "security_file_permission",
            (FILE, EventArgument("int", 2)),
            "📝 write   default/xwing /usr/bin/vi /etc/passwd",
        ),
        (
            "security_file_permission",
            (FILE, EventArgument("int", 4)),
            "📚 read    default/xwing /usr/bin/vi /etc/passwd",
        ),
        ("security_mmap_file", (FILE, EventArgument("int", 5)), "📝 mmap-rx default/xwing /usr/bin/vi /etc/passwd"),
        ("security_path_truncate", (FILE,), "📝 truncate default/xwing /usr/bin/vi /etc/passwd"),
        (
            "sys_mount",
            (EventArgument("string", "a"), EventArgument("string", "b")),
            "💾 mount   default/xwing /usr/bin/vi a b",
        ),
        ("__sys_setuid", (EventArgument("int", 0),), "🔑 setuid  default/xwing /usr/bin/vi 0"),
        ("tcp_connect", (SOCK,), "🔌 connect default/xwing /usr/bin/vi tcp 10.0.0.1:4321 -> 10.0.0.2:80"),
        ("tcp_close", (SOCK6,), "🧹 close   default/xwing /usr/bin/vi tcp [fe80::1]:1 -> [fe80::2]:2"),
        (
            "tcp_sendmsg",
            (SOCK, EventArgument("int", 7)),
            "📤 sendmsg default/xwing /usr/bin/vi tcp 10.0.0.1:4321 -> 10.0.0.2:80 bytes 7",
        ),
        ("sys_nanosleep", (EventArgument("int", 7),), "❓ syscall default/xwing /usr/bin/vi sys_nanosleep 7"),
        ("sys_setns", (EventArgument("int", 0x20000),), "🔧 setns   default/xwing /usr/bin/vi CLONE_NEWNS"),
        ("sys_setns", (EventArgument("int", 3), EventArgument("int", 0)), "🔧 setns   default/xwing /usr/bin/vi any"),
        (
            "security_path_chmod",
            (FILE, EventArgument("uint", 0o4755, "mode"), EventArgument("int", 7, "count")),
            "❓ call    default/xwing /usr/bin/vi security_path_chmod /etc/passwd mode=04755 count=7",
        ),
        (
            "do_init_module",
            (EventArgument("module", {"name": "m"}),),
            "❓ call    default/xwing /usr/bin/vi do_init_module m",
        ),
    ],
)
def test_functions_have_their_words(function: str, args: tuple[EventArgument, ...], expected: str) -> None:
    assert done(function, *args) == expected


def test_hooks_of_other_kinds_have_their_words() -> None:
    number = EventArgument("int", 1)
    assert done("sched_switch", number, hook="tracepoint", subsystem="sched").startswith(
        "⁉️ tracepoint default/xwing /usr/bin/vi sched sched_switch 1"
    )
    assert done("main", hook="uprobe", path="/bin/x") == "🕵️ uprobe  default/xwing /usr/bin/vi /bin/x main"
    usdt = done("probe", hook="usdt", path="/bin/x", subsystem="provider")
    assert usdt == "🕵️ usdt    default/xwing /usr/bin/vi /bin/x provider probe"
    assert done("file_open", FILE, hook="lsm") == "🔒 LSM     default/xwing /usr/bin/vi file_open /etc/passwd"


def test_what_was_blocked_says_so() -> None:
    blocked = done("security_file_permission", FILE, EventArgument("int", 2), blocked=True, verdict="EPERM")
    assert blocked == "📝 write   default/xwing /usr/bin/vi /etc/passwd BLOCKED EPERM"


def test_what_is_not_carried_out_says_what_it_would_have_been() -> None:
    told = done("security_file_permission", FILE, EventArgument("int", 2), would_be="BLOCKED EPERM")
    assert told == "📝 write   default/xwing /usr/bin/vi /etc/passwd WOULD BE BLOCKED EPERM"


def test_stacks_follow_the_line() -> None:
    text = done(
        "x", kernel_stack=(StackEntry(0xFF, "f", 16), StackEntry(0xAB)), user_stack=(StackEntry(1, "g", 0, "m"),)
    )
    assert text.split("\n")[1:] == ["Kernel:", "   f+0x10", "   0xab", "User:", "   g+0x0 (m)"]


def test_nothing_that_is_observed_reaches_the_terminal_as_it_is() -> None:
    told = Life().told(executed(SHELL, "/bin/\x1b[2J", "a\nb", "\udcff"))
    assert line(told) == '🚀 process default/xwing "/bin/\\x1b[2J" "a\\nb" "\\xff"'


def test_no_argument_looks_like_anything_else() -> None:
    shell = Life().told(executed(SHELL, "/bin/sh", "-c", 'echo "a b"', "", "x\\n", 'a" BLOCKED EPERM "b'))
    assert line(shell) == r'''🚀 process default/xwing /bin/sh -c "echo \"a b\"" "" x\n "a\" BLOCKED EPERM \"b"'''
    assert shell.process.arguments == '-c "echo "a b"" "" x\\n "a" BLOCKED EPERM "b"'
    named = done(
        "security_file_permission", EventArgument("file", {"path": "/tmp/x BLOCKED EPERM"}), EventArgument("int", 2)
    )
    assert named.endswith('/vi "/tmp/x BLOCKED EPERM"')


def test_an_unknown_program_is_reported_by_its_threads_name() -> None:
    told = Life().told(event("exit", SHELL, code=3, comm="runc:[1:CHILD]"))
    assert line(told) == "💥 exit    default/xwing (runc:[1:CHILD]) 3"


def test_more_can_be_asked_for_and_stands_at_the_end() -> None:
    life = Life()
    happened = PolicyEvent("kprobe", vi(life), function="fd_install", args=(FILE,), policy="p", message="m n")
    told = life.told(happened)
    text = line(told, LineOptions(timestamps=True, shown=frozenset(SHOWN) - {"exec-id"}))
    assert text.startswith("2023-11-14T22:13:23.000000000Z 📬 open    default/xwing /usr/bin/vi /etc/passwd pid=11")
    assert 'parent=10 node=node-1 container=spaceship uid=0 policy=p action=Post message="m n"' in text
    assert text.endswith("🛑 CAP_SYS_ADMIN")


def test_in_colour_only_the_source_and_what_is_wrong_are_painted() -> None:
    life = Life()
    happened = PolicyEvent("kprobe", vi(life), function="fd_install", args=(FILE,), blocked=True)
    text = line(life.told(happened), LineOptions(color=True))
    assert text.count("\x1b[") == 4
    assert "\x1b[31m BLOCKED\x1b[0m" in text


def test_what_came_too_late_for_the_order_says_so() -> None:
    life = Life()
    told = replace(life.told(event("exit", vi(life))), late=True)
    assert line(told) == "💥 exit    default/xwing /usr/bin/vi /etc/passwd 0 (late)"
    assert json.loads(message(told))["late"] is True
    assert "late" not in json.loads(message(told, strict=True))
    assert "late" not in json.loads(message(life.told(event("exit", vi(life)))))
