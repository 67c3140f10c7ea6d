"""The engine of policies in this kernel: each way to a hook in turn, what matches, and that what is denied is not done.

Most ways need trampolines or kprobes, which not every kernel has; tests that need one are skipped there, and run in the
virtual machine.
"""

import ctypes
import errno
import hashlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.policies.hook import _WRITTEN_ONCE, fields
from kubectl_gadget.errors import AgentError
from kubectl_gadget.policies.model import (
    NAMESPACES,
    Action,
    Argument,
    Hook,
    HookFilter,
    Policy,
    PolicyOptions,
    Range,
    RateLimit,
    Selector,
    Subject,
    SystemCall,
    Test,
    Value,
)
from kubectl_gadget.wire.policy_record import KERNEL_STACK_AT
from tests.bpf.policy_engine import Enforcer, in_force

pytestmark = pytest.mark.bpf
TIMES = 31
EPERM, EACCES = 1, 13
CAP_CHOWN = 0
CLONE_NEWUTS, CLONE_NEWNS = 0x04000000, 0x00020000
PR_SET_NAME = 15
MS_BIND, MS_REC, MS_PRIVATE = 4096, 1 << 14, 1 << 18
DENY = (Action("Override", error=-EACCES),)
KILL = (Action("Sigkill"),)
libc = ctypes.CDLL(None, use_errno=True)


def argument(position: int, test: Test, *values: Value, negated: bool = False) -> HookFilter:
    return HookFilter(Subject("argument", position), test, values, negated)


def policy(*hooks: Hook, name: str = "policy", **options: Any) -> Policy:
    return Policy(name, hooks=hooks, options=PolicyOptions(**options))


def opened(*selectors: Selector) -> Hook:
    return Hook("kprobe", "security_file_open", arguments=(Argument(0, "file"),), selectors=selectors)


def openat(*selectors: Selector, **more: Any) -> Hook:
    arguments = (Argument(0, "int"), Argument(1, "string"), Argument(2, "int"))
    return Hook("kprobe", "sys_openat", syscall=True, arguments=arguments, selectors=selectors, **more)


def in_child(deed: Callable[[], object]) -> int:
    """How it ended, as os.waitpid() has it; an OSError is the exit code."""
    pid = os.fork()
    if not pid:
        try:
            deed()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


WAYS = {"lsm": "lsm/file_open"} | {kind: f"{kind}/security_file_open" for kind in ("fmod_ret", "fentry", "kprobe")}


