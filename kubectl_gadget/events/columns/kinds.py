"""What each typedef of a record means: one entry in KINDS per typedef of docs/design.md, "Records".

A kind says which members a column becomes in JSON (and in filters, which see the same), and what people see in a table.
The rule for names: the column's own name has what is meant; where a number and its name are both of use, they stand
beside each other. So `errno` is a number with `error` beside it, `flags` a text with `flags_raw` beside it. A typedef
without an entry is shown by its C type. The trap: nothing may be made up; what could not be read is null.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.columns.absent_processes import comms, ids, pids
from kubectl_gadget.events.columns.dns_names import dns_flag_names, dns_rcode_name, dns_type_name
from kubectl_gadget.events.columns.grpc_names import grpc_status_name
from kubectl_gadget.events.columns.histogram import BUCKETS_TYPE, Buckets, spark_line
from kubectl_gadget.events.columns.open_differences import open_differences
from kubectl_gadget.events.columns.stack_columns import STACK, innermost_functions, show_stacks, stack_lists
from kubectl_gadget.events.columns.syscall_columns import (
    raw_arguments,
    show_arguments,
    show_results,
    syscall_arguments,
    syscall_results,
)
from kubectl_gadget.events.columns.texts import CodedTexts, FixedTexts, Nulls, SpanTexts, TextLists, Texts
from kubectl_gadget.events.columns.tls_names import tls_version_name
from kubectl_gadget.events.columns.wall_time import Timestamps
from kubectl_gadget.events.exec_id import read_exec_id
from kubectl_gadget.events.linux.bpf import bpf_command_name, bpf_map_type_name, bpf_program_type_name
from kubectl_gadget.events.linux.errno_and_open import errno_name, open_flag_names
from kubectl_gadget.events.linux.fsnotify import fsnotify_mask_names
from kubectl_gadget.events.linux.lsm import lsm_argument_texts
from kubectl_gadget.events.linux.mount import mount_flag_names
from kubectl_gadget.events.linux.network import (
    address_text,
    family_name,
    icmp_type_name,
    protocol_name,
    tcp_flag_names,
    tcp_state_name,
)
from kubectl_gadget.events.linux.process import (
    capability_name,
    capability_names,
    capability_summary,
    flag_names,
    namespace_kind_names,
    namespace_names,
    prctl_option_name,
    ptrace_request_name,
    signal_code_name,
    signal_name,
)
from kubectl_gadget.events.linux.state import (
    device_number_text,
    file_type_name,
    protection_text,
    socket_state_name,
    task_state_name,
)
from kubectl_gadget.events.linux.syscall_text import KILLED
from kubectl_gadget.events.linux.syscalls import syscall_name
from kubectl_gadget.events.schema import Field
from kubectl_gadget.events.vectors import UNKNOWN, KnownNumbers, Mask, Numbers, SomeNumbers, Truths, Type, Vector

UNREAD = "-"
"""In tables: the program could not read this text, or was not asked to."""
_MARKED = {"": '""', UNREAD: '"-"'}
"""Real texts that would be taken for something else in a table."""
CUT = "…"
NO_OPEN_FLAGS = 0xFFFFFFFF
"""How the file is open was not looked at, or could not be."""

Show = Callable[[Batch, Field], list[str]]
Read = Callable[[Batch], Vector]


@dataclass(frozen=True)
class Member:
    """One member of a JSON row, and one name in filters."""

    name: str
    type: Type
    read: Read
    optional: bool = False
    """left out of a JSON row when it is false or null"""


@dataclass(frozen=True)
class Kind:
    """How one typedef is read. `members` takes the column's name; `show` gives texts that are not escaped yet."""

    members: Callable[[str, Field], tuple[Member, ...]]
    show: Show
    alarm: bool = False
    """a value other than 0 is an error, which tables show in red"""


def _text(vector: Vector) -> list[str | None]:
    assert isinstance(vector, Texts)
    return vector.texts()


