"""Puts what `kubectl_gadget.catalogue.build` compiles into the wheel: BPF objects for both architectures and the
gadgets.

The trap: an editable install must not compile (the Makefile does, and only what has changed), and a machine without
clang can still install from a source distribution, since that carries what was built.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = Path("kubectl_gadget/built")
NO_CLANG = (
    "kubectl-gadget: clang is missing, and it compiles the BPF programs. "
    "try: apt-get install clang-19 llvm-19 bpftool libbpf-dev"
)
CLANGS = ["clang-19", "clang", "clang-20", "clang-18", "clang-17"]


class CatalogueHook(BuildHookInterface[Any]):
    """Runs before hatchling packs a wheel or a source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles the catalogue. Ends the build with one line when that cannot be done."""
        if version == "editable":
            return
        root = Path(self.root)
        if any(shutil.which(clang) for clang in CLANGS):
            self._compile(root)
        elif not is_built(root):
            self.app.abort(NO_CLANG)

    def _compile(self, root: Path) -> None:
        command = [sys.executable, "-m", "kubectl_gadget.catalogue.build"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            self.app.abort(f"kubectl-gadget: the BPF programs did not compile: {(done.stderr or done.stdout).strip()}")


def is_built(root: Path) -> bool:
    """Whether every gadget has its schema and its objects for both architectures."""
    built = root / BUILT
    names = [path.stem for path in (root / "gadgets").glob("*.yaml")]
    return bool(names) and all(
        (built / "gadgets" / f"{name}.json").is_file()
        and all((built / "objects" / arch / f"{name}.bpf.o").is_file() for arch in ("x86_64", "aarch64"))
        for name in names
    )
