"""Kinds of values that file system calls have: descriptors, errors, open flags, modes. Many gadgets share them.

The traps: -1 as a descriptor or as an error is no value; it means none or unknown. Path and flags of an open are read
from the program's memory after the call, when a hostile program may have rewritten them; but a symbolic link, a bind
mount or /proc/self also makes a path differ, so a difference does not prove that.
"""

import posixpath
from collections.abc import Callable

import numpy as np

from kubectl_gadget.gadgets.schema import UNKNOWN, Field
from kubectl_gadget.linux.files import errno_name, fsnotify_mask_names, mount_flag_names, open_flag_names
from kubectl_gadget.linux.processes import device_number_text, file_type_name, protection_text
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.kind import (
    NUMBER,
    UNREAD,
    Kind,
    Member,
    coded,
    known,
    known_numbers,
    numbers,
    some_texts,
    spelt_with_raw,
    text_kind,
    with_raw,
)
from kubectl_gadget.rows.columns.text_kinds import join_path, paths, span_texts
from kubectl_gadget.rows.columns.texts import CodedTexts, Inputs, Nulls, SpeltTexts, Texts
from kubectl_gadget.rows.vectors import Numbers, SomeNumbers

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
    """What differs: "", "path", "flags" or "path|flags". A path that could not be read does not differ."""
    names = []
    if written is not None and resolved is not None and not _is_same(written, resolved):
        names.append("path")
    if bits & _DIFFERS_FLAGS:
        names.append("flags")
    return "|".join(names)


def _is_same(written: str, resolved: str) -> bool:
    """Whether `resolved` is `written` without links. A relative path must be the end of `resolved`."""
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