def _coded(batch: Batch, field: Field, spell: Callable[[int], str]) -> CodedTexts:
    """Few different numbers in many rows, each spelt once."""
    numbers, codes = np.unique(batch.raw(field), return_inverse=True)
    return CodedTexts(codes, [spell(number) for number in numbers.tolist()] or [""])


def _number(name: str, field: Field) -> Member:
    return Member(name, "int", lambda batch: Numbers(batch.raw(field)))


def _spelt(name: str, field: Field, spell: Callable[[Batch, Field], CodedTexts]) -> Member:
    return Member(name, "text", lambda batch: spell(batch, field))


def _show_number(batch: Batch, field: Field) -> list[str]:
    return list(map(str, batch.raw(field).tolist()))


def _numbers() -> Kind:
    return Kind(lambda column, field: (_number(column, field),), _show_number)


def _show_fd(batch: Batch, field: Field) -> list[str]:
    return [str(fd) if fd >= 0 else "-" for fd in batch.raw(field).tolist()]


def _errors(batch: Batch, field: Field) -> CodedTexts:
    return _coded(batch, field, lambda number: errno_name(number) if number else "")


def _show_errno(batch: Batch, field: Field) -> list[str]:
    return [name or "0" for name in _text(_errors(batch, field))]


def _some_texts(known: Mask, batch: Batch, spell: Callable[[], CodedTexts]) -> Texts:
    """Coded texts, but null where they are not known; as fast as before where all or none are."""
    if known.all():
        return spell()
    if not known.any():
        return Nulls(len(batch))
    return Texts(lambda: [text if ok else None for text, ok in zip(spell().texts(), known, strict=True)], len(batch))


def _known_errors(batch: Batch, field: Field) -> Texts:
    """Of io_uring the kernel does not tell each result: -1, which is null."""
    return _some_texts(batch.raw(field) >= 0, batch, lambda: _errors(batch, field))


def _known_open_flags(batch: Batch, field: Field) -> Texts:
    return _some_texts(batch.raw(field) != NO_OPEN_FLAGS, batch, lambda: _open_flags(batch, field))


def _open_differs(batch: Batch, field: Field) -> Texts:
    """Of rows that show how the file is open: what of it the program's memory does not say (any more)."""
    opened = batch.raw("opened_flags") != NO_OPEN_FLAGS
    if not opened.any():
        return Nulls(len(batch))

    def spell() -> list[str | None]:
        written = _span(batch, batch.gadget.record.field("path")).texts()
        resolved = _path(batch, batch.gadget.record.field("resolved")).texts()
        rows = zip(batch.raw(field).tolist(), written, resolved, opened.tolist(), strict=True)
        return [open_differences(flags, path, found) if known else None for flags, path, found, known in rows]

    return Texts(spell, len(batch))


def _open_flags(batch: Batch, field: Field) -> CodedTexts:
    return _coded(batch, field, lambda flags: open_flag_names(flags, batch.architecture))


def _maybe_open_flags() -> Kind:
    def number(batch: Batch, field: Field) -> SomeNumbers:
        return SomeNumbers(batch.raw(field), batch.raw(field) != NO_OPEN_FLAGS)

    return Kind(
        lambda column, field: (
            Member(column, "text", lambda batch: _known_open_flags(batch, field)),
            Member(f"{column}_raw", "int", lambda batch: number(batch, field)),
        ),
        lambda batch, field: [UNREAD if text is None else text for text in _text(_known_open_flags(batch, field))],
    )


def _mode(batch: Batch, field: Field) -> CodedTexts:
    return _coded(batch, field, lambda mode: f"{mode:04o}")


def _capabilities(batch: Batch, field: Field) -> CodedTexts:
    return _coded(batch, field, capability_names)


def _mount_flags(batch: Batch, field: Field) -> CodedTexts:
    return _coded(batch, field, mount_flag_names)


def _in_syscall(batch: Batch, field: Field) -> CodedTexts:
    return _coded(batch, field, lambda number: syscall_name(number, batch.architecture))


