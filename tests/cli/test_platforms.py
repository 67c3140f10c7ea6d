"""The client starts where Python has not got what only Linux, or only POSIX, has.

A child process is made to look like macOS or Windows: without the names of Linux or of POSIX, without modules that are
not everywhere, and without signals in the event loop. The standard library looks at sys.platform, too, so this shows
what is imported and used, and not that all works there.
"""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.fake_cluster import FakeCluster

NOT_EVERYWHERE = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
ONLY_LINUX = {
    "os": "sched_getaffinity sched_setaffinity pidfd_open memfd_create setns unshare eventfd splice posix_fadvise",
    "select": "epoll",
    "signal": "SIGRTMIN SIGPOLL SIGUSR1 sigtimedwait sigwaitinfo pidfd_send_signal",
    "socket": "AF_NETLINK AF_PACKET SO_PEERCRED",
    "time": "CLOCK_BOOTTIME",
}
NOT_ON_WINDOWS = {
    "os": "fork forkpty geteuid getuid getgid tcgetpgrp getpgrp setsid O_NOFOLLOW O_DIRECTORY O_CLOEXEC O_NONBLOCK",
    "signal": "SIGHUP SIGQUIT SIGKILL SIGPIPE SIGCHLD SIGWINCH SIGTSTP SIGCONT",
}
ON_WINDOWS = """
import asyncio

def refuse(*words):
    raise NotImplementedError

asyncio.SelectorEventLoop.add_signal_handler = refuse
asyncio.SelectorEventLoop.remove_signal_handler = refuse
"""
START = f"""
import importlib, importlib.abc, sys, sysconfig, types

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {NOT_EVERYWHERE}:
            raise ModuleNotFoundError(f"this platform has no module {{name}}", name=name)

sys.meta_path.insert(0, Missing())
for name in {NOT_EVERYWHERE}:
    sys.modules.pop(name, None)
for module, names in {ONLY_LINUX}.items():
    for name in names.split():
        importlib.import_module(module).__dict__.pop(name, None)
os = importlib.import_module("os")
os.process_cpu_count = os.cpu_count  # Python's own asks sched_getaffinity if there was one at the start
# macOS's own, which urllib asks for proxies.
sys.modules["_scproxy"] = types.SimpleNamespace(_get_proxies=dict, _get_proxy_settings=dict)
# And its own way to find libraries; here it finds none.
def dyld_find(name, *_, **__):
    raise ValueError(name)

for name, content in (("", {{}}), (".dyld", {{"dyld_find": dyld_find}})):
    sys.modules["ctypes.macholib" + name] = types.SimpleNamespace(**content)
sysconfig.get_config_vars()  # kept in a file that is named like the platform
sys.platform = "darwin"
sys.argv[0] = "kubectl-gadget"

from kubectl_gadget.cli.main import main

sys.exit(main())
"""


WITHOUT_POSIX = START.replace(f"in {ONLY_LINUX}.items()", f"in [*{ONLY_LINUX}.items(), *{NOT_ON_WINDOWS}.items()]")
WITHOUT_POSIX = WITHOUT_POSIX.replace('sys.argv[0] = "kubectl-gadget"', f'sys.argv[0] = "kubectl-gadget"{ON_WINDOWS}')


async def elsewhere(*words: str, start: str = START) -> tuple[int, str, str]:
    """What a command returns there, and what it prints on standard output and on standard error."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", start, *words, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        pytest.param(("--help",), "Usage: kubectl gadget COMMAND", marks=pytest.mark.compiled),
        pytest.param(("trace", "open", "--help"), "Usage: kubectl gadget trace open", marks=pytest.mark.compiled),
        (("status", "--help"), "Usage: kubectl gadget status"),
        (("version", "--client"), "Client: "),
        (("bcc", "--help"), "Usage: kubectl gadget bcc"),
    ],
)
async def test_the_client_starts_without_what_only_linux_has(words: tuple[str, ...], printed: str) -> None:
    code, output, errors = await elsewhere(*words)
    assert (code, errors) == (0, "")
    assert printed in output


async def test_a_cluster_is_asked_without_what_only_linux_has(tmp_path: Path) -> None:
    async with FakeCluster(1) as cluster:
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        code, output, errors = await elsewhere("status", f"--kubeconfig={kubeconfig}")
    assert "Traceback" not in errors
    assert "internal error" not in errors
    assert code == 0, errors
    assert "node-1" in output


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built", "tracefs")
@pytest.mark.parametrize("start", [START, WITHOUT_POSIX], ids=["macOS", "Windows"])
async def test_a_cluster_is_traced_without_what_only_linux_has(start: str, tmp_path: Path) -> None:
    async with FakeCluster(1) as cluster:
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        words = ("trace", "open", "-A", "--host", "--max-events=3", "-o", "json", f"--kubeconfig={kubeconfig}")
        code, output, errors = await elsewhere(*words, start=start)
    assert "internal error" not in errors
    assert code == 0, errors
    assert len(output.splitlines()) == 3


@pytest.mark.parametrize("words", [("ci", "run", "--", "true"), ("ci", "start"), ("ci", "stop"), ("ci", "step", "x")])
async def test_ci_says_that_it_needs_posix(words: tuple[str, ...]) -> None:
    code, _, errors = await elsewhere(*words, start=WITHOUT_POSIX)
    assert code == 2
    assert "ci needs Linux or macOS" in errors
