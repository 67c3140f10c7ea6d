"""`python -m kubectl_gadget.gadgets.build`: all BPF programs of the source tree to kubectl_gadget/built.

Then the agent that travels to nodes (pack_payload.py). Programs without a YAML, such as the one that the agent follows
containers with, give an object only. The index is what makes a gadget exist for the command line, so it is
written last, and only when all was built.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets import contained_gadgets, pack_payload
from kubectl_gadget.gadgets.gadget import build_gadget, build_objects, object_path, schema_path
from kubectl_gadget.gadgets.inputs import Inputs, write_json
from kubectl_gadget.gadgets.load import ARCHITECTURES, BUILT, read_gadget

SOURCE_TREE = Path(__file__).parent.parent.parent
_GROUPS = ("files", "processes", "network", "security", "memory")
"""The order of groups in lists; other groups follow by name."""


def build(
    tree: Path = SOURCE_TREE,
    built: Path = BUILT,
    architectures: Sequence[str] = ARCHITECTURES,
    source_lines: bool = False,
) -> list[str]:
    """Builds everything that changed in `tree`. Returns the names of the gadgets. Raises GadgetError.

    With `source_lines`, the verifier's log quotes the C, and objects are twice as large.
    """
    sources = {path.name.removesuffix(".bpf.c"): path for path in sorted((tree / "bpf").glob("*.bpf.c"))}
    descriptions = {path.stem: path for path in sorted((tree / "gadgets").glob("*.yaml"))}
    if not sources:
        raise GadgetError(f"there is nothing to build in {tree}", "run it in the source tree")
    built.mkdir(parents=True, exist_ok=True)
    inputs = Inputs(built, source_lines)
    for name, description in descriptions.items():
        if name not in sources:
            raise UsageError(f"{description} has no program: there is no bpf/{name}.bpf.c")
        build_gadget(description, sources[name], built, architectures, inputs)
    for name, source in sources.items():
        if name not in descriptions:
            build_objects(source, built, architectures, inputs)
    _write_index(built, list(descriptions))
    objects = (object_path(built, name, architecture) for name in sources for architecture in ARCHITECTURES)
    inputs.keep_only([*objects, *(schema_path(built, name) for name in [*descriptions, "index"])])
    return list(descriptions)


def _write_index(built: Path, names: list[str]) -> None:
    gadgets = [read_gadget(schema_path(built, name)) for name in names]

    def place(group: str) -> int:
        return _GROUPS.index(group) if group in _GROUPS else len(_GROUPS)

    write_json(built / contained_gadgets.FILE, contained_gadgets.entries(built, gadgets))
    gadgets.sort(key=lambda gadget: (place(gadget.about.group), gadget.about.group, gadget.command))
    entries = [
        {"name": item.name, "command": item.command, "group": item.about.group, "summary": item.about.summary}
        for item in gadgets
    ]
    write_json(built / "gadgets" / "index.json", entries)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kubectl_gadget.gadgets.build", description=__doc__)
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--source-lines", action="store_true", help="let the verifier's log quote the C")
    options = parser.parse_args(arguments)
    try:
        build(architectures=options.arch, source_lines=options.source_lines)
        if set(options.arch) == set(ARCHITECTURES):
            pack_payload.build()
    except GadgetError as error:
        sys.stderr.write(f"error: {error}\n")
        if error.remedy:
            sys.stderr.write(f"try: {error.remedy}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
