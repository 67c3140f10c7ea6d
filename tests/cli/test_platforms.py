"""The client starts where Python has not got what only Linux, or only POSIX, has.

A child process is made to look like macOS: without the names of Linux, and without modules that are not everywhere. The
trap: the standard library looks at sys.platform, too, so this shows what is imported and used at the start, and not
that all works there.
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
# macOS's own, which urllib asks for proxies.
sys.modules["_scproxy"] = types.SimpleNamespace(_get_proxies=dict, _get_proxy_settings=dict)
sysconfig.get_config_vars()  # kept in a file that is named like the platform
sys.platform = "darwin"
sys.argv[0] = "kubectl-gadget"

from kubectl_gadget.cli.main import main

sys.exit(main())
"""


async def elsewhere(*words: str) -> tuple[int, str, str]:
    """What a command returns there, and what it prints on standard output and on standard error."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", START, *words, stdout=pipe, stderr=pipe)
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
