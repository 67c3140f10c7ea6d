"""Rewrites the records of EVENTS frames: texts, addresses and contents, by the type of their fields.

Each record is built again from its fields, so bytes that belong to no field are gone. The trap: a text stands in
several columns of a record (as written, resolved, relative), so a part of a path that was taken out goes as well.
"""

import struct
from collections.abc import Iterator

from kubectl_gadget.analysis.redaction_rules import RedactionRule, Redactor
from kubectl_gadget.gadgets.schema import STRING_TYPES, Field, Gadget
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.columns.text_kinds import join_path

_HEADER, _TEXT = struct.Struct("<II"), struct.Struct("<HH")
_CUT, _LENGTH, _UNREAD = 0x8000, 0x7FFF, (0, 1)
_ARGUMENTS = ("args", "arguments", "parameters")
_CONTENTS = ("payload", "data", "packet", "text", "arguments")
_DATA_OF_CALLS = (("trace_mount", "options"),)
"""texts that are data of system calls, such as the password of a network file system"""
_OF_POLICIES = ("policy", "rule")
"""names of NetworkPolicies, which are in no object of the recording, and what these say"""
_CALLS = "gadget_syscall_arguments"
_FIXED = ("gadget_comm", "gadget_device")


def redacted(gadget: Gadget, data: bytes | memoryview, redactor: Redactor) -> bytes:
    """The records without what the rules take. Raises FrameError."""
    batch = decode(gadget.as_sent(), "", data)
    return b"".join(_records(batch, gadget, redactor))


def _records(batch: Batch, gadget: Gadget, redactor: Redactor) -> Iterator[bytes]:
    record, memory = batch.gadget.record, batch.buffer.bytes.data
    keep = bytearray(record.size)
    for field in record.fields:
        keep[field.offset : field.offset + field.size] = b"\xff" * field.size
    mask = int.from_bytes(keep, "little")
    for start in batch.starts.tolist():
        fixed = int.from_bytes(memory[start : start + record.size], "little") & mask
        row = bytearray(fixed.to_bytes(record.size, "little"))
        _Record(gadget, bytes(memory[start : start + 0x10000 + _LENGTH]), redactor).rewrite(row, record.fields)
        yield _HEADER.pack(len(row), 0) + row + bytes(-len(row) % 8)


