"""Kinds of values of certain gadgets: file system calls, arbitrary system calls, hooks, DNS, HTTP, TLS, states.

They are here and not in the gadget's YAML because a name needs more than a list of numbers: other fields of the record,
which are read by name, the machine's architecture, or a member with the raw number.
"""

import posixpath
import struct
from collections.abc import Callable, Sequence

import numpy as np

from kubectl_gadget.gadgets.schema import UNKNOWN, Field
from kubectl_gadget.linux.names import (
    Namer,
    bpf_command_name,
    bpf_map_type_name,
    bpf_program_type_name,
    device_number_text,
    errno_name,
    file_type_name,
    fsnotify_mask_names,
    lsm_argument_texts,
    mount_flag_names,
    open_flag_names,
    prctl_option_name,
    protection_text,
    ptrace_request_name,
    signal_code_name,
    socket_state_name,
    task_state_name,
)
from kubectl_gadget.linux.syscalls import ARGUMENTS, KILLED, Data, argument_texts, result_text, syscall_name
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.kinds import (
    NUMBER,
    UNREAD,
    Kind,
    Member,
    addresses,
    coded,
    fixed_texts,
    join_path,
    known,
    known_numbers,
    maybe,
    numbers,
    paths,
    quote,
    single,
    some_texts,
    span_texts,
    spelt_with_raw,
    text_kind,
    with_raw,
)
from kubectl_gadget.rows.texts import CodedMarks, CodedTexts, FixedTexts, Inputs, Nulls, SpeltTexts, TextLists, Texts
from kubectl_gadget.rows.vectors import Numbers, SomeNumbers

# Names for the numeric codes of DNS, gRPC (https://grpc.io/docs/guides/status-codes/) and TLS.


_OWN_RCODES = {-1: "NOANSWER", -2: "MALFORMED"}
_DNS_FLAGS = (
    (0x8000, "qr"),
    (0x0400, "aa"),
    (0x0200, "tc"),
    (0x0100, "rd"),
    (0x0080, "ra"),
    (0x0020, "ad"),
    (0x0010, "cd"),
)
_DNS_OPCODES = {1: "iquery", 2: "status", 4: "notify", 5: "update"}
grpc_status_name = Namer(
    (
        *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
        *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
        *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
    )
)
"""`NOT_FOUND` for 5"""
_TLS_VERSIONS = {0x0300: "SSL3", 0x0301: "TLS1.0", 0x0302: "TLS1.1", 0x0303: "TLS1.2", 0x0304: "TLS1.3"}


def dns_type_name(number: int) -> str:
    """`A`, `HTTPS`, `TYPE65534`; empty for 0, which no DNS record has."""
    from dns import rdatatype

    return rdatatype.to_text(rdatatype.RdataType.make(number)) if number else ""


def dns_rcode_name(number: int) -> str:
    """`NOERROR`, `NXDOMAIN`, `NOANSWER`, …"""
    if number in _OWN_RCODES:
        return _OWN_RCODES[number]
    from dns import rcode

    return rcode.to_text(rcode.Rcode(number)) if 0 <= number < 4096 else str(number)


def dns_rcode(name: str) -> int:
    """The number for a name returned by dns_rcode_name(); 0 for our own codes."""
    from dns import rcode

    return 0 if name in _OWN_RCODES.values() else int(rcode.from_text(name))


def dns_flag_names(flags: int) -> str:
    """`qr rd ra`, as in dig; an opcode other than QUERY comes first."""
    opcode = flags >> 11 & 15
    names = [_DNS_OPCODES.get(opcode, f"opcode{opcode}")] if opcode else []
    return " ".join(names + [name for bit, name in _DNS_FLAGS if flags & bit])


def tls_version_name(number: int) -> str:
    """`TLS1.3`; the number in hex if no version has it."""
    return _TLS_VERSIONS.get(number, f"0x{number:04x}" if number else "")


# The kinds.


NO_OPEN_FLAGS = 0xFFFFFFFF
"""The file's open flags were not read, or could not be read."""
_DIFFERS_FLAGS = 1
"""DIFFERS_FLAGS of bpf/trace_open.bpf.c: the access mode differs."""


def _show_fd(batch: Batch, field: Field) -> list[str]:
    return [str(fd) if fd >= 0 else "-" for fd in batch.raw(field).tolist()]


def _errors(batch: Batch, field: Field) -> CodedTexts:
    return coded(batch, field, lambda number: errno_name(number) if number else "")


def _error_kind(read: Callable[[Batch, Field], Numbers], spell: Callable[[Batch, Field], Texts]) -> Kind:
    return Kind(
        lambda column, field: (
            Member(column, "int", lambda batch: read(batch, field)),
            Member(
                "error" if column == "errno" else f"{column}_name",
                "text",
                lambda batch: spell(batch, field),
                names=errno_name.names,
            ),
        ),
        lambda batch, field: ["?" if text is None else text or "0" for text in spell(batch, field).texts()],
        alarm=True,
    )


def _known_open_flags(batch: Batch, field: Field) -> Texts:
    return some_texts(batch.raw(field) != NO_OPEN_FLAGS, batch, lambda: _open_flags(batch, field))