def _recorded_syscall(batch: Batch, field: Field) -> CodedTexts:
    """As strace marks what is no call."""
    return _coded(batch, field, lambda number: "+++" if number == KILLED else syscall_name(number, batch.architecture))


def _lsm_arguments(batch: Batch, field: Field) -> Texts:
    """What they mean depends on the record's field `hook`; the field itself says how many there are."""

    def spell() -> list[str | None]:
        hooks = FixedTexts(batch.raw("hook")).texts()
        values = zip(*(batch.raw(f"argument_{place}").tolist() for place in (1, 2, 3)), strict=True)
        counts = batch.raw(field).tolist()
        rows = zip(hooks, values, counts, strict=True)
        return [lsm_argument_texts(hook or "", row[:count], batch.architecture) for hook, row, count in rows]

    return Texts(spell, len(batch))


def _signal_codes(batch: Batch, field: Field) -> CodedTexts:
    """Their meaning depends on the signal, which is the record's field `signal`."""
    pairs = np.stack([batch.raw("signal"), batch.raw(field)], axis=1)
    found, codes = np.unique(pairs.astype(np.int64), axis=0, return_inverse=True)
    return CodedTexts(codes.ravel(), [signal_code_name(signal, code) for signal, code in found.tolist()] or [""])


def _new_mode(batch: Batch, field: Field) -> CodedTexts:
    return _coded(batch, field, lambda mode: "" if mode == UNKNOWN else f"{mode:04o}")


def _with_raw(spell: Callable[[Batch, Field], CodedTexts], none: str = "") -> Kind:
    return Kind(
        lambda column, field: (_spelt(column, field, spell), _number(f"{column}_raw", field)),
        lambda batch, field: [text or none for text in _text(spell(batch, field))],
    )


def _spelt_with_raw(spell: Callable[[int], str], none: str = "") -> Kind:
    """`none` is shown in tables for what has an empty name."""
    return _with_raw(lambda batch, field: _coded(batch, field, spell), none)


def _value_names(batch: Batch, field: Field) -> CodedTexts:
    names = dict(field.values)
    return _coded(batch, field, lambda number: names.get(number, str(number) if number else ""))


def _maybe(read: Callable[[Batch, Field], Numbers]) -> Kind:
    """A number that not every row has."""
    return Kind(
        lambda column, field: (Member(column, "int", lambda batch: read(batch, field)),),
        lambda batch, field: [UNREAD if number is None else str(number) for number in read(batch, field).values()],
    )


def _known(spell: Callable[[int], str]) -> Kind:
    """A number that may be unknown."""

    def read(batch: Batch, field: Field) -> KnownNumbers:
        return KnownNumbers(batch.raw(field))

    return Kind(
        lambda column, field: (Member(column, "int", lambda batch: read(batch, field)),),
        lambda batch, field: [UNREAD if number is None else spell(number) for number in read(batch, field).values()],
    )


def _scaled(number: float, units: Sequence[str], step: int) -> str:
    """Three digits that count, in the largest unit that leaves at least one before the point."""
    place = 0
    while number >= step - 0.5 and place + 1 < len(units):
        number /= step
        place += 1
    digits = 0 if place == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}{units[place]}"


def duration_text(nanoseconds: int) -> str:
    """`87ns`, `1.24ms`, `12.3s`, `4m05s`, `2h05m`."""
    seconds = round(nanoseconds / 1e9)
    if seconds < 100:
        return _scaled(nanoseconds, ("ns", "µs", "ms", "s"), 1000)
    return f"{seconds // 60}m{seconds % 60:02}s" if seconds < 3600 else f"{seconds // 3600}h{seconds // 60 % 60:02}m"


def bytes_text(count: int) -> str:
    """`87B`, `1.24KiB`, `12.3MiB`."""
    return _scaled(count, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 1024)


def _addresses(batch: Batch, field: Field) -> Texts:
    """Each address is spelt once."""

    def spell() -> list[str | None]:
        raw = batch.raw(field).tolist()
        spelt = {address: address_text(address) for address in set(raw)}
        return [spelt[address] for address in raw]

    return Texts(spell, len(batch))


