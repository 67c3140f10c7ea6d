"""`python -m kubectl_gadget.gadgets.build`: builds all BPF programs of the source tree to kubectl_gadget/built.

A gadget is built from its C, and from its YAML combined with the object's BTF. Both architectures must agree on the
record and on the variables, since they share one schema.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets import contained_gadgets
from kubectl_gadget.gadgets.btf_layout import BtfLayout
from kubectl_gadget.gadgets.compiler import Inputs, compile_object, read_types, write_json
from kubectl_gadget.gadgets.gadget_yaml import other_columns, read_description, shared_parameters
from kubectl_gadget.gadgets.load import ARCHITECTURES, BUILT, read_gadget
from kubectl_gadget.gadgets.schema import AgentSide, Gadget, RecordLayout, check
from kubectl_gadget.gadgets.source_lines import without_lines


def object_path(built: Path, name: str, architecture: str) -> Path:
    """The path of a gadget's object below `built`."""
    return built / "objects" / architecture / f"{name}.bpf.o"


def schema_path(built: Path, name: str) -> Path:
    """The path of a gadget's JSON below `built`."""
    return built / "gadgets" / f"{name}.json"


def build_objects(source: Path, built: Path, architectures: Sequence[str], inputs: Inputs) -> list[Path]:
    """Compiles `source` for each architecture, unless nothing changed. Returns the objects' paths."""
    name = source.name.removesuffix(".bpf.c")
    targets = [object_path(built, name, architecture) for architecture in architectures]
    for architecture, target in zip(architectures, targets, strict=True):
        if inputs.changed(target, [source]):
            compile_object(source, architecture, target)
            inputs.made(target, [source])
        if not inputs.source_lines and inputs.has_lines(target):
            target.write_bytes(without_lines(target.read_bytes()))
            inputs.removed_lines(target)
    return targets


def build_gadget(description: Path, source: Path, built: Path, architectures: Sequence[str], inputs: Inputs) -> None:
    """Builds a gadget's objects and JSON, unless nothing changed. Raises UsageError, or GadgetError for missing
    tools."""
    read = read_description(description)
    objects = build_objects(source, built, architectures, inputs)
    target = schema_path(built, read.name)
    if not inputs.changed(target, [description, source]):
        return
    layouts = [BtfLayout(read_types(path), str(source)) for path in objects]
    gadget = join(read, str(description), layouts)
    write_json(target, gadget.to_json())
    inputs.made(target, [description, source])


def join(read: Gadget, source: str, layouts: Sequence[BtfLayout], records: Sequence[RecordLayout] = ()) -> Gadget:
    """Combines a gadget's YAML with the layouts of its objects. `source` is used in errors. `records`: one for each
    layout, when the record is not a struct of the object. Raises UsageError when the YAML names something that the
    object does not have."""
    records = records or [layout.record(read.record.struct) for layout in layouts]
    view = read.view and replace(read.view, sent=layouts[0].record(read.view.sent.struct))
    variables = layouts[0].globals()
    for layout, other in zip(layouts[1:], records[1:], strict=True):
        same_sent = view is None or layout.record(view.sent.struct) == view.sent
        if other != records[0] or not same_sent or layout.globals() != variables:
            raise UsageError(f"{source}: the record or the variables differ between architectures")
    _check_programs(read.agent, source, layouts)
    own = {parameter.name for parameter in read.parameters}
    shared = (item for item in shared_parameters() if item.variable in variables and item.name not in own)
    gadget = replace(
        read,
        record=_with_names(records[0], read.record, source),
        view=view,
        columns=(*read.columns, *other_columns(read, {field.name for field in records[0].fields})),
        agent=replace(read.agent, globals=variables),
        parameters=(*read.parameters, *shared),
    )
    check(gadget, source)
    names = {column.name for column in gadget.columns}
    for parameter in read.parameters:
        if parameter.column is not None and parameter.column not in names:
            raise UsageError(f"{source}: parameter {parameter.name} tests {parameter.column}, which is not a column")
    return gadget


def _with_names(record: RecordLayout, described: RecordLayout, source: str) -> RecordLayout:
    """Adds the YAML's names of values, which take precedence over the C code's. Raises UsageError."""
    named = {field.name: field for field in described.fields}
    if wrong := [name for name in named if name not in {field.name for field in record.fields}]:
        raise UsageError(f"{source}: values or flags are of {wrong[0]}, which is not a field of struct {record.struct}")
    fields = (
        replace(field, values=named[field.name].values or field.values, flags=named[field.name].flags)
        if field.name in named
        else field
        for field in record.fields
    )
    return replace(record, fields=tuple(fields))


def _check_programs(agent: AgentSide, source: str, layouts: Sequence[BtfLayout]) -> None:
    of_libraries = [name for item in agent.libraries for names in item.functions.values() for name in names]
    of_choices = [name for choice in agent.programs for names in choice.any_of for name in names]
    for key, names in (("libraries", of_libraries), ("programs", of_choices)):
        for name in names:
            if not all(name in layout.functions() for layout in layouts):
                raise UsageError(f"{source}: {key} names {name}, but the C code has no such function")


# `python -m kubectl_gadget.gadgets.build`: all BPF programs of the source tree to kubectl_gadget/built.


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
            from kubectl_gadget.gadgets import pack_payload  # a user's own gadget is built without it

            pack_payload.build()
    except GadgetError as error:
        sys.stderr.write(f"error: {error}\n")
        if error.remedy:
            sys.stderr.write(f"try: {error.remedy}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
