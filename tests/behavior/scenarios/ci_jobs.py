"""Ten jobs of CI, as users have them: each builds, tests or installs something small with real tools.

jobs/NAME has the files of a job: it runs job.sh, and before.sh has made what it needs. Each run begins in an empty
folder with an empty home, as on a new runner. What a job takes from the network comes from PyPI, npm's registry and
Debian's archive. Note: as far as its author can see, a job does the same each time; what its tools do by chance is
what is measured.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.behavior.scenarios.image import CACHE
from tests.gadget_run import GADGET, PROJECT

_FILES = Path(__file__).with_name("jobs")
_SECONDS = 400
_PATH = f"{Path.home()}/.cargo/bin:/usr/lib/go-1.24/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Job:
    """One job."""

    name: str
    about: str
    needs: tuple[str, ...]
    """the programs without which it cannot run here"""

    @property
    def missing(self) -> list[str]:
        return [name for name in self.needs if shutil.which(name, path=_PATH) is None]


JOBS = (
    Job("pip", "a venv, an sdist that is built and installed, pytest", ("python3",)),
    Job("npm", "npm install, the TypeScript compiler, node --test", ("npm",)),
    Job("cargo", "a workspace with a build script, LTO, tests", ("cargo",)),
    Job("make", "two jobs of make with gcc, ar, strip, sed -i, install", ("make", "cc")),
    Job("go", "go vet, build and test, with an empty cache", ("go",)),
    Job("java", "javac, jar, java, and Maven offline", ("javac", "jar", "mvn")),
    Job("image", "a root file system by mmdebstrap, as an OCI image", ("mmdebstrap",)),
    Job("apt", "apt-get install of git in a root file system", ("mmdebstrap",)),
    Job("pytest", "33 tests with files, SQLite, sockets and programs, with and without xdist", ("python3",)),
    Job("browser", "headless Chromium: the text of a page, a screenshot", ("chromium-headless-shell", "python3")),
)


def run_job(job: Job, recording: Path) -> None:
    """Run a job once, in the same new folder each time, and record it. Raises CalledProcessError."""
    folder = CACHE / "job"
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)
    source, home = folder / "src", folder / "home"
    home.mkdir(parents=True)
    shutil.copytree(_FILES / job.name, source)
    environment = {
        "PATH": _PATH,
        "HOME": str(home),
        "CACHE": str(CACHE),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
        "GOTOOLCHAIN": "local",
        "LANG": "C.UTF-8",
    }
    if (source / "before.sh").exists():
        _run(["sh", "before.sh"], source, environment)
    record = ["ci", "run", "--local", "--facts", "--record", str(recording.absolute())]
    command = ["env", "-u", "PYTHONPATH", "sh", "job.sh"]
    _run([*GADGET, *record, "--", *command], source, environment | {"PYTHONPATH": str(PROJECT)})


def _run(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    subprocess.run(command, cwd=folder, env=environment, timeout=_SECONDS, check=True)
