"""Kinds of values that file system calls have: descriptors, errors, open flags, modes. Many gadgets share them.

The trap: -1 as a descriptor or as an error is not a value; it means none or unknown.
"""

import numpy as np

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.columns.kind import (
    UNREAD,
    Kind,
    Member,
    coded,
    known,
    number_member,
    some_texts,
    spelt_member,
    spelt_with_raw,
    texts_of,
    with_raw,
)
from kubectl_gadget.events.columns.open_differences import open_differences
from kubectl_gadget.events.columns.text_kinds import join_path, paths, span_texts
from kubectl_gadget.events.columns.texts import CodedTexts, Inputs, Nulls, SpeltTexts, Texts
from kubectl_gadget.events.linux.errno_and_open import errno_name, open_flag_names
from kubectl_gadget.events.linux.fsnotify import fsnotify_mask_names
from kubectl_gadget.events.linux.mount import mount_flag_names
from kubectl_gadget.events.linux.object_states import device_number_text, file_type_name, protection_text
from kubectl_gadget.events.schema import Field
from kubectl_gadget.events.vectors import UNKNOWN, KnownNumbers, Numbers, SomeNumbers

NO_OPEN_FLAGS = 0xFFFFFFFF
"""The file's open flags were not read, or could not be read."""


def _show_fd(batch: Batch, field: Field) -> list[str]:
    return [str(fd) if fd >= 0 else "-" for fd in batch.raw(field).tolist()]


def _errors(batch: Batch, field: Field) -> CodedTexts:
    return coded(batch, field, lambda number: errno_name(number) if number else "")


def _known_errors(batch: Batch, field: Field) -> Texts:
    """Errors; null for -1, since the kernel does not report every result of io_uring."""
    return some_texts(batch.raw(field) >= 0, batch, lambda: _errors(batch, field))


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


def _maybe_open_flags() -> Kind:
    def number(batch: Batch, field: Field) -> SomeNumbers:
        return SomeNumbers(batch.raw(field), batch.raw(field) != NO_OPEN_FLAGS)

    return Kind(
        lambda column, field: (
            Member(column, "text", lambda batch: _known_open_flags(batch, field)),
            Member(f"{column}_raw", "int", lambda batch: number(batch, field)),
        ),
        lambda batch, field: [UNREAD if text is None else text for text in texts_of(_known_open_flags(batch, field))],
    )


def _mount_flags(batch: Batch, field: Field) -> CodedTexts:
    return coded(batch, field, mount_flag_names)


def _new_mode(batch: Batch, field: Field) -> CodedTexts:
    return coded(batch, field, lambda mode: "" if mode == UNKNOWN else f"{mode:04o}")


def _hex(batch: Batch, field: Field) -> Texts:
    return Texts(lambda: [f"{number:x}" for number in batch.raw(field).tolist()], len(batch))


FILE_KINDS: dict[str, Kind] = {
    "gadget_fd": Kind(lambda column, field: (number_member(column, field),), _show_fd),
    "gadget_errno": Kind(
        lambda column, field: (
            number_member(column, field),
            spelt_member("error" if column == "errno" else f"{column}_name", field, _errors),
        ),
        lambda batch, field: [name or "0" for name in texts_of(_errors(batch, field))],
        alarm=True,
    ),
    "gadget_known_errno": Kind(
        lambda column, field: (
            Member(column, "int", lambda batch: SomeNumbers(batch.raw(field), batch.raw(field) >= 0)),
            Member(
                "error" if column == "errno" else f"{column}_name", "text", lambda batch: _known_errors(batch, field)
            ),
        ),
        lambda batch, field: ["?" if text is None else text or "0" for text in texts_of(_known_errors(batch, field))],
        alarm=True,
    ),
    "gadget_open_flags": with_raw(_open_flags),
    "gadget_known_open_flags": _maybe_open_flags(),
    "gadget_asked_open_flags": _maybe_open_flags(),
    "gadget_open_differs": Kind(
        lambda column, field: (Member(column, "text", lambda batch: _open_differs(batch, field)),),
        lambda batch, field: [text or UNREAD for text in texts_of(_open_differs(batch, field))],
    ),
    "gadget_mode": with_raw(lambda batch, field: coded(batch, field, lambda mode: f"{mode:04o}")),
    "gadget_new_mode": Kind(
        lambda column, field: (
            spelt_member(column, field, _new_mode),
            Member(f"{column}_raw", "int", lambda batch: KnownNumbers(batch.raw(field))),
        ),
        lambda batch, field: [text or UNREAD for text in texts_of(_new_mode(batch, field))],
    ),
    "gadget_new_owner": known(str),
    "gadget_mount_flags": Kind(
        lambda column, field: (
            spelt_member(column, field, _mount_flags),
            Member(f"{column}_raw", "int", lambda batch: Numbers(batch.raw(field) & np.uint64(0xFFFFFFFF))),
        ),
        lambda batch, field: [text or "-" for text in texts_of(_mount_flags(batch, field))],
    ),
    "gadget_exit_code": Kind(lambda column, field: (number_member(column, field),), _show_fd),
    "gadget_fsnotify_mask": spelt_with_raw(fsnotify_mask_names, none="-"),
    "gadget_file_type": spelt_with_raw(file_type_name, none=UNREAD),
    "gadget_protection": spelt_with_raw(protection_text, none=UNREAD),
    "gadget_file_id": Kind(
        lambda column, field: (Member(column, "text", lambda batch: _hex(batch, field)),),
        lambda batch, field: [f"{number:x}" for number in batch.raw(field).tolist()],
    ),
    "gadget_device_number": spelt_with_raw(device_number_text),
}
