"""Checks that a gadget is consistent: columns and fields, sums, parameters and variables.

A build checks its result; loading checks gadgets that were built elsewhere, or damaged. Types alone do not say whether
a column can be read, since a typedef may have any size: rows/members.py tries every column of a user's own gadget.
"""

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import NANOSECONDS, Column, Gadget, RecordLayout, owner_source

_MOST_BYTES = 1 << 16
"""The limit for a record's size: texts in it are found by 16-bit offsets."""
_WIDEST = 1000
_DEFAULTS: dict[str, type] = {"bool": bool, "int": int, "duration": int}
"""The Python types of parameters whose values are not texts."""


def check(gadget: Gadget, source: str) -> None:
    """Raises UsageError, which names `source` and the inconsistency."""
    for record in (gadget.record, *([gadget.sent] if gadget.sent else [])):
        _check_record(record, source)
    if not gadget.command or not all(gadget.command):
        raise UsageError(f"{source}: the command is empty")
    names = [column.name for column in gadget.columns]
    words = [*names, *(parameter.name.replace("-", "_") for parameter in gadget.parameters)]
    if wrong := [word for word in words if not word.isascii() or not word.isidentifier()]:
        raise UsageError(f"{source}: {wrong[0]!r} is not a valid name for a column or a parameter")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{source}: column {twice[0]} is defined twice")
    for column in gadget.columns:
        if not 1 <= column.width <= _WIDEST:
            raise UsageError(f"{source}: invalid width {column.width} of column {column.name}: expected 1 to {_WIDEST}")
    _check_columns(gadget, source)
    _check_totals(gadget, source)
    _check_parameters(gadget, source)


def _check_record(record: RecordLayout, source: str) -> None:
    if not 0 < record.size < _MOST_BYTES:
        raise UsageError(f"{source}: struct {record.struct} has {record.size} bytes: expected 1 to {_MOST_BYTES - 1}")
    for field in record.fields:
        if field.size <= 0 or not 0 <= field.offset <= record.size - field.size:
            raise UsageError(
                f"{source}: field {field.name} lies outside of struct {record.struct}:"
                f" {field.size} bytes at {field.offset} of {record.size}"
            )
        if (field.values or field.flags) and (field.size not in (1, 2, 4, 8) or field.type.startswith("char")):
            raise UsageError(f"{source}: field {field.name} has names of values or flags, but is not a number")


def field_of(column: Column) -> str:
    """The field of the record that a column shows."""
    source = owner_source(column.field)
    return source[0] if source else column.field


def _check_columns(gadget: Gadget, source: str) -> None:
    fields = {field.name for field in gadget.record.fields}
    for column in gadget.columns:
        if field_of(column) not in fields:
            raise UsageError(
                f"{source}: column {column.name} shows {column.field}, which is not a field of struct "
                f"{gadget.record.struct}",
                f"one of {', '.join(sorted(fields))}",
            )


def _check_totals(gadget: Gadget, source: str) -> None:
    fields = {field.name for field in gadget.record.fields}
    of_quotients = (name for item in gadget.totals.quotients for name in (item.field, item.of, item.per))
    wanted = {*gadget.totals.sums, *gadget.totals.describes, *of_quotients}
    if missing := sorted(wanted - fields):
        raise UsageError(f"{source}: sums or quotients name {', '.join(missing)}, which is not a field")
    if gadget.totals.weight and gadget.totals.weight not in gadget.totals.sums:
        raise UsageError(f"{source}: weight names {gadget.totals.weight}, which is not among the sums")
    if wrong := sorted(set(gadget.totals.gauges) - set(gadget.totals.sums)):
        raise UsageError(f"{source}: gauges names {wrong[0]}, which is not among the sums")
    names = {column.name for column in gadget.columns}
    for key, wanted_columns in (
        ("sort", gadget.table.sort.replace("-", "").split(",")),
        ("by", gadget.table.by),
        ("narrow", gadget.table.narrow),
    ):
        if wrong := [name for name in wanted_columns if name and name not in names]:
            raise UsageError(f"{source}: {key} names {wrong[0]}, which is not a column")


def _check_parameters(gadget: Gadget, source: str) -> None:
    parameters = {parameter.name for parameter in gadget.parameters}
    for choice in gadget.agent.programs:
        if choice.when and choice.when[0] not in parameters:
            raise UsageError(f"{source}: `when` of programs names {choice.when[0]}, which is not a parameter")
    columns = {column.name for column in gadget.columns}
    for parameter in gadget.parameters:
        if wrong := [name for name in parameter.shows if name not in columns]:
            raise UsageError(f"{source}: parameter {parameter.name} shows {wrong[0]}, which is not a column")
        if parameter.variable and not gadget.agent.globals.keys() >= set(parameter.variables):
            raise UsageError(
                f"{source}: parameter {parameter.name} sets {parameter.variable}, which the C code does not define",
                f"one of {', '.join(sorted(gadget.agent.globals))}",
            )
        if parameter.type in ("int", "duration") and parameter.variable:
            size = gadget.agent.globals[parameter.variable].size
            if size not in (1, 2, 4, 8):
                raise UsageError(
                    f"{source}: {parameter.variable} has {size} bytes, which is not the size of an integer"
                )
        wanted = _DEFAULTS.get(parameter.type, str)
        if parameter.default is not None and type(parameter.default) is not wanted:
            raise UsageError(
                f"{source}: parameter {parameter.name} has the default {parameter.default!r}, which is not of its type"
            )
        if (parameter.type == "duration") != (parameter.unit in NANOSECONDS):
            raise UsageError(
                f"{source}: parameter {parameter.name} has the unit {parameter.unit!r}, which does not fit its type"
            )
