"""Rows of gadgets as a collection gets them, made by hand."""

from typing import Any

from kubectl_gadget.behavior.row_facts import COLUMNS

Row = dict[str, Any]


def row(event: str, pid: int = 10, pod: str = "cart-1", **members: Any) -> Row:
    made: Row = dict.fromkeys((*COLUMNS, "flags_raw"))
    made |= {"timestamp": "2026-01-01T00:00:00.000000000Z", "node": "n", "namespace": "shop", "pod": pod}
    made |= {"container": "main", "pid": pid, "ppid": 1, "comm": "cart", "image": "cart:1", "errno": 0}
    return {**made, "event": event, **members}


def execs(pid: int, exe: str, *args: str, ppid: int = 1, pod: str = "cart-1", **members: Any) -> Row:
    made = row("process", pid, pod, operation="exec", exe=exe, path=exe, args=list(args or (exe,)), ppid=ppid, cwd="/")
    return {**made, "interpreted": False, **members}


def forks(pid: int, ppid: int, exe: str, pod: str = "cart-1") -> Row:
    return row("process", pid, pod, operation="fork", exe=exe, ppid=ppid, interpreted=False, cwd="/")


def opens(pid: int, path: str, flags: int = 0, pod: str = "cart-1", **members: Any) -> Row:
    return row("open", pid, pod, path=path, flags_raw=flags, **members)


def connects(pid: int, remote: str, port: int, pod: str = "cart-1", **members: Any) -> Row:
    made = row(
        "tcp", pid, pod, operation="connect", remote=remote, remote_port=port, local="10.0.0.9", local_port=40000
    )
    return {**made, **members}