def _exec_ids(batch: Batch, field: Field) -> Texts:
    def spell() -> list[str | None]:
        found = [read_exec_id(raw) for raw in batch.raw(field).tolist()]
        return [item and item.text(node) for item, node in zip(found, batch.nodes(), strict=True)]

    return Texts(spell, len(batch))


def _hex(batch: Batch, field: Field) -> Texts:
    return Texts(lambda: [f"{number:x}" for number in batch.raw(field).tolist()], len(batch))


def _user_addresses(batch: Batch, field: Field) -> Texts:
    """Of memory in a process; null for 0."""
    return Texts(lambda: [hex(address) if address else None for address in batch.raw(field).tolist()], len(batch))


def _read_numbers(batch: Batch, field: Field) -> SomeNumbers:
    numbers = batch.raw(field)
    return SomeNumbers(numbers, numbers != np.uint32(0xFFFFFFFF))


def _grpc_statuses(batch: Batch, field: Field) -> Texts:
    numbers = KnownNumbers(batch.raw(field)).values()
    return Texts(lambda: [None if number is None else grpc_status_name(number) for number in numbers], len(batch))


def _timestamps(batch: Batch, field: Field) -> Timestamps:
    return Timestamps(batch.to_wall(batch.raw(field)))


def _fixed(batch: Batch, field: Field) -> FixedTexts:
    return FixedTexts(batch.raw(field))


def _data(batch: Batch, field: Field) -> list[str | None]:
    """Bytes that are no text, in base64."""
    spans = batch.spans(field)
    memory = batch.buffer.bytes.data
    places = zip(spans.starts.tolist(), spans.lengths.tolist(), spans.readable.tolist(), strict=True)
    return [
        base64.b64encode(memory[start : start + length]).decode() if readable else None
        for start, length, readable in places
    ]


def _data_members(column: str, field: Field) -> tuple[Member, ...]:
    value = Member(column, "text", lambda batch: Texts(lambda: _data(batch, field), len(batch)))
    return value, _cut_member(column, field)


def _show_data(batch: Batch, field: Field) -> list[str]:
    return [UNREAD if text is None else text for text in _data(batch, field)]


def _span(batch: Batch, field: Field) -> SpanTexts:
    spans = batch.spans(field)
    buffer = batch.buffer
    return SpanTexts(buffer.bytes, spans.starts, spans.lengths, spans.readable, lambda: buffer.latin1)


def _path(batch: Batch, field: Field) -> Texts:
    def join() -> list[str | None]:
        cut = batch.spans(field).cut.tolist()
        chains = _span(batch, field).texts()
        return [_join_path(chain, is_cut) for chain, is_cut in zip(chains, cut, strict=True)]

    return Texts(join, len(batch))


def _join_path(chain: str | None, cut: bool) -> str | None:
    """Components come leaf first, each ended by NUL. A cut path lacks its upper part, so it has no slash in front."""
    if chain is None:
        return None
    parts = chain.split("\0")
    parts.reverse()
    if parts[0] == "":
        parts = parts[1:]
    joined = "/".join(parts)
    return joined if cut else f"/{joined}"


def _path_at(batch: Batch, field: Field) -> Texts:
    """The path and where it starts from as one; without the latter, the path as the caller wrote it."""

    def join() -> list[str | None]:
        bases = _path(batch, batch.gadget.record.field(f"{field.name}_base")).texts()
        return [_join_base(base, text) for base, text in zip(bases, _span(batch, field).texts(), strict=True)]

    return Texts(join, len(batch))


def _join_base(base: str | None, text: str | None) -> str | None:
    if text is None or base is None or text.startswith("/"):
        return text
    return f"{base.rstrip('/')}/{text}" if text else base


def _path_at_members(column: str, field: Field) -> tuple[Member, ...]:
    written = Member(f"{column}_written", "text", lambda batch: _span(batch, field))
    return (*_text_members(_path_at, sizable=True)(column, field), written)


