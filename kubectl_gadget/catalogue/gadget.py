"""Builds one gadget: compiles its C, and joins what its YAML says with what the object's BTF says.

The trap: the two architectures must agree on the record and on the variables, since there is one schema for both.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kubectl_gadget.catalogue.compiler import compile_object, read_types
from kubectl_gadget.catalogue.consistency import check, field_of
from kubectl_gadget.catalogue.description import Description, read_description, shared_columns, shared_parameters
from kubectl_gadget.catalogue.inputs import Inputs
from kubectl_gadget.catalogue.layout import Layout
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import Column, Gadget, Record


def object_path(built: Path, name: str, architecture: str) -> Path:
    """Where the object of a gadget lies below `built`."""
    return built / "objects" / architecture / f"{name}.bpf.o"


def schema_path(built: Path, name: str) -> Path:
    """Where the gadget's JSON lies below `built`."""
    return built / "gadgets" / f"{name}.json"


def build_objects(source: Path, built: Path, architectures: Sequence[str], inputs: Inputs) -> list[Path]:
    """Compiles `source` for each architecture, unless nothing changed. Returns the objects' paths."""
    name = source.name.removesuffix(".bpf.c")
    targets = [object_path(built, name, architecture) for architecture in architectures]
    for architecture, target in zip(architectures, targets, strict=True):
        if inputs.changed(target, [source]):
            compile_object(source, architecture, target)
            inputs.made(target, [source])
    return targets


def build_gadget(description: Path, source: Path, built: Path, architectures: Sequence[str], inputs: Inputs) -> None:
    """Objects and JSON of one gadget, unless nothing changed. Raises UsageError, or GadgetError for missing tools."""
    read = read_description(description)
    objects = build_objects(source, built, architectures, inputs)
    target = schema_path(built, read.name)
    if not inputs.changed(target, [description, source]):
        return
    layouts = [Layout(read_types(path), str(source)) for path in objects]
    gadget = join(read, layouts)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(gadget.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    inputs.made(target, [description, source])


def join(read: Description, layouts: Sequence[Layout], records: Sequence[Record] = ()) -> Gadget:
    """The whole gadget. Raises UsageError when the YAML names what the object has not got. `records`: of each layout
    the record, where it is no struct of the object."""
    records = records or [layout.record(read.record) for layout in layouts]
    record = _with_names(read, records[0])
    sent = layouts[0].record(read.sent) if read.sent else None
    variables = layouts[0].globals()
    for layout, other in zip(layouts[1:], records[1:], strict=True):
        same_sent = sent is None or layout.record(read.sent) == sent
        if other != records[0] or not same_sent or layout.globals() != variables:
            raise UsageError(f"{read.path}: the record or the variables differ between architectures")
    _check_programs(read, layouts)
    columns = _columns_of(read, record)
    own = {parameter.name for parameter in read.parameters}
    shared = [item for item in shared_parameters() if item.variable in variables and item.name not in own]
    gadget = Gadget(
        name=read.name,
        command=read.command,
        group=read.group,
        summary=read.summary,
        description=read.description,
        record=record,
        columns=columns,
        programs=read.programs,
        globals=variables,
        parameters=(*read.parameters, *shared),
        examples=read.examples,
        view=read.view,
        sent=sent,
        kind=read.kind,
        sort=read.sort,
        sums=read.sums,
        gauges=read.gauges,
        describes=read.describes,
        quotients=read.quotients,
        gauge=read.gauge,
        weight=read.weight,
        histogram=read.histogram,
        by=read.by,
        narrow=read.narrow,
        whole_nodes=read.whole_nodes,
        shows_contents=read.shows_contents,
        tree=read.tree,
        libraries=read.libraries,
        sampler=read.sampler,
    )
    check(gadget, str(read.path))
    names = {column.name for column in columns}
    for parameter in read.parameters:
        if parameter.column is not None and parameter.column not in names:
            raise UsageError(f"{read.path}: parameter {parameter.name} tests {parameter.column}, which is not a column")
    return gadget


def _with_names(read: Description, record: Record) -> Record:
    """With the names that the YAML gives to numbers, which come before those of the C. Raises UsageError."""
    known = {field.name for field in record.fields}
    for name in (*read.values, *read.flags):
        if name not in known:
            raise UsageError(
                f"{read.path}: values or flags are of {name}, which is not a field of struct {record.struct}"
            )
    fields = (
        replace(field, values=read.values.get(field.name, field.values), flags=read.flags.get(field.name, ()))
        for field in record.fields
    )
    return replace(record, fields=tuple(fields))


def _check_programs(read: Description, layouts: Sequence[Layout]) -> None:
    for name in (name for item in read.libraries for names in item.functions.values() for name in names):
        if not all(name in layout.functions() for layout in layouts):
            raise UsageError(f"{read.path}: libraries names {name}, and the C has no such function")
    for name in (name for choice in read.programs for names in choice.any_of for name in names):
        if not all(name in layout.functions() for layout in layouts):
            raise UsageError(f"{read.path}: programs names {name}, and the C has no such function")


def _columns_of(read: Description, record: Record) -> tuple[Column, ...]:
    """Without those of every gadget that a total has not got, which begins with no gadget_record."""
    shared = {column.name for column in shared_columns()} - set(read.named)
    fields = {field.name for field in record.fields}
    if read.kind not in ("top", "profile"):
        return read.columns
    return tuple(column for column in read.columns if column.name not in shared or field_of(column) in fields)