class _Record:
    def __init__(self, gadget: Gadget, data: bytes, redactor: Redactor) -> None:
        self._gadget = gadget
        self._data = data
        self._redactor = redactor
        self._table = "_".join(gadget.command)

    def rewrite(self, row: bytearray, fields: tuple[Field, ...]) -> None:
        texts = {field.name: self._text(field) for field in fields if field.type in STRING_TYPES}
        new: dict[str, tuple[str | bytes | None, bool]] = {}
        gone: list[str] = []
        for field in fields:
            if field.type in STRING_TYPES:
                new[field.name] = self._rewritten(field, texts, gone)
            elif field.type == "gadget_ip":
                place = slice(field.offset, field.offset + field.size)
                row[place] = self._redactor.address(bytes(row[place]), self._where(field))
            elif field.type in _FIXED or field.type.startswith("char["):
                self._rewrite_fixed(row, field)
            elif field.type == _CALLS and (rule := self._rule(field)):
                self._redactor.count(rule.name, self._where(field))
                row[field.offset : field.offset + field.size] = bytes(field.size)
            elif field.type == _CALLS:
                self._move_arguments(row, field)
        for field in fields:
            if field.name in new:
                self._put(row, field, *self._without_parts(field, *new[field.name], gone))

    def _where(self, field: Field) -> str:
        return f"{self._table}.{field.name}"

    def _rule(self, field: Field) -> RedactionRule | None:
        """The rule that takes this field as a whole."""
        if field.name in _ARGUMENTS and (rule := self._redactor.takes("arguments")):
            return rule
        if (self._gadget.name, field.name) in _DATA_OF_CALLS:
            return self._redactor.takes("contents")
        if field.name in _CONTENTS or field.type in ("gadget_data", "gadget_terminal_text", _CALLS):
            return self._redactor.takes("contents")
        return None

    def _text(self, field: Field) -> tuple[bytes | None, bool]:
        """A text's bytes, and whether it was cut."""
        offset, length = _TEXT.unpack_from(self._data, field.offset)
        return (self._data[offset : offset + (length & _LENGTH)] if offset else None), bool(length & _CUT)

    def _rewritten(
        self, field: Field, texts: dict[str, tuple[bytes | None, bool]], gone: list[str]
    ) -> tuple[str | bytes | None, bool]:
        data, cut = texts[field.name]
        if data is None:
            return None, cut
        if rule := self._rule(field):
            self._redactor.count(rule.name, self._where(field))
            return None, False
        if field.type == "gadget_data":
            return data, cut
        text = data.decode("utf-8", "surrogateescape")
        if field.name in _OF_POLICIES and text and (rule := self._redactor.takes("names")):
            self._redactor.count(rule.name, self._where(field))
            return self._redactor.word(text, rule.action), False
        if field.type == "gadget_strings":
            changed = "\0".join(self._redactor.text(part, self._where(field)) for part in text.split("\0"))
            return (data if changed == text else changed), cut
        base = texts.get(f"{field.name}_base", (None, False))
        if field.type == "gadget_path":
            whole = join_path(text, cut) or ""
        elif field.type == "gadget_path_at" and base[0] is not None and not text.startswith("/"):
            folder = join_path(base[0].decode("utf-8", "surrogateescape"), base[1]) or ""
            whole = f"{folder.rstrip('/')}/{text}" if text else folder
        else:
            whole = text
        changed = self._redactor.text(whole, self._where(field))
        if changed == whole and cut and field.type == "gadget_path":
            changed = self._redactor.cut_path(whole, self._where(field))
        if changed == whole:
            return data, cut
        gone.append(whole)
        if field.type == "gadget_path":
            return "\0".join(reversed(changed.split("/"))).removesuffix("\0") + "\0", cut
        return changed, cut

    def _without_parts(
        self, field: Field, value: str | bytes | None, cut: bool, gone: list[str]
    ) -> tuple[bytes | None, bool]:
        """The bytes to write. A relative path that is the end of one that was taken out is taken out too."""
        if isinstance(value, bytes) and gone and field.type not in ("gadget_data", "gadget_strings"):
            text = value.decode("utf-8", "surrogateescape")
            plain = (
                (join_path(text, True) or "").lstrip("/") if field.type == "gadget_path" else text.removeprefix("./")
            )
            if plain and not text.startswith("/") and any(whole.endswith(plain) for whole in gone):
                self._redactor.count("parts of these", self._where(field))
                value = self._redactor.word(plain) + ("\0" if field.type == "gadget_path" else "")
        return (value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value), cut

    def _put(self, row: bytearray, field: Field, data: bytes | None, cut: bool) -> None:
        if data is None or len(row) > 0xFFFF:
            _TEXT.pack_into(row, field.offset, *_UNREAD)
            return
        data = data[:_LENGTH]
        _TEXT.pack_into(row, field.offset, len(row), len(data) | (_CUT if cut else 0))
        row += data

    def _rewrite_fixed(self, row: bytearray, field: Field) -> None:
        place = slice(field.offset, field.offset + field.size)
        text = bytes(row[place]).partition(b"\0")[0].decode("utf-8", "surrogateescape")
        changed = self._redactor.text(text, self._where(field)).encode("utf-8", "surrogateescape")
        row[place] = changed[: field.size - 1].ljust(field.size, b"\0")

    def _move_arguments(self, row: bytearray, field: Field) -> None:
        """Copies the data of a call's arguments, with its texts changed: here, no rule takes contents as a whole."""
        for place in range(field.offset + 48, field.offset + field.size, 4):
            offset, length = _TEXT.unpack_from(self._data, place)
            data = self._data[offset : offset + (length & _LENGTH)] if offset else None
            if data is not None:
                text = data.decode("utf-8", "surrogateescape")
                data = self._redactor.text(text, self._where(field)).encode("utf-8", "surrogateescape")
            if data is None or len(row) > 0xFFFF:
                _TEXT.pack_into(row, place, 0, 0)
            else:
                _TEXT.pack_into(row, place, len(row), min(len(data), _LENGTH) | length & _CUT)
                row += data[:_LENGTH]
