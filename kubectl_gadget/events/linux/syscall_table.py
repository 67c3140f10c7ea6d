"""The argument kinds of each system call, and lists of calls as users write them.

The client passes bpf/trace_syscalls.bpf.c a `kernel_table` with the kind of each pointer argument. The trap: a call
that is not listed here still has up to six arguments, but their number is unknown.
"""

from collections.abc import Collection, Mapping
from functools import cache

from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.linux.syscalls import syscall_names
from kubectl_gadget.events.schema import ARCHITECTURES

_TABLE_ENTRIES = 512

_ARGUMENTS_TEXT = """
read fd out size
write fd in size
open path open_flags mode
openat dirfd path open_flags mode
openat2 dirfd path how size
creat path mode
close fd
close_range fd fd hex
stat path pointer
lstat path pointer
fstat fd pointer
newfstatat dirfd path pointer at_flags
statx dirfd path at_flags hex pointer
statfs path pointer
fstatfs fd pointer
poll pointer int int
ppoll pointer int time pointer size
lseek fd int whence
mmap pointer size protection map_flags fd hex
mprotect pointer size protection
pkey_mprotect pointer size protection int
munmap pointer size
mremap pointer size size hex pointer
madvise pointer size advice
msync pointer size hex
mlock pointer size
munlock pointer size
brk pointer
rt_sigaction signal pointer pointer size
rt_sigprocmask int pointer pointer size
rt_sigreturn
rt_sigtimedwait pointer pointer time size
rt_sigsuspend pointer size
sigaltstack pointer pointer
ioctl fd hex hex
pread64 fd out size int
pwrite64 fd in size int
readv fd pointer int
writev fd pointer int
preadv fd pointer int int
pwritev fd pointer int int
access path access
faccessat dirfd path access
faccessat2 dirfd path access at_flags
pipe pair
pipe2 pair descriptor_flags
select int pointer pointer pointer pointer
pselect6 int pointer pointer pointer time pointer
sched_yield
dup fd
dup2 fd fd
dup3 fd fd descriptor_flags
pause
nanosleep time pointer
clock_nanosleep clock int time pointer
clock_gettime clock pointer
clock_settime clock time
clock_getres clock pointer
getitimer int pointer
setitimer int pointer pointer
alarm int
getpid
gettid
getppid
getpgrp
getuid
geteuid
getgid
getegid
setsid
sync
vhangup
getsid int
getpgid int
setpgid int int
sendfile fd fd pointer size
splice fd pointer fd pointer size hex
tee fd fd size hex
copy_file_range fd pointer fd pointer size hex
socket domain socket_type int
socketpair domain socket_type int pair
connect fd address int
bind fd address int
accept fd address_out pointer
accept4 fd address_out pointer socket_flags
getsockname fd address_out pointer
getpeername fd address_out pointer
sendto fd in size message_flags address int
recvfrom fd out size message_flags address_out pointer
sendmsg fd pointer message_flags
recvmsg fd pointer message_flags
sendmmsg fd pointer int message_flags
recvmmsg fd pointer int message_flags time
shutdown fd int
listen fd int
setsockopt fd int int pointer int
getsockopt fd int int pointer pointer
clone clone_flags pointer pointer pointer pointer
clone3 pointer size
fork
vfork
execve path list pointer
execveat dirfd path list pointer at_flags
exit int
exit_group int
wait4 int pointer wait_flags pointer
waitid int int pointer wait_flags pointer
kill int signal
tkill int signal
tgkill int int signal
pidfd_open int hex
pidfd_send_signal fd signal pointer hex
pidfd_getfd fd int hex
uname pointer
fcntl fd fcntl hex
flock fd hex
fsync fd
fdatasync fd
syncfs fd
truncate path size
ftruncate fd size
fallocate fd hex int int
getdents fd pointer size
getdents64 fd pointer size
fadvise64 fd int size int
getcwd out size
chdir path
fchdir fd
rename path path
renameat dirfd path dirfd path
renameat2 dirfd path dirfd path hex
mkdir path mode
mkdirat dirfd path mode
rmdir path
link path path
linkat dirfd path dirfd path at_flags
unlink path
unlinkat dirfd path at_remove
symlink path path
symlinkat path dirfd path
readlink path out size
readlinkat dirfd path out size
chmod path mode
fchmod fd mode
fchmodat dirfd path mode
fchmodat2 dirfd path mode at_flags
chown path int int
lchown path int int
fchown fd int int
fchownat dirfd path int int at_flags
mknod path mode hex
mknodat dirfd path mode hex
umask mode
utime path pointer
utimes path pointer
utimensat dirfd path pointer at_flags
futimesat dirfd path pointer
gettimeofday pointer pointer
time pointer
times pointer
getrlimit int pointer
setrlimit int pointer
prlimit64 int int pointer pointer
getrusage int pointer
sysinfo pointer
ptrace int int pointer pointer
setuid int
setgid int
setreuid int int
setregid int int
setresuid int int int
setresgid int int int
getresuid pointer pointer pointer
getresgid pointer pointer pointer
setfsuid int
setfsgid int
getgroups int pointer
setgroups int pointer
capget pointer pointer
capset pointer pointer
personality hex
prctl int hex hex hex hex
arch_prctl hex pointer
chroot path
pivot_root path path
mount text path text hex pointer
umount2 path hex
swapon path hex
swapoff path
sethostname in size
setdomainname in size
init_module pointer size text
finit_module fd text hex
delete_module text hex
setxattr path text in size hex
lsetxattr path text in size hex
fsetxattr fd text in size hex
getxattr path text out size
lgetxattr path text out size
fgetxattr fd text out size
listxattr path pointer size
llistxattr path pointer size
flistxattr fd pointer size
removexattr path text
lremovexattr path text
fremovexattr fd text
futex pointer futex int pointer pointer int
futex_waitv pointer int hex time clock
sched_setaffinity int size pointer
sched_getaffinity int size pointer
set_tid_address pointer
set_robust_list pointer size
get_robust_list int pointer pointer
rseq pointer size hex hex
membarrier int hex int
epoll_create int
epoll_create1 descriptor_flags
epoll_wait fd pointer int int
epoll_pwait fd pointer int int pointer size
epoll_pwait2 fd pointer int time pointer size
epoll_ctl fd epoll fd pointer
eventfd int
eventfd2 int hex
signalfd4 fd pointer size hex
timerfd_create clock hex
timerfd_settime fd hex pointer pointer
timerfd_gettime fd pointer
inotify_init
inotify_init1 hex
inotify_add_watch fd path hex
inotify_rm_watch fd int
fanotify_init hex hex
fanotify_mark fd hex hex dirfd path
unshare clone_flags
setns fd clone_flags
getcpu pointer pointer pointer
getrandom out size hex
memfd_create text hex
bpf int pointer size
perf_event_open pointer int int fd hex
seccomp int hex pointer
userfaultfd hex
process_vm_readv int pointer int pointer int hex
process_vm_writev int pointer int pointer int hex
name_to_handle_at dirfd path pointer pointer at_flags
open_by_handle_at fd pointer open_flags
io_uring_setup int pointer
io_uring_enter fd int int hex pointer size
io_uring_register fd int pointer int
open_tree dirfd path hex
move_mount dirfd path dirfd path hex
fsopen text hex
fsconfig fd int text pointer int
fsmount fd hex hex
fspick dirfd path hex
mount_setattr dirfd path hex pointer size
landlock_create_ruleset pointer size hex
landlock_add_rule fd int pointer hex
landlock_restrict_self fd hex
keyctl int hex hex hex hex
add_key text text pointer size int
request_key text text text int
"""
"""One call per line, with the kind of each argument; syscall_text.py formats each kind."""

