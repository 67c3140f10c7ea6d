"""A virtual machine with another kernel: Debian's, in qemu, on this machine's own file system, which is read-only
there.

Nothing is installed in it and no image is made: the root is shared through virtiofs, which Debian's cloud kernel has
built in, so it boots in seconds without KVM, which a machine may advertise and yet not have. A machine of another
architecture has a root of its own (arm64.py). Files written in there are lost at the end, so results come out through
the second serial port.
"""

import compileall
import fcntl
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CACHE = PROJECT / "build" / "vm"
KERNEL = "linux-image-cloud-amd64"
VIRTIOFSD = Path("/usr/libexec/virtiofsd")
MEMORY = "2G"
INIT = PROJECT / "tests" / "vm" / "init"
BOOTED = "init runs"
"""What init says first."""
_BOOTS = 3
_X86 = "max,erms=off,fsrm=off,la57=off,mpx=off,pku=off,smap=off,smep=off,umip=off"
"""Without what costs an emulator most: a fifth page table, strings that are copied byte by byte, protection that is
switched at each copy from a program's memory. With AVX, which is cheaper to emulate than what replaces it."""
_BOARDS = {"x86_64": ("q35", _X86, "ttyS0"), "aarch64": ("virt", "neoverse-n1", "ttyAMA0")}
"""By architecture: qemu's machine, processor and console. neoverse-n1 has no pointer authentication, which is slow to
emulate, and runs 32-bit programs."""
_FAST = "mitigations=off nokaslr audit=0 nowatchdog rcupdate.rcu_expedited=1 cryptomgr.notests"
"""Parameters of the kernel that change no outcome: no retpolines, no long grace periods where programs are attached and
detached, no tests of its ciphers at boot."""
_CLEARED = "init_on_alloc=1"
"""The kernel clears memory when it is allocated. virtiofsd writes files into the machine's memory, and the emulator
does not see that: without a write of the machine itself, it goes on running the code of whatever was there before, so
programs crashed in libraries that were read late."""
_NICE = ("nice", "-n", "5")
"""Emulation takes whole processors for half an hour. The tests beside it run one after another and often wait, so they
take longest if they also wait for a processor."""


class NoMachineError(Exception):
    """No virtual machine is available here; the message says what is missing."""


@dataclass(frozen=True)
class MachineRun:
    """A run's console output, and what it wrote to /dev/ttyS1."""

    console: str
    result: str


@dataclass(frozen=True)
class Kernel:
    """A kernel image, and an initramfs if the kernel cannot mount the root itself; the architecture, and the Python of
    its root. `parameters` are added to those that it is booted with."""

    image: Path
    initramfs: Path | None = None
    architecture: str = "x86_64"
    python: str = sys.executable
    parameters: str = ""


@contextmanager
def one_downloads() -> Iterator[None]:
    """Locks CACHE for a download; others wait: tests of several machines start at the same time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kernel() -> Path:
    """Debian's kernel image, downloaded once. Raises NoMachineError if it is not available."""
    with one_downloads():
        found = sorted(CACHE.glob("root/boot/vmlinuz-*"))
        return found[-1] if found else _download()


def _download() -> Path:
    if not shutil.which("apt-get"):
        raise NoMachineError("the kernel comes from Debian's packages, and there is no apt-get here")
    try:
        package = _kernel_package()
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            output("apt-get", "download", package, cwd=folder)
            (deb,) = Path(folder).glob("*.deb")
            output("dpkg", "-x", str(deb), str(CACHE / "root"), cwd=folder)
    except subprocess.CalledProcessError as error:
        raise NoMachineError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error
    return max(CACHE.glob("root/boot/vmlinuz-*"))


def run(script: str, seconds: float, other: Kernel | None = None) -> MachineRun:
    """Boots Debian's kernel, or the other one, runs `script` with sh as root, and powers off. A kernel that panics
    before it runs init is booted again: rarely, an emulated processor still runs an instruction that another one has
    replaced. Raises NoMachineError if qemu or virtiofsd is missing, and TimeoutError with the last lines of the console
    and of the result if it takes longer than `seconds`."""
    booted = other or Kernel(kernel())
    for _ in range(_BOOTS - 1):
        found = _run_once(script, seconds, booted)
        if BOOTED in found.console:
            return found
    return _run_once(script, seconds, booted)


