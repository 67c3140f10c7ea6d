"""Kinds that belong to one gadget or one protocol: arguments of calls and hooks, DNS, HTTP, TLS, states.

They are here and not in the gadget's YAML because a name needs more than a list of numbers: other fields of the record,
the machine's architecture, or a member with the raw number. The trap: some read other fields of their record by name.
"""

import numpy as np

from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.linux.bpf import bpf_command_name, bpf_map_type_name, bpf_program_type_name, lsm_argument_texts
from kubectl_gadget.linux.processes import (
    prctl_option_name,
    ptrace_request_name,
    signal_code_name,
    socket_state_name,
    task_state_name,
)
from kubectl_gadget.linux.syscalls import KILLED, syscall_name
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.kind import (
    UNREAD,
    Kind,
    Member,
    coded,
    known,
    known_numbers,
    maybe,
    single,
    spelt_with_raw,
    text_kind,
    with_raw,
)
from kubectl_gadget.rows.columns.syscall_columns import (
    raw_arguments,
    show_arguments,
    show_results,
    syscall_arguments,
    syscall_results,
)
from kubectl_gadget.rows.columns.text_kinds import addresses, fixed_texts, paths, quote, span_texts
from kubectl_gadget.rows.columns.texts import CodedMarks, CodedTexts, FixedTexts, Texts
from kubectl_gadget.rows.protocol_names import (
    dns_flag_names,
    dns_rcode_name,
    dns_type_name,
    grpc_status_name,
    tls_version_name,
)
from kubectl_gadget.rows.vectors import SomeNumbers

_MARK_COMPAT, _MARK_X32 = 2, 4


def _in_syscall(batch: Batch, field: Field) -> CodedTexts:
    return coded(batch, field, lambda number: syscall_name(number, batch.architecture))


def _recorded_syscall(batch: Batch, field: Field) -> CodedTexts:
    """Names of recorded calls; entries that are not calls are marked as in strace."""
    return coded(batch, field, lambda number: "+++" if number == KILLED else syscall_name(number, batch.architecture))


def _abis(batch: Batch, field: Field) -> CodedMarks:
    """The ABI of a system call that is not the 64-bit one (GADGET_MARK_… of record.h)."""
    of_compat = "arm32" if batch.architecture == "aarch64" else "i386"
    marks = batch.raw(field)
    codes = np.where(marks & _MARK_COMPAT, np.where(marks & _MARK_X32, 2, 1), 0)
    return CodedMarks(codes, [None, of_compat, "x32"] if codes.any() else [None])


def _lsm_arguments(batch: Batch, field: Field) -> Texts:
    """Arguments of an LSM hook. Their meaning depends on the record's field `hook`; this field is their count."""

    def spell() -> list[str | None]:
        hooks = FixedTexts(batch.raw("hook")).texts()
        values = zip(*(batch.raw(f"argument_{place}").tolist() for place in (1, 2, 3)), strict=True)
        counts = batch.raw(field).tolist()
        rows = zip(hooks, values, counts, strict=True)
        return [lsm_argument_texts(hook or "", row[:count], batch.architecture) for hook, row, count in rows]

    return Texts(spell, len(batch))


def _signal_codes(batch: Batch, field: Field) -> CodedTexts:
    """Names of signal codes, which depend on the record's field `signal`."""
    pairs = np.stack([batch.raw("signal"), batch.raw(field)], axis=1)
    found, codes = np.unique(pairs.astype(np.int64), axis=0, return_inverse=True)
    return CodedTexts(codes.ravel(), [signal_code_name(signal, code) for signal, code in found.tolist()] or [""])


def _user_addresses(batch: Batch, field: Field) -> Texts:
    """Addresses of memory in a process; null for 0."""
    return Texts(lambda: [hex(address) if address else None for address in batch.raw(field).tolist()], len(batch))


def _read_numbers(batch: Batch, field: Field) -> SomeNumbers:
    numbers = batch.raw(field)
    return SomeNumbers(numbers, numbers != np.uint32(0xFFFFFFFF))


def _grpc_statuses(batch: Batch, field: Field) -> Texts:
    numbers = known_numbers(batch, field).values()
    return Texts(lambda: [None if number is None else grpc_status_name(number) for number in numbers], len(batch))


def _show_lsm_arguments(batch: Batch, field: Field) -> list[str]:
    """The hook's arguments with its further values, which have their own fields in other formats."""
    record = batch.gadget.record
    parts = [_lsm_arguments(batch, field).texts()]
    ends = zip(addresses(batch, record.field("address")).texts(), batch.raw("port").tolist(), strict=True)
    parts.append([address and f"address={address} port={port}" for address, port in ends])
    for name, read in (("name", span_texts), ("file_system", span_texts), ("to", paths)):
        texts = read(batch, record.field(name)).texts()
        parts.append([None if text is None else f"{name}={quote(text)}" for text in texts])
    targets = zip(
        batch.raw("target_pid").tolist(), fixed_texts(batch, record.field("target_comm")).texts(), strict=True
    )
    parts.append([f"target={pid} ({comm})" if pid else None for pid, comm in targets])
    return [" ".join(filter(None, row)) or "-" for row in zip(*parts, strict=True)]


GADGET_KINDS: dict[str, Kind] = {
    "gadget_signal_code": with_raw(_signal_codes),
    "gadget_signal_target": maybe(lambda batch, field: SomeNumbers(batch.raw(field), batch.raw(field) != -(1 << 31))),
    "gadget_in_syscall": with_raw(_in_syscall, none=UNREAD),
    "gadget_lsm_arguments": single("text", _lsm_arguments, _show_lsm_arguments),
    "gadget_marks": text_kind(_abis, optional=True),
    "gadget_bpf_command": spelt_with_raw(bpf_command_name),
    "gadget_bpf_program_type": spelt_with_raw(bpf_program_type_name, none="-"),
    "gadget_bpf_map_type": spelt_with_raw(bpf_map_type_name, none="-"),
    "gadget_ptrace_request": spelt_with_raw(ptrace_request_name, none="-"),
    "gadget_prctl_option": spelt_with_raw(prctl_option_name, none="-"),
    "gadget_read_number": maybe(_read_numbers),
    "gadget_dns_type": spelt_with_raw(dns_type_name, none="-"),
    "gadget_dns_rcode": spelt_with_raw(dns_rcode_name),
    "gadget_dns_flags": spelt_with_raw(dns_flag_names),
    "gadget_http_status": single(
        "int",
        _read_numbers,
        lambda batch, field: [str(number) if number else "-" for number in _read_numbers(batch, field).values()],
    ),
    "gadget_grpc_status": with_raw(_grpc_statuses, UNREAD, known_numbers, grpc_status_name.names),
    "gadget_tls_version": spelt_with_raw(tls_version_name, none="-"),
    "gadget_millicores": known(lambda millicores: f"{millicores}m"),
    "gadget_task_state": spelt_with_raw(task_state_name),
    "gadget_socket_state": spelt_with_raw(socket_state_name),
    "gadget_syscall": with_raw(_recorded_syscall),
    "gadget_syscall_result": single("int", syscall_results, show_results),
    "gadget_syscall_arguments": Kind(
        lambda column, field: (
            Member(column, "texts", lambda batch: syscall_arguments(batch, field)),
            Member(f"{column}_raw", "texts", lambda batch: raw_arguments(batch, field)),
        ),
        show_arguments,
    ),
    "gadget_user_address": text_kind(_user_addresses),
}