_POINTS_TO = {
    "path": "s",
    "text": "n",
    "in": "w",
    "out": "r",
    "address": "a",
    "address_out": "A",
    "pair": "i",
    "time": "t",
    "how": "o",
    "list": "v",
}
"""The letter for a kind in the BPF program; all other kinds are plain numbers to it."""
_READ_FIRST = ("execve", "execveat")
_NEVER_RETURN = ("exit", "exit_group")

CLASSES: Mapping[str, tuple[str, ...]] = {
    "%network": (
        *("socket", "socketpair", "connect", "bind", "accept", "accept4", "listen", "getsockname", "getpeername"),
        *("sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "shutdown", "setsockopt", "getsockopt"),
    ),
    "%process": (
        *("clone", "clone3", "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid"),
        *("kill", "tkill", "tgkill", "pidfd_open", "pidfd_send_signal", "unshare", "setns"),
    ),
    "%memory": ("mmap", "munmap", "mremap", "mprotect", "pkey_mprotect", "brk", "madvise", "mlock", "munlock", "msync"),
}
"""Names for groups of calls. In addition, %file means calls with a path, and %desc calls with a file descriptor."""


@cache
def arguments() -> Mapping[str, tuple[str, ...]]:
    """The argument kinds of each known call, by name."""
    lines = (line.split() for line in _ARGUMENTS_TEXT.split("\n") if line)
    return {name: tuple(kinds) for name, *kinds in lines}


def select(text: str) -> frozenset[str]:
    """The calls in a list such as "openat,read,%network". Raises UsageError for names that no architecture has."""
    known = frozenset().union(*(syscall_names(architecture).values() for architecture in ARCHITECTURES))
    found: set[str] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word in known:
            found.add(word)
        else:
            found.update(_class(word, known))
    if not found:
        raise UsageError("no system call is named", "names such as openat,read, or a class such as %file")
    return frozenset(found)


def kernel_table(architecture: str, wanted: Collection[str] | None = None) -> str:
    """The table for bpf/trace_syscalls.bpf.c: eight letters for each call number; `wanted` None means all calls."""
    known = syscall_names(architecture)
    return "".join(_entry(known.get(number, ""), wanted) for number in range(_TABLE_ENTRIES))


def _entry(name: str, wanted: Collection[str] | None) -> str:
    letters = "".join(_POINTS_TO.get(kind, "-") for kind in arguments().get(name, ())).ljust(6, "-")
    when = "E" if name in _READ_FIRST else "X" if name in _NEVER_RETURN else "-"
    return letters + when + ("1" if wanted is None or name in wanted else "0")


def _class(word: str, known: Collection[str]) -> Collection[str]:
    kinds = {"%file": {"path"}, "%desc": {"fd", "dirfd"}}.get(word)
    if kinds:
        return [name for name, has in arguments().items() if kinds.intersection(has)]
    if word in CLASSES:
        return CLASSES[word]
    from difflib import get_close_matches

    near = get_close_matches(word, [*known, *CLASSES, "%file", "%desc"], 3)
    raise UsageError(
        f"there is no system call {word!r}",
        f"one of {', '.join(near)}" if near else "a class such as %file or %network",
    )
