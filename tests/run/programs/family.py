"""A process, its child, and on a word on standard input all kinds of descendants, each of which opens a file once.

family.py FOLDER    writes the child's number, waits for a line, then says when all have opened
"""

import ctypes
import os
import platform
import sys
import threading

FOLDER = sys.argv[1]
CLONE = {"x86_64": 56, "aarch64": 220}[platform.machine()]
CLONE_PARENT, SIGCHLD = 0x8000, 17


def opens(name: str) -> None:
    os.close(os.open(f"{FOLDER}/{name}", os.O_RDONLY | os.O_CREAT))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def forked(deed):  # type: ignore[no-untyped-def]
    pid = os.fork()
    if not pid:
        deed()
        os._exit(0)
    os.waitpid(pid, 0)


def daemon(done: int) -> None:
    """Handed to init before it does anything."""
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    os.setsid()
    while os.getppid() == parent:
        os.sched_yield()
    opens("daemon")
    os.execv(
        sys.executable,
        [sys.executable, "-c", f"open({FOLDER!r} + '/daemon-exec', 'w'); import os; os.write({done}, b'1')"],
    )


def main() -> None:
    told, tell = os.pipe()
    old = os.fork()
    if not old:
        os.read(told, 1)
        opens("old-child")
        forked(lambda: opens("old-grandchild"))
        os._exit(0)
    say(str(old))
    sys.stdin.readline()
    opens("itself")
    os.write(tell, b"1")
    os.waitpid(old, 0)
    forked(lambda: opens("child"))
    thread = threading.Thread(target=lambda: forked(lambda: opens("of-thread")))
    thread.start()
    thread.join()
    finished, done = os.pipe()
    os.set_inheritable(done, True)
    forked(lambda: daemon(done))
    # A sibling, by its parent.
    libc = ctypes.CDLL(None)
    if not libc.syscall(CLONE, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0):
        opens("sibling")
        os.write(done, b"1")
        os._exit(0)
    read = 0
    while read < 2:
        read += len(os.read(finished, 2))
    say("done")
    sys.stdin.readline()


main()