def _list(batch: Batch, field: Field) -> TextLists:
    return TextLists([_split_list(text) for text in _span(batch, field).texts()])


def _split_list(text: str | None) -> list[str] | None:
    """Elements end with NUL; the last one of a cut list may lack it."""
    if text is None:
        return None
    return (text[:-1] if text.endswith("\0") else text).split("\0") if text else []


def _text_members(read: Callable[[Batch, Field], Texts], sizable: bool) -> Callable[[str, Field], tuple[Member, ...]]:
    def members(column: str, field: Field) -> tuple[Member, ...]:
        def value(batch: Batch) -> Vector:
            return batch.vector(column, lambda batch: read(batch, field))

        def raw(batch: Batch) -> Vector:
            texts = value(batch)
            assert isinstance(texts, Texts)
            return Nulls(len(batch)) if texts.printable() else _base64(texts.texts())

        found = [Member(column, "text", value)]
        if sizable:
            found.append(_cut_member(column, field))
        return (*found, Member(f"{column}_bytes", "text", raw, optional=True))

    return members


def _list_members(column: str, field: Field) -> tuple[Member, ...]:
    def value(batch: Batch) -> Vector:
        return batch.vector(column, lambda batch: _list(batch, field))

    def raw(batch: Batch) -> Vector:
        vector = value(batch)
        assert isinstance(vector, TextLists)
        if vector.printable():
            return Nulls(len(batch))
        return TextLists([_base64_list(items) for items in vector.lists])

    return (
        Member(column, "texts", value),
        _cut_member(column, field),
        Member(f"{column}_bytes", "texts", raw, optional=True),
    )


def _cut_member(column: str, field: Field) -> Member:
    return Member(f"{column}_cut", "bool", lambda batch: Truths(batch.spans(field).cut), optional=True)


def _base64(texts: Sequence[str | None]) -> Texts:
    """The exact bytes where a text is not valid UTF-8, else null."""
    return Texts(lambda: [None if text is None or _is_valid(text) else _encode(text) for text in texts], len(texts))


def _base64_list(items: list[str] | None) -> list[str] | None:
    return None if items is None or all(map(_is_valid, items)) else [_encode(item) for item in items]


def _is_valid(text: str) -> bool:
    return text.isprintable() or not any("\ud800" <= character <= "\udfff" for character in text)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _mark(text: str | None) -> str:
    return UNREAD if text is None else _MARKED.get(text, text)


def _marked(texts: Texts) -> list[str]:
    return [_mark(text) for text in texts.texts()]


def _show_fixed(batch: Batch, field: Field) -> list[str]:
    return _marked(_fixed(batch, field))


def _show_span(batch: Batch, field: Field) -> list[str]:
    texts = _text(batch.vector(f"{field.name}:shown", lambda batch: _span(batch, field)))
    cut = batch.spans(field).cut
    if None in texts or "" in texts or UNREAD in texts:
        texts = [_mark(text) for text in texts]
    if cut.any():
        texts = [f"{text}{CUT}" if is_cut else text for text, is_cut in zip(texts, cut.tolist(), strict=True)]
    return texts  # type: ignore[return-value]


def _show_path(batch: Batch, field: Field) -> list[str]:
    cut = batch.spans(field).cut.tolist()
    return [
        UNREAD if text is None else f"{CUT}/{text}" if is_cut else text
        for text, is_cut in zip(_path(batch, field).texts(), cut, strict=True)
    ]


def _show_lsm_arguments(batch: Batch, field: Field) -> list[str]:
    """With what else the hook was given, which has fields of its own in other formats."""
    record = batch.gadget.record
    parts = [_text(_lsm_arguments(batch, field))]
    ends = zip(_addresses(batch, record.field("address")).texts(), batch.raw("port").tolist(), strict=True)
    parts.append([address and f"address={address} port={port}" for address, port in ends])
    for name, read in (("name", _span), ("file_system", _span), ("to", _path)):
        texts = read(batch, record.field(name)).texts()
        parts.append([None if text is None else f"{name}={quote(text)}" for text in texts])
    targets = zip(batch.raw("target_pid").tolist(), _fixed(batch, record.field("target_comm")).texts(), strict=True)
    parts.append([f"target={pid} ({comm})" if pid else None for pid, comm in targets])
    return [" ".join(filter(None, row)) or "-" for row in zip(*parts, strict=True)]