@pytest.mark.parametrize("kind", WAYS)
def test_every_way_to_a_security_hook_sees_the_resolved_path(kind: str, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    (tmp_path / "link").symlink_to("secret")
    selector = Selector(filters=(argument(0, "equal", f"{tmp_path}/secret"),))
    # What denies is among the ways of a policy that denies.
    other = Selector(filters=(argument(0, "equal", "/nowhere"),), actions=DENY)
    with in_force(policy(opened(selector, other)), enforce=True, allow_weaker=True, kinds=(kind,)) as enforcer:
        for _ in range(TIMES):
            (tmp_path / "link").read_bytes()
        assert enforcer.hooks == [WAYS[kind]]
        matches = enforcer.matches()
        assert enforcer.lost == {}
    assert len(matches) == TIMES
    assert {match.values[0].text for match in matches if match.values[0]} == {os.fsencode(tmp_path / "secret")}
    assert {match.found.exec[1] for match in matches} == {os.getpid()}


@pytest.mark.parametrize("kind", ["lsm", "fmod_ret"])
def test_a_denied_open_fails_with_the_policys_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    selector = Selector(filters=(argument(0, "prefix", f"{tmp_path}/"),), actions=DENY)
    with in_force(policy(opened(selector)), enforce=True, kinds=(kind,)) as enforcer:
        for _ in range(TIMES):
            with pytest.raises(PermissionError, match="denied"):
                (tmp_path / "secret").read_bytes()
        matches = enforcer.matches()
        assert enforcer.counts()["overridden"] == TIMES
    assert [match.found.verdict for match in matches] == [-EACCES] * TIMES
    (tmp_path / "secret").read_bytes()


def test_a_kill_at_a_security_hook_also_denies_the_operation(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.touch()
    hook = Hook(
        "lsm",
        "path_unlink",
        arguments=(Argument(0, "path"), Argument(1, "dentry")),
        selectors=(Selector(filters=(argument(1, "postfix", "/file"),), actions=KILL),),
    )
    with in_force(policy(hook), enforce=True, pid=0) as enforcer:
        assert os.WTERMSIG(in_child(target.unlink)) == signal.SIGKILL
        (match,) = enforcer.matches()
    assert (match.found.verdict, match.found.signal) == (-EPERM, signal.SIGKILL)
    assert target.exists()


def test_a_policy_that_only_watches_denies_nothing_and_reports_what_it_would_have(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    actions = (*DENY, Action("NoPost"))
    selector = Selector(filters=(argument(0, "prefix", f"{tmp_path}/"),), actions=actions)
    with in_force(policy(opened(selector), mode="monitor"), enforce=True) as enforcer:
        (tmp_path / "secret").read_bytes()
        (match,) = enforcer.matches()
    assert match.found.verdict == 0
    assert not match.place.enforced


def append(path: Path) -> None:
    os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b"x")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


WRITES: dict[str, tuple[str, tuple[Argument, ...], int, Callable[[Path], object]]] = {
    "write": ("file_permission", (Argument(0, "file"), Argument(1, "int")), 0, append),
    "truncate": ("path_truncate", (Argument(0, "path"),), 0, lambda path: os.truncate(path, 1)),
    "unlink": ("path_unlink", (Argument(0, "path"), Argument(1, "dentry")), 1, os.unlink),
    "rename": (
        "path_rename",
        (Argument(0, "path"), Argument(1, "dentry")),
        1,
        lambda path: os.rename(path, f"{path}.moved"),
    ),
    "chmod": ("path_chmod", (Argument(0, "path"), Argument(1, "uint16")), 0, lambda path: path.chmod(0o777)),
    "exec": ("bprm_check_security", (Argument(0, "linux_binprm"),), 0, lambda path: os.execv(path, ["x"])),
}


@pytest.mark.parametrize("what", WRITES)
def test_what_is_denied_leaves_the_file_as_it_was(what: str, tmp_path: Path) -> None:
    hook, arguments, position, deed = WRITES[what]
    path = tmp_path / "protected-file"
    path.write_text("#!/bin/sh\necho > $0.ran\n")
    path.chmod(0o755)
    before = digest(path), path.stat().st_mode
    filters = [argument(position, "postfix", "/protected-file")]
    if what == "write":
        filters.append(argument(1, "mask", 2))  # MAY_WRITE
    selector = Selector(filters=tuple(filters), actions=DENY)
    with in_force(
        policy(Hook("lsm", hook, arguments=arguments, selectors=(selector,))), enforce=True, pid=0
    ) as enforcer:
        assert os.WEXITSTATUS(in_child(lambda: deed(path))) == EACCES
        assert [match.found.verdict for match in enforcer.matches()][:1] == [-EACCES]
    assert (digest(path), path.stat().st_mode) == before
    assert [file.name for file in tmp_path.iterdir()] == ["protected-file"]


def test_a_denied_connect_sends_not_one_byte() -> None:
    arguments = (Argument(0, "socket"), Argument(1, "sockaddr"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        filters = (
            argument(1, "destination_address", IPv4Network("127.0.0.0/8")),
            argument(1, "destination_port", Range(port, port)),
        )
        hook = Hook("lsm", "socket_connect", arguments=arguments, selectors=(Selector(filters=filters, actions=DENY),))
        with in_force(policy(hook), enforce=True) as enforcer:
            for _ in range(TIMES):
                with socket.socket() as client, pytest.raises(PermissionError):
                    client.connect(("127.0.0.1", port))
            assert len(enforcer.matches()) == TIMES
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_system_calls_arguments_are_those_that_were_passed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    selector = Selector(filters=(argument(1, "equal", str(path)),))
    with in_force(policy(openat(selector))) as enforcer:
        for _ in range(TIMES):
            os.close(os.open(path, os.O_RDONLY))
        os.close(os.open("/dev/null", os.O_RDONLY))
        matches = enforcer.matches()
    assert len(matches) == TIMES
    for match in matches:
        directory, name, flags = match.values
        assert directory
        assert name
        assert flags
        assert (directory.numbers, name.text, flags.numbers) == ((-100,), os.fsencode(path), (os.O_RDONLY | 0o2000000,))


FILES = ("stat", "status", "maps", "mountinfo")


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        (argument(1, "prefix", "/proc/self/st"), {"/proc/self/stat", "/proc/self/status"}),
        (argument(1, "postfix", "stat", "maps"), {"/proc/self/stat", "/proc/self/maps"}),
        (argument(1, "substring", "elf/m"), {"/proc/self/maps", "/proc/self/mountinfo"}),
        (argument(1, "substring_ignore_case", "MOUNTI"), {"/proc/self/mountinfo"}),
        (argument(1, "glob", "/proc/*/m*s", "/nowhere"), {"/proc/self/maps"}),
        (argument(1, "glob", "/**[!s]"), {"/proc/self/stat", "/proc/self/mountinfo"}),
        (argument(1, "glob", "/*/stat*", negated=True), {f"/proc/self/{name}" for name in FILES}),
        (argument(1, "equal", "/proc/self/stat"), {"/proc/self/stat"}),
        (
            argument(1, "equal", "/proc/self/stat", "/proc/self/maps", negated=True),
            {"/proc/self/status", "/proc/self/mountinfo"},
        ),
    ],
)
def test_texts_are_compared_in_the_kernel(filter: HookFilter, names: set[str]) -> None:
    selector = Selector(filters=(filter, argument(1, "prefix", "/proc/self/")))
    with in_force(policy(openat(selector))) as enforcer:
        for name in FILES:
            os.close(os.open(f"/proc/self/{name}", os.O_RDONLY))
        matches = enforcer.matches()
    assert {match.values[1].text.decode() for match in matches if match.values[1]} == names


def test_the_first_selector_of_each_policy_counts() -> None:
    def selector(prefix: str, *actions: Action) -> Selector:
        return Selector(filters=(argument(1, "prefix", prefix),), actions=actions)

    first = policy(openat(selector("/proc/self/stat"), selector("/proc/self/"), selector("/")), name="first")
    second = policy(openat(selector("/proc/self/maps", Action("NoPost")), selector("/proc/")), name="second")
    with in_force(first, second) as enforcer:
        for name in ("stat", "maps"):
            os.close(os.open(f"/proc/self/{name}", os.O_RDONLY))
        matches = [(match.place.policy.name, match.place.number) for match in enforcer.matches()]
    assert matches == [("first", 0), ("second", 1), ("first", 1)]


def test_a_hundred_policies_of_seven_selectors_each_find_their_own() -> None:
    policies = [
        policy(openat(*(Selector(filters=(argument(1, "equal", f"/nowhere/{i}/{j}"),)) for j in range(7))), name=str(i))
        for i in range(100)
    ]
    with in_force(*policies) as enforcer:
        for i, j in ((0, 0), (13, 5), (63, 6), (99, 6)):
            with suppress(FileNotFoundError):
                os.open(f"/nowhere/{i}/{j}", os.O_RDONLY)
        found = [(int(match.place.policy.name), match.place.number) for match in enforcer.matches()]
    assert found == [(0, 0), (13, 5), (63, 6), (99, 6)]


def test_a_rate_limit_lets_one_of_the_same_through(tmp_path: Path) -> None:
    limited = Action("Post", rate_limit=RateLimit(3_600_000, "process"))
    selector = Selector(filters=(argument(1, "prefix", f"{tmp_path}/"),), actions=(limited,))
    with in_force(policy(openat(selector))) as enforcer:
        for name in ("a", "b", "a", "b", "a"):
            os.close(os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT))
        texts = [match.values[1].text for match in enforcer.matches() if match.values[1]]
        assert enforcer.counts()["limited"] == 3
    assert texts == [os.fsencode(tmp_path / name) for name in ("a", "b")]


def test_what_a_policy_compares_with_cannot_be_changed(tmp_path: Path) -> None:
    """Not even with the node's CAP_SYS_ADMIN, which opens any map by its id."""
    (tmp_path / "file").touch()
    with in_force(policy(openat(Selector(filters=(argument(1, "equal", str(tmp_path / "file")),))))) as enforcer:
        for map in (hook.map(name) for hook in enforcer.attached for name in _WRITTEN_ONCE):
            key = next(map.keys(), bytes(map.key_size))
            with pytest.raises(Failure) as failure:
                map.put(key, bytes(map.value_size))
            assert failure.value.errno == errno.EPERM
        (tmp_path / "file").read_bytes()
        assert len(enforcer.matches()) == 1


def test_programs_are_distinguished_by_their_binary(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    filters = (HookFilter(Subject("binary"), "postfix", ("/cat",)), argument(1, "equal", str(tmp_path / "file")))
    with in_force(policy(openat(Selector(filters=filters))), pid=0) as enforcer:
        (tmp_path / "file").read_bytes()
        subprocess.run(["cat", tmp_path / "file"], check=True)
        assert len(enforcer.matches()) == 1


def test_descendants_of_a_process_are_distinguished_from_others(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    read = argument(1, "equal", str(tmp_path / "file"))
    descends = HookFilter(Subject("pid"), "equal", (os.getpid(),), follow=True)
    others = HookFilter(Subject("pid"), "equal", (os.getpid(),), negated=True, follow=True)
    hook = openat(Selector(filters=(read, others)), Selector(filters=(read, descends)))
    with in_force(policy(hook), pid=0) as enforcer:
        subprocess.run(["sh", "-c", f"cat {tmp_path}/file; true"], check=True)
        (tmp_path / "file").read_bytes()
        numbers = [match.place.number for match in enforcer.matches()]
    assert numbers == [1, 1]


def test_namespaces_are_distinguished_from_the_nodes_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    read = argument(1, "equal", str(tmp_path / "file"))
    nodes = HookFilter(Subject("namespace", name="uts"), "equal", ("host_ns", 1))
    own = os.stat("/proc/self/ns/net").st_ino
    selectors = (
        Selector(filters=(read, replace(nodes, negated=True))),
        Selector(filters=(read, nodes, HookFilter(Subject("namespace", name="net"), "equal", ("host_ns", own)))),
    )
    with in_force(policy(openat(*selectors)), pid=0) as enforcer:
        (tmp_path / "file").read_bytes()
        subprocess.run(["unshare", "--uts", "cat", tmp_path / "file"], check=True)
        numbers = [match.place.number for match in enforcer.matches()]
    first_uts = 0xEFFFFFFE
    assert numbers == ([1, 0] if os.stat("/proc/self/ns/uts").st_ino == first_uts else [0, 0])


def reads(path: Path, *filters: HookFilter) -> Selector:
    return Selector(filters=(argument(1, "equal", str(path)), *filters))


def changed(kind: str) -> HookFilter:
    return HookFilter(Subject("namespace_change"), "mask", (1 << NAMESPACES.index(kind),))


def test_a_namespace_changed_since_the_exec_is_distinguished_from_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def unshare_and_read() -> None:
        assert libc.unshare(CLONE_NEWUTS) == 0
        for _ in range(TIMES):
            (tmp_path / "file").read_bytes()
        # A fork has what its maker's exec had.
        assert in_child((tmp_path / "file").read_bytes) == 0

    selectors = (reads(tmp_path / "file", changed("net")), reads(tmp_path / "file", changed("uts")))
    with in_force(policy(openat(*selectors)), pid=0) as enforcer:
        (tmp_path / "file").read_bytes()
        assert in_child(unshare_and_read) == 0
        subprocess.run(["unshare", "--uts", "cat", tmp_path / "file"], check=True)
        numbers = [match.place.number for match in enforcer.matches()]
        assert enforcer.lost == {}
    assert numbers == [1] * (TIMES + 1)


def drop_capabilities() -> None:
    """All effective ones, by capset(2)."""
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    data[0] = data[3] = 0
    assert libc.capset(header, data) == 0


def test_capabilities_that_were_changed_since_the_exec_are_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)

    def change(name: str) -> HookFilter:
        return HookFilter(Subject("capability_change", name=name), "mask", (1 << CAP_CHOWN,))

    def drop_and_read() -> None:
        drop_capabilities()
        for _ in range(TIMES):
            os.close(os.open(tmp_path / "file", os.O_RDONLY))

    selectors = (reads(tmp_path / "file", change("permitted")), reads(tmp_path / "file", change("effective")))
    with in_force(policy(openat(*selectors)), pid=0) as enforcer:
        (tmp_path / "file").read_bytes()
        in_child(drop_and_read)
        numbers = [match.place.number for match in enforcer.matches()]
    assert numbers == [1] * TIMES


def test_capabilities_within_a_user_namespace_of_its_own_are_distinguished_from_the_nodes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    within = HookFilter(Subject("capability", name="effective", in_namespace=True), "mask", (1 << CAP_CHOWN,))
    selectors = (reads(tmp_path / "file", within), reads(tmp_path / "file", replace(within, negated=True)))
    with in_force(policy(openat(*selectors)), pid=0) as enforcer:
        (tmp_path / "file").read_bytes()
        subprocess.run(["unshare", "--user", "--map-root-user", "cat", tmp_path / "file"], check=True)
        numbers = [match.place.number for match in enforcer.matches()]
    assert numbers == [0]


def test_what_a_followed_program_started_is_reported_whatever_it_has_become(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    # Its own, since these tests may have been started by a shell.
    shell = shutil.copy(os.path.realpath("/bin/sh"), tmp_path / "shell")
    follows = HookFilter(Subject("binary"), "equal", ("/nowhere", str(shell)), follow=True)
    hook = openat(
        reads(tmp_path / "file", replace(follows, subject=Subject("parent_binary"))),
        reads(tmp_path / "file", follows),
        reads(tmp_path / "file", replace(follows, negated=True)),
    )
    read = f"cat {tmp_path}/file"
    before = subprocess.Popen([shell, "-c", f"read go; exec {read}"], stdin=subprocess.PIPE)
    try:
        with in_force(policy(hook), pid=0) as enforcer:
            subprocess.run(["cat", tmp_path / "file"], check=True)
            numbers = [[match.place.number for match in enforcer.matches()]]
            # It has become another program by the time at which it reads.
            subprocess.run([shell, "-c", f"exec {read}"], check=True)
            numbers.append([match.place.number for match in enforcer.matches()])
            # The shell has ended when its grandchild reads.
            subprocess.run([shell, "-c", f"env {read}; true"], check=True)
            numbers.append([match.place.number for match in enforcer.matches()])
            # It ran before anybody looked.
            before.communicate(b"\n")
            numbers.append([match.place.number for match in enforcer.matches()])
            assert enforcer.lost == {}
    finally:
        before.kill()
        before.wait()
    assert numbers == [[2], [1], [0], [1]]


def test_a_program_that_another_thread_than_the_first_executes_is_followed_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shell = shutil.copy(os.path.realpath("/bin/sh"), tmp_path / "shell")
    follows = HookFilter(Subject("binary"), "equal", (str(shell),), follow=True)
    code = f"""
import os, threading
threading.Thread(target=os.execvp, args=("cat", ["cat", {str(tmp_path / "file")!r}])).start()
"""
    with in_force(policy(openat(reads(tmp_path / "file", follows))), pid=0) as enforcer:
        subprocess.run([shell, "-c", 'exec "$@"', "sh", sys.executable, "-c", code], check=True)
        assert len(enforcer.matches()) == 1


def test_what_enforcers_are_notified_of_is_done_at_the_calls_themselves() -> None:
    # Calls that this process does not make itself when it takes the policy away.
    calls = (SystemCall("getpriority"), SystemCall("setpriority"))
    # Of this test and its children alone, since every process of the machine is asked.
    ours = HookFilter(Subject("pid"), "equal", (os.getpid(),), follow=True)
    notify = Selector(filters=(argument(0, "equal", *calls), ours), actions=(Action("NotifyEnforcer", signal=9),))
    entry = Hook("tracepoint", "raw_syscalls/sys_enter", arguments=(Argument(4, "syscall64"),), selectors=(notify,))
    with in_force(Policy("killer", hooks=(entry,), enforcer_calls=calls), enforce=True, allow_weaker=True, pid=0):
        assert os.WTERMSIG(in_child(lambda: os.getpriority(os.PRIO_PROCESS, 0))) == signal.SIGKILL
        assert in_child(lambda: os.dup(0)) == 0


def test_name_credentials_and_namespaces_are_those_of_this_moment(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(0o777)
    uid, gid = 54321, 54322

    def deed() -> None:
        os.close(os.open(tmp_path / "file", os.O_RDONLY))
        Path("/proc/self/comm").write_text("renamed")
        os.unshare(os.CLONE_NEWUTS)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        with suppress(PermissionError):
            os.open(tmp_path / "file", os.O_RDONLY)

    selector = Selector(filters=(argument(1, "equal", str(tmp_path / "file")),))
    with in_force(policy(openat(selector)), pid=0) as enforcer:
        assert os.waitstatus_to_exitcode(in_child(deed)) == 0
        before, after = (match.found.caller for match in enforcer.matches())
    assert (before.comm, after.comm) == (Path("/proc/self/comm").read_text().strip(), "renamed")
    assert (before.credentials.uid, before.credentials.gid, before.credentials.fsuid) == (0, 0, 0)
    assert (after.credentials.uid, after.credentials.gid, after.credentials.fsuid) == (uid, gid, uid)
    assert before.credentials.effective
    assert not after.credentials.effective
    assert before.namespaces[0] == os.stat("/proc/self/ns/uts").st_ino != after.namespaces[0]
    assert before.namespaces[1:] == after.namespaces[1:]


def test_the_selector_that_counts_says_whether_there_are_stacks(tmp_path: Path) -> None:
    for name in ("kernel", "user", "neither"):
        (tmp_path / name).touch()
    selectors = (
        Selector(
            filters=(argument(1, "postfix", f"{tmp_path.name}/kernel"),), actions=(Action("Post", kernel_stack=True),)
        ),
        Selector(
            filters=(argument(1, "postfix", f"{tmp_path.name}/user"),), actions=(Action("Post", user_stack=True),)
        ),
        Selector(filters=(argument(1, "postfix", f"{tmp_path.name}/neither"),)),
    )
    with in_force(policy(openat(*selectors))) as enforcer:
        for name in ("kernel", "user", "neither"):
            os.close(os.open(tmp_path / name, os.O_RDONLY))
        stacks = enforcer.source._stacks
        assert stacks
        kernel, user, neither = (struct.unpack_from("<QQ", record, KERNEL_STACK_AT) for record in enforcer.records())
        stacks.take(time.monotonic())
        frames = stacks.take_new(0)
    assert frames
    assert (kernel[1], user[0], neither) == (0, 0, (0, 0))
    texts = {id: "\n".join(frames.frames[number] for number in numbers) for id, numbers in frames.stacks.items()}
    assert texts.keys() == {kernel[0], user[1]}
    assert "syscall" in texts[kernel[0]]
    assert ".so" in texts[user[1]]


def test_a_capability_that_is_gained_is_distinguished_from_one_that_is_lost() -> None:
    sets = (Argument(2, "kernel_cap_t"), Argument(4, "kernel_cap_t"))
    gained = HookFilter(Subject("argument", 0, other=1), "capabilities_gained", ())
    lost = HookFilter(Subject("argument", 1, other=0), "capabilities_gained", ())
    hook = Hook(
        "kprobe",
        "security_capset",
        arguments=sets,
        selectors=(Selector(filters=(gained,)), Selector(filters=(lost,))),
    )
    with in_force(policy(hook), pid=0) as enforcer:
        # The permitted set keeps what the effective one loses.
        in_child(drop_capabilities)
        assert [match.place.number for match in enforcer.matches()] == [1]


def test_a_file_is_known_by_what_it_is_whatever_it_is_called(tmp_path: Path) -> None:
    secret, other = tmp_path / "secret", tmp_path / "other"
    for path in (secret, other):
        path.touch()
    (tmp_path / "link").symlink_to("secret")
    (tmp_path / "hard").hardlink_to(secret)
    same = argument(0, "same_file", str(tmp_path / "link"), "/nowhere")
    # By descriptor, since that is what a system call has of a file.
    hook = Hook(
        "kprobe",
        "sys_lseek",
        True,
        arguments=(Argument(0, "fd"), Argument(1, "int")),
        selectors=(
            Selector(filters=(same, argument(1, "equal", 77))),
            Selector(filters=(replace(same, negated=True), argument(1, "equal", 77))),
        ),
    )

    def numbers(path: Path) -> list[int | None]:
        file = os.open(path, os.O_RDONLY)
        for _ in range(TIMES):
            os.lseek(file, 77, os.SEEK_SET)
        os.close(file)
        return [match.place.number for match in enforcer.matches()]

    with in_force(policy(hook)) as enforcer:
        assert numbers(secret) == numbers(tmp_path / "hard") == [0] * TIMES
        assert numbers(other) == [1] * TIMES
        secret.rename(tmp_path / "renamed")
        assert numbers(tmp_path / "renamed") == [0] * TIMES


def test_a_file_that_is_mounted_elsewhere_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    (tmp_path / "elsewhere").touch()
    same = argument(0, "same_file", str(tmp_path / "secret"))
    selector = Selector(filters=(same, argument(1, "equal", 78)))
    hook = Hook("kprobe", "sys_lseek", True, arguments=(Argument(0, "fd"), Argument(1, "int")), selectors=(selector,))

    def mount_and_seek() -> None:
        assert libc.unshare(CLONE_NEWNS) == 0
        assert libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None) == 0
        source, target = (os.fsencode(tmp_path / name) for name in ("secret", "elsewhere"))
        assert libc.mount(source, target, None, ctypes.c_ulong(MS_BIND), None) == 0
        os.lseek(os.open(tmp_path / "elsewhere", os.O_RDONLY), 78, os.SEEK_SET)

    with in_force(policy(hook), pid=0) as enforcer:
        assert in_child(mount_and_seek) == 0
        assert len(enforcer.matches()) == 1


def test_a_policys_override_method_is_the_one_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    selector = Selector(filters=(argument(0, "prefix", f"{tmp_path}/"),), actions=DENY)
    with in_force(policy(opened(selector), override_method="fmod-ret"), enforce=True) as enforcer:
        assert enforcer.hooks == ["fmod_ret/security_file_open"]
        with pytest.raises(PermissionError):
            (tmp_path / "secret").read_bytes()


def field(tracepoint: str, name: str) -> int:
    """Its number, as policies count."""
    names = [re.sub(r"\[\d*\]$", "", one.declared).split()[-1] for one in fields(tracepoint)]
    return names.index(name)


def of_tracepoint(target: str, argument: Argument, *selectors: Selector) -> Policy:
    return policy(Hook("tracepoint", target, arguments=(argument,), selectors=selectors))


@pytest.mark.usefixtures("tracefs")
def test_an_array_in_a_tracepoints_record_is_a_text() -> None:
    newcomm = Argument(field("task/task_rename", "newcomm"), "string")
    selector = Selector(filters=(argument(0, "prefix", "renamed"),))

    def rename() -> None:
        for name in (b"renamed-1", b"another", b"renamed-2"):
            libc.prctl(PR_SET_NAME, name)

    with in_force(of_tracepoint("task/task_rename", newcomm, selector), pid=0) as enforcer:
        assert enforcer.hooks == ["tracepoint/task/task_rename"]
        assert in_child(rename) == 0
        texts = [match.values[0].text for match in enforcer.matches() if match.values[0]]
    assert texts == [b"renamed-1", b"renamed-2"]


@pytest.mark.usefixtures("tracefs")
@pytest.mark.parametrize("type", ["string", "data_loc"])
def test_a_text_after_a_tracepoints_record_is_found(type: str, tmp_path: Path) -> None:
    program = shutil.copy(shutil.which("true") or "/bin/true", tmp_path / "program")
    filename = Argument(field("sched/sched_process_exec", "filename"), type)
    selector = Selector(filters=(argument(0, "equal", str(program)),))
    with in_force(of_tracepoint("sched/sched_process_exec", filename, selector), pid=0) as enforcer:
        for _ in range(TIMES):
            subprocess.run([program], check=True)
        subprocess.run(["true"], check=True)
        assert len(enforcer.matches()) == TIMES


@pytest.mark.usefixtures("tracefs")
def test_a_number_in_a_tracepoints_record_is_as_wide_as_its_field() -> None:
    code = Argument(field("signal/signal_generate", "sig"), "uint64")
    pid = Argument(field("signal/signal_generate", "pid"), "int32")
    filters = (argument(0, "equal", signal.SIGURG), argument(1, "equal", os.getpid()))
    hook = Hook("tracepoint", "signal/signal_generate", arguments=(code, pid), selectors=(Selector(filters=filters),))
    with in_force(policy(hook)) as enforcer:
        for _ in range(TIMES):
            os.kill(os.getpid(), signal.SIGURG)
        assert len(enforcer.matches()) == TIMES


@pytest.mark.usefixtures("tracefs")
@pytest.mark.parametrize(
    ("index", "type", "why"),
    [(99, "int", "has no field 99; its fields are: 0 "), (0, "string", "does not have the requested type")],
)
def test_a_field_that_is_not_there_is_named_with_those_that_are(index: int, type: str, why: str) -> None:
    with pytest.raises(AgentError, match=why), Enforcer(of_tracepoint("task/task_rename", Argument(index, type))):
        pass