def _run_once(script: str, seconds: float, booted: Kernel) -> MachineRun:
    qemu = shutil.which(f"qemu-system-{booted.architecture}")
    if qemu is None or not VIRTIOFSD.exists():
        raise NoMachineError(f"qemu-system-{booted.architecture} or virtiofsd is not installed")
    # The root is read-only there, so each process would compile all modules that it imports.
    compileall.compile_dir(PROJECT / "kubectl_gadget", quiet=1)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        (folder / "script").write_text(script)
        share = _share_root(folder / "socket")
        try:
            command = _qemu(qemu, booted, folder)
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=seconds, check=True, capture_output=True)
        except subprocess.TimeoutExpired:
            lines = "\n".join(
                line for name in ("console", "result") for line in _text(folder / name).splitlines()[-20:]
            )
            raise TimeoutError(f"the virtual machine did not end within {seconds:.0f} s:\n{lines}") from None
        finally:
            share.terminate()
            share.wait()
        return MachineRun(_text(folder / "console"), _text(folder / "result"))


def _qemu(qemu: str, kernel: Kernel, folder: Path) -> list[str]:
    board, cpu, console = _BOARDS[kernel.architecture]
    # On a busy host the timer may look broken to the booting kernel, which would then panic.
    own = f"console={console} quiet panic=-1 no_timer_check init={INIT} -- {PROJECT} {folder / 'script'}"
    parameters = f"rootfstype=virtiofs root=host ro {_FAST} {_CLEARED} {kernel.parameters} {own}"
    return [
        *[*_NICE, qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
        # In one thread, which takes a tenth less of CPU time: two machines run at once on two processors. With one per
        # processor, a kernel panicked once when one processor ran code that another one was changing.
        *["-accel", "tcg,thread=single", "-cpu", cpu, "-smp", "2", "-m", MEMORY],
        *["-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on"],
        *["-machine", f"{board},memory-backend=memory"],
        *["-chardev", f"socket,id=host,path={folder / 'socket'}"],
        *["-device", "vhost-user-fs-pci,chardev=host,tag=host"],
        *["-serial", f"file:{folder / 'console'}", "-serial", f"file:{folder / 'result'}"],
        *["-kernel", str(kernel.image), "-append", parameters],
        *(["-initrd", str(kernel.initramfs)] if kernel.initramfs else []),
    ]


def _share_root(socket: Path) -> subprocess.Popen[bytes]:
    command = [*_NICE, str(VIRTIOFSD), "--socket-path", str(socket), "--shared-dir", "/", "--sandbox", "none"]
    command += ["--cache", "always", "--readonly", "--log-level", "error", "--rlimit-nofile", "0"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while not socket.exists():
        if process.poll() is not None:
            raise NoMachineError(f"virtiofsd ended with {process.returncode}")
        time.sleep(0.01)
    return process


def _kernel_package() -> str:
    """The package with the current kernel, on which Debian's package without a version depends."""
    for _ in range(2):
        for line in output("apt-cache", "depends", KERNEL).splitlines():
            kind, _, package = line.strip().partition(": ")
            if kind == "Depends":
                return package
        output("apt-get", "-q", "update")
    raise NoMachineError(f"{KERNEL} is not among this machine's packages")


def pack(content: Path, target: Path) -> Path:
    """Writes the initramfs with all files of `content` to `target`, which it returns. Raises CalledProcessError."""
    files = "\n".join(str(path.relative_to(content)) for path in content.rglob("*"))
    command = ["busybox", "cpio", "-o", "-H", "newc"]
    made = subprocess.run(command, input=files.encode(), cwd=content, capture_output=True, check=True)
    target.write_bytes(made.stdout)
    return target


def output(*command: str, cwd: str | None = None) -> str:
    """The output of a command. Raises CalledProcessError with its errors."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def _text(path: Path) -> str:
    return path.read_text(errors="replace").replace("\r\n", "\n") if path.exists() else ""
