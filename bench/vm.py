"""Runs a benchmark in a virtual machine with Debian's kernel and headers, where bcc's tools and kprobes work.

Without KVM every instruction is emulated, so only ratios are meaningful; and the kernel's headers are in two packages,
but bcc takes one folder.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from tests.vm import machine

_SECONDS = 3600.0
_JSON = "JSON: "


def again(options: Namespace) -> None:
    """Repeats this process's command in the virtual machine, prints its output, and writes its JSON."""
    words = ["--emulated" if word == "--vm" else word for word in sys.orig_argv[1:]]
    if not any(word.startswith("--rounds") for word in words):
        words += ["--rounds", "1"]
    if options.json is not None:
        place = next(place for place, word in enumerate(words) if word.startswith("--json"))
        del words[place : place + (1 if "=" in words[place] else 2)]
    command = " ".join(f"'{word}'" for word in [sys.executable, *words])
    try:
        script = f"""
export BCC_KERNEL_SOURCE={headers()}
mount -t debugfs nodev /sys/kernel/debug
{command} --json /tmp/results.json >/dev/ttyS1 2>/tmp/errors
tail -20 /tmp/errors
test -f /tmp/results.json && {{ printf '%s' '{_JSON}'; tr -d '\\n' </tmp/results.json; echo; }} >/dev/ttyS1
"""
        run = machine.run(script, _SECONDS)
    except machine.NoMachineError as reason:
        raise SystemExit(f"no virtual machine can run here: {reason}") from None
    except TimeoutError as late:
        raise SystemExit(f"{late}\ntry: fewer with --count, or --only") from None
    shown, found, results = run.result.partition(_JSON)
    print(shown)
    if not found:
        raise SystemExit(f"the measurement failed in the virtual machine:\n{run.console}")
    if options.json is not None:
        options.json.write_text(json.dumps(json.loads(results), indent=1) + "\n")


def headers() -> Path:
    """The headers of the virtual machine's kernel in one folder, as bcc's BCC_KERNEL_SOURCE expects; downloaded once.

    Raises NoMachineError.
    """
    release = machine.kernel().name.removeprefix("vmlinuz-")
    folder = machine.CACHE / f"headers-{release}"
    with machine.one_downloads():
        if not folder.is_dir():
            _download(release, folder)
    return folder


def _download(release: str, folder: Path) -> None:
    common = re.sub(r"-cloud-amd64$", "-common", release)
    try:
        with tempfile.TemporaryDirectory(dir=machine.CACHE) as name:
            _run("apt-get", "download", f"linux-headers-{release}", f"linux-headers-{common}", cwd=name)
            for deb in Path(name).glob("*.deb"):
                _run("dpkg", "-x", str(deb), str(Path(name) / "root"), cwd=name)
            merged = Path(name) / "merged"
            for part in (common, release):
                source = Path(name) / "root" / "usr" / "src" / f"linux-headers-{part}"
                for below in ("include", "arch"):
                    shutil.copytree(source / below, merged / below, symlinks=True, dirs_exist_ok=True)
            merged.rename(folder)
    except subprocess.CalledProcessError as error:
        raise machine.NoMachineError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error


def _run(*command: str, cwd: str) -> None:
    subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
