"""Columns of gadgets that show arbitrary system calls: name, arguments, result.

They read several fields of the record together, which must be named `syscall`, `result` and `arguments`
(bpf/trace_syscalls.bpf.c). The trap: decode() does not check the positions of the arguments' texts, since they are in a
nested struct.
"""

import struct
from collections.abc import Sequence

from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.linux.syscalls import ARGUMENTS, Data, argument_texts, result_text
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.texts import TextLists
from kubectl_gadget.rows.vectors import SomeNumbers

_NEVER = -(1 << 63)
"""The result of a call that does not return."""
_ARGUMENTS = struct.Struct(f"<{ARGUMENTS}Q{ARGUMENTS * 2}H")
_LENGTH = 0x7FFF


def syscall_results(batch: Batch, field: Field) -> SomeNumbers:
    """Return values as in the kernel: errors are negative. Null for calls that do not return."""
    found = batch.raw(field)
    return SomeNumbers(found, found != _NEVER)


def show_results(batch: Batch, field: Field) -> list[str]:
    """Results for tables: addresses in hex, and an empty text for errors, which have their own column."""
    numbers = batch.raw("syscall").tolist()
    results = syscall_results(batch, field).values()
    return [result_text(batch.architecture, *pair) for pair in zip(numbers, results, strict=True)]


def syscall_arguments(batch: Batch, field: Field) -> TextLists:
    numbers = batch.raw("syscall").tolist()
    results = syscall_results(batch, batch.gadget.record.field("result")).values()
    return TextLists(
        [
            argument_texts(batch.architecture, number, result, values, data)
            for number, result, (values, data) in zip(numbers, results, read_arguments(batch, field), strict=True)
        ]
    )


def raw_arguments(batch: Batch, field: Field) -> TextLists:
    """All six argument registers, in hex because many JSON readers do not preserve 64-bit numbers."""
    return TextLists([[hex(value) for value in values] for values, _ in read_arguments(batch, field)])


def show_arguments(batch: Batch, field: Field) -> list[str]:
    return [", ".join(items or []) for items in syscall_arguments(batch, field).lists]


def read_arguments(batch: Batch, field: Field) -> list[tuple[Sequence[int], Sequence[Data]]]:
    """All six argument registers, and the data that was read for each of them."""
    buffer = batch.buffer.bytes.data
    found: list[tuple[Sequence[int], Sequence[Data]]] = []
    for start in batch.starts.tolist():
        numbers = _ARGUMENTS.unpack_from(buffer, start + field.offset)
        texts = numbers[ARGUMENTS:]
        found.append(
            (
                numbers[:ARGUMENTS],
                [_data(buffer, start, texts[i], texts[i + 1]) for i in range(0, 2 * ARGUMENTS, 2)],
            )
        )
    return found


def _data(buffer: memoryview, start: int, offset: int, length: int) -> Data:
    return bytes(buffer[start + offset : start + offset + (length & _LENGTH)]) if offset else None