def _open_differs(batch: Batch, field: Field) -> Texts:
    """For rows with the actual open flags: where they differ from the flags and path in the program's memory."""
    opened = batch.raw("opened_flags") != NO_OPEN_FLAGS
    if not opened.any():
        return Nulls(len(batch))

    def spell() -> list[str | None]:
        written = span_texts(batch, batch.gadget.record.field("path")).texts()
        resolved = paths(batch, batch.gadget.record.field("resolved")).texts()
        rows = zip(batch.raw(field).tolist(), written, resolved, opened.tolist(), strict=True)
        return [open_differences(flags, path, found) if known else None for flags, path, found, known in rows]

    def differ(bits: int, written: str | None, chain: str | None, is_cut: bool, known: bool) -> str | None:
        return open_differences(bits, written, join_path(chain, is_cut)) if known else None

    wanted = batch.gadget.record.field("resolved")
    written = span_texts(batch, batch.gadget.record.field("path"))
    inputs: Inputs = [batch.raw(field), written, span_texts(batch, wanted), batch.spans(wanted).cut, opened]
    return SpeltTexts(spell, inputs, differ)


def _open_flags(batch: Batch, field: Field) -> CodedTexts:
    return coded(batch, field, lambda flags: open_flag_names(flags, batch.architecture))


def _open_flag_numbers(batch: Batch, field: Field) -> SomeNumbers:
    return SomeNumbers(batch.raw(field), batch.raw(field) != NO_OPEN_FLAGS)


def open_differences(bits: int, written: str | None, resolved: str | None) -> str:
    """Return the difference: "", "path", "flags" or "path|flags". A path that could not be read does not differ."""
    names = []
    if written is not None and resolved is not None and not _is_same(written, resolved):
        names.append("path")
    if bits & _DIFFERS_FLAGS:
        names.append("flags")
    return "|".join(names)


def _is_same(written: str, resolved: str) -> bool:
    """True if `resolved` is `written` without links. A relative path must be the end of `resolved`."""
    if resolved.startswith("…"):
        # The upper part of the path is missing.
        return posixpath.basename(posixpath.normpath(written)) in ("", ".", "..", posixpath.basename(resolved))
    if written.startswith("/"):
        # normpath keeps two leading slashes.
        return posixpath.normpath(written).replace("//", "/") == resolved
    names = [name for name in posixpath.normpath(written).split("/") if name not in (".", "..")]
    return not names or f"{resolved}/".endswith("/" + "/".join(names) + "/")


FILE_KINDS: dict[str, Kind] = {
    "gadget_fd": Kind(NUMBER.members, _show_fd),
    "gadget_errno": _error_kind(numbers, _errors),
    "gadget_known_errno": _error_kind(  # null for -1, since the kernel does not report every result of io_uring
        lambda batch, field: SomeNumbers(batch.raw(field), batch.raw(field) >= 0),
        lambda batch, field: some_texts(batch.raw(field) >= 0, batch, lambda: _errors(batch, field)),
    ),
    "gadget_open_flags": with_raw(_open_flags),
    "gadget_known_open_flags": with_raw(_known_open_flags, UNREAD, _open_flag_numbers),
    "gadget_asked_open_flags": with_raw(_known_open_flags, UNREAD, _open_flag_numbers),
    "gadget_open_differs": text_kind(_open_differs),
    "gadget_mode": with_raw(lambda batch, field: coded(batch, field, lambda mode: f"{mode:04o}")),
    "gadget_new_mode": with_raw(
        lambda batch, field: coded(batch, field, lambda mode: "" if mode == UNKNOWN else f"{mode:04o}"),
        UNREAD,
        known_numbers,
    ),
    "gadget_new_owner": known(str),
    "gadget_mount_flags": with_raw(
        lambda batch, field: coded(batch, field, mount_flag_names),
        UNREAD,
        lambda batch, field: Numbers(batch.raw(field) & np.uint64(0xFFFFFFFF)),
    ),
    "gadget_exit_code": Kind(NUMBER.members, _show_fd),
    "gadget_fsnotify_mask": spelt_with_raw(fsnotify_mask_names, none="-"),
    "gadget_file_type": spelt_with_raw(file_type_name, none=UNREAD),
    "gadget_protection": spelt_with_raw(protection_text, none=UNREAD),
    "gadget_file_id": text_kind(
        lambda batch, field: Texts(lambda: [f"{number:x}" for number in batch.raw(field).tolist()], len(batch))
    ),
    "gadget_device_number": spelt_with_raw(device_number_text),
}


# Arbitrary system calls: name, arguments, result. The fields must be named `syscall`, `result` and `arguments`
# (bpf/trace_syscalls.bpf.c). Note: decode() does not check the positions of the arguments' texts, since they are
# in a nested struct.


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
    """Arguments as texts; null where there is no call. A record without results is of calls in progress."""
    numbers = batch.raw("syscall").tolist()
    results: Sequence[int | None] = [None] * len(batch)
    if any(other.name == "result" for other in batch.gadget.record.fields):
        results = syscall_results(batch, batch.gadget.record.field("result")).values()
    return TextLists(
        [
            None if number < 0 else argument_texts(batch.architecture, number, result, values, data)
            for number, result, (values, data) in zip(numbers, results, read_arguments(batch, field), strict=True)
        ]
    )


def raw_arguments(batch: Batch, field: Field) -> TextLists:
    """All six argument registers, in hex because many JSON readers do not preserve 64-bit numbers."""
    numbers = batch.raw("syscall").tolist()
    rows = zip(numbers, read_arguments(batch, field), strict=True)
    return TextLists([None if number < 0 else [hex(value) for value in values] for number, (values, _) in rows])


def show_arguments(batch: Batch, field: Field) -> list[str]:
    return [UNREAD if items is None else ", ".join(items) for items in syscall_arguments(batch, field).lists]


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


# One gadget or one protocol each.


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