def _show_path_at(batch: Batch, field: Field) -> list[str]:
    cut = batch.spans(field).cut.tolist()
    texts = map(_mark, _path_at(batch, field).texts())
    return [f"{text}{CUT}" if is_cut else text for text, is_cut in zip(texts, cut, strict=True)]


def _show_terminal_text(batch: Batch, field: Field) -> list[str]:
    """Without the newline at its end, which the table has of its own."""
    texts = zip(_span(batch, field).texts(), batch.spans(field).cut.tolist(), strict=True)
    return [_mark(text and text.rstrip("\r\n")) + (CUT if is_cut else "") for text, is_cut in texts]


def _show_list(batch: Batch, field: Field) -> list[str]:
    cut = batch.spans(field).cut.tolist()
    return [
        UNREAD if items is None else " ".join(map(quote, items)) + (CUT if is_cut else "")
        for items, is_cut in zip(_list(batch, field).lists, cut, strict=True)
    ]


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


def quote(word: str) -> str:
    """A word as a shell would read it back, in quotes only when it needs them. Letters of any script need none."""
    if word and all(character in _PLAIN or (ord(character) > 127 and character.isprintable()) for character in word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


NUMBER = _numbers()
ENUM = Kind(
    lambda column, field: (_spelt(column, field, _value_names),),
    lambda batch, field: [text or UNREAD for text in _text(_value_names(batch, field))],
)
"""One of the field's `values`; 0 is empty where it has no name, another number stays one."""
FLAGS = _with_raw(lambda batch, field: _coded(batch, field, lambda bits: flag_names(bits, field.flags)), none=UNREAD)
"""A set of the field's `flags`."""
FIXED_TEXT = Kind(_text_members(_fixed, sizable=False), _show_fixed)

KINDS: dict[str, Kind] = {
    "gadget_timestamp": Kind(
        lambda column, field: (Member(column, "text", lambda batch: _timestamps(batch, field)),),
        lambda batch, field: _timestamps(batch, field).clock(),
    ),
    "gadget_cgroup": NUMBER,
    "gadget_comm": Kind(_text_members(comms, sizable=False), lambda batch, field: _marked(comms(batch, field))),
    "gadget_pid": _maybe(pids),
    "gadget_uid": _maybe(ids),
    "gadget_gid": _maybe(ids),
    "gadget_fd": Kind(lambda column, field: (_number(column, field),), _show_fd),
    "gadget_errno": Kind(
        lambda column, field: (
            _number(column, field),
            _spelt("error" if column == "errno" else f"{column}_name", field, _errors),
        ),
        _show_errno,
        alarm=True,
    ),
    "gadget_known_errno": Kind(
        lambda column, field: (
            Member(column, "int", lambda batch: SomeNumbers(batch.raw(field), batch.raw(field) >= 0)),
            Member(
                "error" if column == "errno" else f"{column}_name", "text", lambda batch: _known_errors(batch, field)
            ),
        ),
        lambda batch, field: ["?" if text is None else text or "0" for text in _text(_known_errors(batch, field))],
        alarm=True,
    ),
    "gadget_open_flags": _with_raw(_open_flags),
    "gadget_known_open_flags": _maybe_open_flags(),
    "gadget_asked_open_flags": _maybe_open_flags(),
    "gadget_open_differs": Kind(
        lambda column, field: (Member(column, "text", lambda batch: _open_differs(batch, field)),),
        lambda batch, field: [text or UNREAD for text in _text(_open_differs(batch, field))],
    ),
    "gadget_mode": _with_raw(_mode),
    "gadget_new_mode": Kind(
        lambda column, field: (
            _spelt(column, field, _new_mode),
            Member(f"{column}_raw", "int", lambda batch: KnownNumbers(batch.raw(field))),
        ),
        lambda batch, field: [text or UNREAD for text in _text(_new_mode(batch, field))],
    ),
    "gadget_new_owner": _known(str),
    "gadget_operation": FIXED_TEXT,
    "gadget_mount_flags": Kind(
        lambda column, field: (
            _spelt(column, field, _mount_flags),
            Member(f"{column}_raw", "int", lambda batch: Numbers(batch.raw(field) & np.uint64(0xFFFFFFFF))),
        ),
        lambda batch, field: [text or "-" for text in _text(_mount_flags(batch, field))],
    ),
    "gadget_exit_code": Kind(lambda column, field: (_number(column, field),), _show_fd),
    "gadget_signal": _spelt_with_raw(signal_name, none="-"),
    "gadget_signal_code": _with_raw(_signal_codes),
    "gadget_signal_target": _maybe(lambda batch, field: SomeNumbers(batch.raw(field), batch.raw(field) != -(1 << 31))),
    "gadget_capability": _spelt_with_raw(capability_name),
    "gadget_capabilities": Kind(
        lambda column, field: (
            _spelt(column, field, _capabilities),
            Member(f"{column}_raw", "int", lambda batch: KnownNumbers(batch.raw(field))),
        ),
        lambda batch, field: [text or UNREAD for text in _text(_coded(batch, field, capability_summary))],
    ),
    "gadget_in_syscall": _with_raw(_in_syscall, none=UNREAD),
    "gadget_lsm_arguments": Kind(
        lambda column, field: (Member(column, "text", lambda batch: _lsm_arguments(batch, field)),),
        _show_lsm_arguments,
    ),
    "gadget_bpf_command": _spelt_with_raw(bpf_command_name),
    "gadget_bpf_program_type": _spelt_with_raw(bpf_program_type_name, none="-"),
    "gadget_bpf_map_type": _spelt_with_raw(bpf_map_type_name, none="-"),
    "gadget_namespaces": _spelt_with_raw(namespace_names, none="-"),
    "gadget_namespace_kinds": _spelt_with_raw(namespace_kind_names, none="-"),
    "gadget_ptrace_request": _spelt_with_raw(ptrace_request_name, none="-"),
    "gadget_prctl_option": _spelt_with_raw(prctl_option_name, none="-"),
    "gadget_duration": _known(duration_text),
    "gadget_bytes": _known(bytes_text),
    "gadget_number": _known(str),
    "gadget_read_number": _maybe(_read_numbers),
    BUCKETS_TYPE: Kind(
        lambda column, field: (Member(column, "buckets", lambda batch: Buckets(batch.raw(field))),),
        lambda batch, field: list(map(spark_line, batch.raw(field))),
    ),
    "gadget_offset": _known(str),
    "gadget_ip": Kind(
        lambda column, field: (
            Member(column, "text", lambda batch: batch.vector(column, lambda batch: _addresses(batch, field))),
        ),
        lambda batch, field: [text or "-" for text in _addresses(batch, field).texts()],
    ),
    "gadget_port": NUMBER,
    "gadget_exec_id": Kind(
        lambda column, field: (Member(column, "text", lambda batch: _exec_ids(batch, field)),),
        lambda batch, field: [text or UNREAD for text in _text(_exec_ids(batch, field))],
    ),
    "gadget_address_family": _spelt_with_raw(family_name),
    "gadget_ip_protocol": _spelt_with_raw(protocol_name),
    "gadget_icmp_type": _spelt_with_raw(icmp_type_name),
    "gadget_tcp_state": _spelt_with_raw(tcp_state_name),
    "gadget_tcp_flags": _spelt_with_raw(tcp_flag_names),
    "gadget_device": Kind(
        _text_members(_fixed, sizable=False), lambda batch, field: [text or "-" for text in _text(_fixed(batch, field))]
    ),
    "gadget_tcp_sequence": _maybe(lambda batch, field: SomeNumbers(batch.raw(field), batch.raw(field) != 0)),
    "gadget_dns_type": _spelt_with_raw(dns_type_name, none="-"),
    "gadget_dns_rcode": _spelt_with_raw(dns_rcode_name),
    "gadget_dns_flags": _spelt_with_raw(dns_flag_names),
    "gadget_fsnotify_mask": _spelt_with_raw(fsnotify_mask_names, none="-"),
    "gadget_terminal_text": Kind(_text_members(_span, sizable=True), _show_terminal_text),
    "gadget_data": Kind(_data_members, _show_data),
    "gadget_http_status": Kind(
        lambda column, field: (Member(column, "int", lambda batch: _read_numbers(batch, field)),),
        lambda batch, field: [str(number) if number else "-" for number in _read_numbers(batch, field).values()],
    ),
    "gadget_grpc_status": Kind(
        lambda column, field: (
            Member(column, "text", lambda batch: _grpc_statuses(batch, field)),
            Member(f"{column}_raw", "int", lambda batch: KnownNumbers(batch.raw(field))),
        ),
        lambda batch, field: [text or UNREAD for text in _grpc_statuses(batch, field).texts()],
    ),
    "gadget_tls_version": _spelt_with_raw(tls_version_name, none="-"),
    "gadget_millicores": _known(lambda millicores: f"{millicores}m"),
    "gadget_task_state": _spelt_with_raw(task_state_name),
    "gadget_file_type": _spelt_with_raw(file_type_name, none=UNREAD),
    "gadget_socket_state": _spelt_with_raw(socket_state_name),
    "gadget_protection": _spelt_with_raw(protection_text, none=UNREAD),
    "gadget_file_id": Kind(
        lambda column, field: (Member(column, "text", lambda batch: _hex(batch, field)),),
        lambda batch, field: [f"{number:x}" for number in batch.raw(field).tolist()],
    ),
    "gadget_device_number": _spelt_with_raw(device_number_text),
    "gadget_syscall": _with_raw(_recorded_syscall),
    "gadget_syscall_result": Kind(
        lambda column, field: (Member(column, "int", lambda batch: syscall_results(batch, field)),), show_results
    ),
    "gadget_syscall_arguments": Kind(
        lambda column, field: (
            Member(column, "texts", lambda batch: syscall_arguments(batch, field)),
            Member(f"{column}_raw", "texts", lambda batch: raw_arguments(batch, field)),
        ),
        show_arguments,
    ),
    "gadget_user_address": Kind(
        lambda column, field: (Member(column, "text", lambda batch: _user_addresses(batch, field)),),
        lambda batch, field: [text or UNREAD for text in _user_addresses(batch, field).texts()],
    ),
    STACK: Kind(lambda column, field: (Member(column, "texts", lambda batch: stack_lists(batch, field)),), show_stacks),
    "gadget_innermost": Kind(
        lambda column, field: (Member(column, "text", innermost_functions),),
        lambda batch, field: [text or "-" for text in _text(innermost_functions(batch))],
    ),
    "gadget_string": Kind(_text_members(_span, sizable=True), _show_span),
    "gadget_strings": Kind(_list_members, _show_list),
    "gadget_path": Kind(_text_members(_path, sizable=True), _show_path),
    "gadget_path_at": Kind(_path_at_members, _show_path_at),
    "bool": Kind(
        lambda column, field: (Member(column, "bool", lambda batch: Truths(batch.raw(field) != 0)),),
        lambda batch, field: ["true" if value else "false" for value in batch.raw(field).tolist()],
    ),
}
KINDS["_Bool"] = KINDS["bool"]


def kind_of(field: Field) -> Kind:
    """What the YAML or the C's enum names, else the kind of that field's typedef; without one, a text for an array of
    chars and a number for the rest."""
    if field.flags:
        return FLAGS
    found = KINDS.get(field.type)
    if found is not None:
        return found
    if field.values:
        return ENUM
    return NUMBER if field.size in (1, 2, 4, 8) and not field.type.startswith("char") else FIXED_TEXT
