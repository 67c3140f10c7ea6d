"""Adds the output of `kubectl_gadget.gadgets.build` to the wheel: BPF objects for both architectures, the gadgets,
the texts of all commands, and the agent that is sent to nodes.

An editable install must not compile (the Makefile does), and a machine without clang can still install from a source
distribution, since that contains the build's output. Another one: pip shows a build's messages only if it fails, so a
wheel without the agent, with which no cluster can be traced, is made only if the user asks for it.
"""

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = Path("kubectl_gadget/built")
WITHOUT_AGENT = "KUBECTL_GADGET_WITHOUT_AGENT"


class CatalogueHook(BuildHookInterface[Any]):
    """Runs before hatchling packs a wheel or a source distribution."""

    def dependencies(self) -> list[str]:
        """zig, where libbpf is not built yet: a source distribution has it, and an editable install has no agent."""
        root = Path(self.root)
        sys.path.insert(0, self.root)
        from kubectl_gadget.gadgets import pack_libbpf

        is_built = pack_libbpf.is_built(root / "kubectl_gadget", root / BUILT)
        return [] if is_built else [f"ziglang=={pack_libbpf.ZIG}"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles the catalogue and packs the agent. Ends the build with a one-line message if that fails."""
        if version == "editable":
            return
        root = Path(self.root)
        sys.path.insert(0, self.root)
        from kubectl_gadget.errors import GadgetError
        from kubectl_gadget.gadgets import pack_payload
        from kubectl_gadget.gadgets.build import build
        from kubectl_gadget.gadgets.compiler import find_clang

        try:
            build(root, root / BUILT)
        except GadgetError as error:
            if find_clang() is None and is_built(root):
                return
            self.app.abort(f"kubectl-gadget: {error}" + (f". try: {error.remedy}" if error.remedy else ""))
        from kubectl_gadget.cli.describe import store

        store(root / BUILT / "commands")
        try:
            pack_payload.build(root / "kubectl_gadget", root / BUILT)
        except GadgetError as error:
            if not pack_payload.is_built(root / BUILT) and os.environ.get(WITHOUT_AGENT) != "1":
                remedy = f"{error.remedy}, or " if error.remedy else ""
                self.app.abort(
                    f"kubectl-gadget: the agent for clusters cannot be built: {error}. try: {remedy}{WITHOUT_AGENT}=1 "
                    "in the environment, for a client that traces only this machine (--local)"
                )


def is_built(root: Path) -> bool:
    """Whether every program has its objects for both architectures, and every gadget its schema."""
    built = root / BUILT
    programs = [path.name.removesuffix(".bpf.c") for path in (root / "bpf").glob("*.bpf.c")]
    gadgets = [path.stem for path in (root / "gadgets").glob("*.yaml")]
    wanted = [f"objects/{machine}/{name}.bpf.o" for machine in ("x86_64", "aarch64") for name in programs]
    wanted += [f"gadgets/{name}.json" for name in [*gadgets, "index"]]
    return bool(programs) and all((built / path).is_file() for path in wanted)
