"""Copies a recording without the data that rules remove: `recording redact`.

All parts of a segment are rewritten: events, names of containers and nodes, the cluster's objects, stacks, the command.
Data of unknown form cannot be redacted, so records of unknown kinds and damaged segments are left out.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise, repeat
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from kubectl_gadget.analysis.redaction_rules import REMOVED, RedactionRule, Redactor
from kubectl_gadget.errors import FrameError, GadgetError, UsageError
from kubectl_gadget.gadgets.schema import STRING_TYPES, Field, Gadget
from kubectl_gadget.observe.decoders import INSTALLED, NAME
from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.layout import SELECTED, STEP_MARK, RecordKind
from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.recording.reader import Damage, RecordingReader
from kubectl_gadget.recording.recorded_run import RecordedRun
from kubectl_gadget.recording.segments import stored
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.kinds import join_path
from kubectl_gadget.wire.frames import FrameType, split_events
from kubectl_gadget.wire.message import parse

_NAMED = frozenset({"name", "namespace", "pod", "container", "image", "id", "pod_uid", "uid", "nodeName", "node"})
"""members of containers and objects that hold names"""
_HOSTS = frozenset({"address", "addresses", "hostname"})
"""members that hold either a host's name or its address. Only a name is replaced like other names."""
_LABELS = frozenset({"labels", "matchLabels", "selector", "annotations"})
_KEPT_NAMED = frozenset({"metadata", "involvedObject", "owner"})
"""members of what `diagnose` kept of the API that hold names, as those of objects do"""
_KEPT_NAMES = frozenset(
    {"nodeName", "secretName", "claimName", "containerID", "image", "host", "selected", "controllers"}
)
"""members of it that are names, or lists of them"""
_COMMANDS = frozenset({"args", "command", "arguments"})
"""members that hold words of a command line"""
_FIXED = frozenset({"kind", "runtime", "apiVersion", "protocol", "phase", "type", "operator", "architecture", "agent"})
"""members that hold words of this program or of Kubernetes, which stay even if a pod has the same name"""
_OF_PROGRAM = frozenset(
    {"version", "began_ns", "command", "gadgets", "interval", "by_labels", "local", "objects", "run", "typed"}
)
"""members of META that say nothing about what was traced, or that have a rule of their own"""
OF_DIAGNOSE = "diagnose"
"""The member of END with what `diagnose` kept beside its rows."""
_SANDBOX = "POD"
_MOST_NAMES = 500_000
_NESTED = (RecordKind.STATE, RecordKind.EARLIER)


class Redaction:
    """The copy of one recording."""

    def __init__(self, reader: RecordingReader, redactor: Redactor) -> None:
        self._reader = reader
        self._redactor = redactor
        self._gadgets = [item.gadget for item in RecordedRun.from_meta(reader.meta, str(reader.path)).gadgets]
        # Records of policies can be read only with the policies, and the text of a policy names what it protects. So
        # both are left out.
        self._of_policies = {
            number for number, gadget in enumerate(self._gadgets) if gadget.name in (NAME, INSTALLED.name)
        }
        redactor.names.update(_policy_names(reader))
        self.left_out = 0
        """frames and records that cannot be read"""
        self.damage = Damage()

    def write(self, out: BinaryIO) -> None:
        """Writes the copy. Raises GadgetError, and OSError of the file."""
        for _, control, _ in self._reader.blocks(Damage(), with_events=False):
            self._find_names(control)
        out.write(layout.file_header())
        for header, control, events in self._reader.blocks(self.damage):
            made, payloads = self._control(control, events)
            times = header.first_ns, header.last_ns
            out.write(stored(header.number, times, made, b"".join(payloads), header.flags))

    def _find_names(self, control: bytes, is_nested: bool = False) -> None:
        names = self._redactor.names
        for record in layout.records(control):
            if record.kind in _NESTED:
                if not is_nested:
                    self._find_names(record.data, is_nested=True)
            elif record.kind == RecordKind.NODE:
                names.add(record.data.decode("utf-8", "replace"))
            elif record.kind == RecordKind.COVERAGE:
                nodes = (self._json(record.data) or {}).get("nodes")
                names.update(str(node.get("name")) for node in nodes or () if isinstance(node, dict))
            elif record.kind == RecordKind.END:
                _collect_kept((self._json(record.data) or {}).get(OF_DIAGNOSE), names)
            elif record.kind in (RecordKind.OBJECTS, RecordKind.ANSWERS) or (
                record.kind == RecordKind.FRAME and record.type in (FrameType.CONTAINERS, SELECTED)
            ):
                value = self._json(record.data) or {}
                if record.kind == RecordKind.ANSWERS:
                    names.update(part for key in value for part in key.replace("/", "\n").split("\n"))
                elif record.type == SELECTED:
                    chosen = [item for found in value.values() if isinstance(found, list) for item in found]
                    names.update(part for item in chosen for part in str(item).split("/"))
                else:
                    _collect(value, names)
        names -= {"", _SANDBOX, REMOVED}
        if len(names) > _MOST_NAMES:
            raise GadgetError(f"the recording has more than {_MOST_NAMES:,} names")

    def _control(self, control: bytes, events: bytes, is_nested: bool = False) -> tuple[bytes, list[bytes]]:
        """The records of a control block and the payloads of its EVENTS frames, rewritten. `is_nested`: they are the
        data of a record, and have no such records."""
        made, payloads = list[bytes](), list[bytes]()
        new = iter(() if is_nested else self._all_events(control, events))
        for record in layout.records(control):
            if record.kind == RecordKind.EVENTS:
                payload = next(new, None)
                if payload is None:
                    continue
                payloads.append(payload)
                made.append(layout.events_record(record.node, len(payload)))
                continue
            data = None if is_nested and record.kind in _NESTED else self._record(record)
            if data is None:
                self.left_out += 1
            else:
                kind = RecordKind(record.kind)
                made.append(layout.record(kind, data, node=record.node, type=record.type))
        return b"".join(made), payloads

    def _all_events(self, control: bytes, events: bytes) -> list[bytes | None]:
        """The payloads of a segment's EVENTS frames, rewritten; None: it is left out. The frames of a gadget are read
        together, since small ones cost nearly as much as large ones."""
        found, together, at = list[bytes | None](), dict[int, list[_Frame]](), 0
        for record in layout.records(control):
            if record.kind != RecordKind.EVENTS:
                continue
            payload, at = events[at : at + record.length], at + record.length
            found.append(None)
            try:
                head, data = split_events(payload)
            except FrameError:
                self.left_out += 1
                continue
            if head.gadget in self._of_policies:
                self._redactor.count("policies", "EVENTS")
            elif head.gadget >= len(self._gadgets):
                self.left_out += 1
            else:
                together.setdefault(head.gadget, []).append(_Frame(len(found) - 1, head.encode(), data))
        for number, frames in together.items():
            for frame, new in zip(frames, self._rewritten(self._gadgets[number], frames), strict=True):
                found[frame.place] = None if new is None else frame.head + new
        return found

    def _rewritten(self, gadget: Gadget, frames: Sequence["_Frame"]) -> list[bytes | None]:
        """The records of each frame; None: they cannot be read."""
        bounds = [0, *accumulate(len(frame.data) for frame in frames[:-1])]
        before = self._redactor.counts.copy()
        try:
            return list(redacted(gadget, b"".join(frame.data for frame in frames), self._redactor, bounds))
        except (FrameError, ValueError):
            self._redactor.counts = before
        if len(frames) == 1:
            self.left_out += 1
            return [None]
        return [data for frame in frames for data in self._rewritten(gadget, [frame])]

    def _record(self, record: layout.Record) -> bytes | None:
        if record.kind in (RecordKind.STEP, RecordKind.DROPPED):
            return record.data[: 16 if record.kind == RecordKind.STEP else None]
        if record.kind in _NESTED:
            return self._control(record.data, b"", is_nested=True)[0]
        if record.kind == RecordKind.NODE:
            return self._redactor.name(record.data.decode("utf-8", "replace"), "node").encode()
        try:
            kind = RecordKind(record.kind)
        except ValueError:
            return None
        value = self._json(record.data)
        if value is None:
            return None
        if record.type == FrameType.STACKS and value.get("gadget") in self._of_policies:
            self._redactor.count("policies", "STACKS")
            return layout.to_json({"gadget": value["gadget"], "first": 0, "frames": [], "stacks": {}})
        if record.type == FrameType.STARTED:  # the names of policies' hooks say what the policies watch
            for item in value.get("gadgets") or ():
                if item.get("name") in (NAME, INSTALLED.name):
                    item["programs"] = []
        if kind == RecordKind.FRAME and record.type == STEP_MARK and (rule := self._redactor.takes("names")):
            # A step's name may be any text, so all of it is replaced. It is not among the names: as these are replaced
            # everywhere, so would common words be.
            self._redactor.count(rule.name, "STEP_MARK")
            value["name"] = self._redactor.word(str(value.get("name")), rule.action)
        where = FrameType(record.type).name if kind == RecordKind.FRAME and record.type > 0 else kind.name
        if kind == RecordKind.META:
            return layout.to_json(self._meta(value))
        if kind == RecordKind.COVERAGE:
            for member in ("selected", "absent", "why", "remedy"):
                self._remove(value, member)
        if kind == RecordKind.END and "kept" in value:  # why a file of `record --keep` was written: an expression
            self._redactor.count("command", "END.kept")
            value["kept"] = REMOVED
        return layout.to_json(self._walked(value, where))

    def _remove(self, value: dict[str, Any], member: str) -> None:
        """Remove texts of COVERAGE, which name what was looked for, of the run and of each node."""
        for part in (value, *(node for node in value.get("nodes") or () if isinstance(node, dict))):
            if part.get(member):
                self._redactor.count("command", f"COVERAGE.{member}")
                part[member] = [REMOVED] if isinstance(part[member], list) else REMOVED

    def _json(self, data: bytes) -> dict[str, Any] | None:
        try:
            return parse(data)
        except FrameError:
            return None

    def _meta(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """The command, selection and filter name what was looked for; descriptions are the program's own."""
        text = self._redactor.text
        found = {key: value if key in _OF_PROGRAM else self._walked(value, "META", key) for key, value in meta.items()}
        if meta.get("policies"):
            self._redactor.count("policies", "META.policies")
            found["policies"] = None
        for key in ("filter", "selection"):
            if isinstance(meta.get(key), str) and meta[key]:
                self._redactor.count("command", f"META.{key}")
                found[key] = None if key == "filter" else REMOVED
        if isinstance(meta.get("command"), list):
            known = {"+", *(word for gadget in self._gadgets for word in gadget.command)}
            found["command"] = [
                word if set(word.split("+")) <= known else text(word, "META.command")
                for word in map(str, meta["command"])
            ]
        for item in meta["gadgets"]:
            item["parameters"] = self._walked(item["parameters"], "META.parameters")
        return found

    def _walked(self, value: Any, where: str, member: str = "") -> Any:
        """JSON with its texts rewritten, and those keys that are names."""
        if member == "boot_id" and value and self._redactor.takes("names"):
            return self._redactor.word(str(value))
        if isinstance(value, str):
            return value if member in _FIXED or value == _SANDBOX else self._redactor.name(value, where)
        if isinstance(value, list):
            if where == RecordKind.END.name and member in _COMMANDS and (rule := self._redactor.takes("arguments")):
                self._redactor.count(rule.name, f"{where}.{member}", len(value))
                return [REMOVED for _ in value[:1]]
            return [self._walked(item, where, member) for item in value]
        if isinstance(value, dict):
            rename: Callable[[str], str] = str
            if member == "nodes" or where == "ANSWERS":
                rename = self._renamed
            # STATS has counts by the names of policies' hooks, which say what the policies watch.
            shown = {key: item for key, item in value.items() if key != "hooks" or not isinstance(item, dict)}
            return {rename(key): self._walked(item, where, key) for key, item in shown.items()}
        return value

    def _renamed(self, key: str) -> str:
        rule = self._redactor.takes("names")
        if rule is None:
            return key
        lines = [
            "/".join(self._redactor.word(part) if part in self._redactor.names else part for part in line.split("/"))
            for line in key.split("\n")
        ]
        return "\n".join(lines)


class _Frame(NamedTuple):
    """An EVENTS frame."""

    place: int
    """among the EVENTS frames of the segment"""
    head: bytes
    data: memoryview


def _policy_names(reader: RecordingReader) -> set[str]:
    """The names of the recording's policies. Raises UsageError when they cannot be read."""
    origin = reader.meta.get("policies")
    if not origin:
        return set()
    try:
        texts = [(str(file), str(text)) for file, text in origin["texts"]]
        return {policy.name for policy in parse_policies(texts, str(origin["namespace"]))}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{reader.path}: its policies cannot be read: {error!r}") from None


def _collect(value: object, names: set[str], member: str = "") -> None:
    if isinstance(value, str):
        if member in _NAMED or member in _LABELS or (member in _HOSTS and not _is_address(value)):
            names.add(value)
        elif member == "containerID":  # containerd://ID
            names.add(value.rpartition("/")[2])
    elif isinstance(value, list):
        for item in value:
            _collect(item, names, member)
    elif isinstance(value, dict):
        for key, item in value.items():
            _collect(item, names, member if member in _LABELS else key)


def _collect_kept(value: object, names: set[str], member: str = "") -> None:
    """Add the names in what `diagnose` kept of the API. Not all that is called a name is one: those of ports and of
    variables are words that stand in many texts."""
    if isinstance(value, str):
        if member in _KEPT_NAMES:
            names.add(value.rpartition("/")[2] if member == "containerID" else value)
    elif isinstance(value, list):
        for item in value:
            if member == "peers" and isinstance(item, list):
                names.update(str(part) for part in item[:2])
            _collect_kept(item, names, member)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in _KEPT_NAMED and isinstance(item, dict):
                _collect({each: part for each, part in item.items() if each != "annotations"}, names)
            elif key in ("containers", "initContainers", "containerStatuses", "initContainerStatuses"):
                names.update(str(each["name"]) for each in item if isinstance(each, dict) and "name" in each)
            elif key == "addresses":
                _collect(item, names, key)
            _collect_kept(item, names, key)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def redact(source: PathOrUrl, destination: BinaryIO, redactor: Redactor) -> Redaction:
    """Copies one recording. Raises GadgetError, and OSError of the file."""
    with RecordingReader(source) as reader:
        found = Redaction(reader, redactor)
        found.write(destination)
        return found


# The records of EVENTS frames: each is built again from its fields, so bytes that belong to no field are gone. A text
# stands in several columns of a record (as written, resolved, relative), so a part of a path that was taken out of one
# goes from the others as well. Records that differ only in numbers are alike for all rules, so one of them is rewritten
# for all.

_HEADER, _TEXT = 8, np.dtype([("offset", "<u2"), ("length", "<u2")])
_CUT, _LENGTH, _LAST_OFFSET = 0x8000, 0x7FFF, 0xFFFF
_RECORD_LENGTH = (1 << 30) - 1
_ARGUMENTS = ("args", "arguments", "parameters")
_CONTENTS = ("payload", "data", "packet", "text", "arguments")
_DATA_OF_CALLS = (("trace_mount", "options"),)
"""texts that are data of system calls, such as the password of a network file system"""
_OF_POLICIES = ("policy", "rule")
"""names of NetworkPolicies, which are in no object of the recording, and what these say"""
_CALLS = "gadget_syscall_arguments"
_FIRST_OF_CALL = 48
"""where the positions of texts begin in a field of the type _CALLS"""
_FIXED_TYPES = ("gadget_comm", "gadget_device")

_ABSENT, _WAS_CUT = 0, 2
_Value = TypeVar("_Value")
Text = tuple[bytes, bool]
"""a text of a record, and True if it was cut"""
Key = tuple[Text | None, Text | None]
"""a text, and the folder that it is relative to; None: absent"""


class _Made(NamedTuple):
    """A text as it is written."""

    text: Text | None
    gone: str = ""
    """the whole path, if some of it was taken out"""
    same: bool = True


@dataclass(frozen=True)
class _Slot:
    """A place of a record that has the position of a text."""

    field: Field
    place: int
    base: int | None = None
    """the slot of the folder that the text is relative to"""

    @property
    def is_argument(self) -> bool:
        return self.field.type == _CALLS


def redacted(gadget: Gadget, data: bytes | memoryview, redactor: Redactor, bounds: Sequence[int] = (0,)) -> list[bytes]:
    """The records of frames, which begin at `bounds`, without what the rules take. Raises FrameError."""
    batch = decode(gadget.as_sent(), "", data, bounds=np.array(bounds, np.int64))
    heads, tails = _Records(gadget, batch, redactor).rewritten()
    rows = [*np.searchsorted(batch.starts, bounds).tolist(), len(batch)]
    pieces = list(chain.from_iterable(zip(heads, tails, strict=True)))
    return [b"".join(pieces[first * 2 : end * 2]) for first, end in pairwise(rows)]


class _Records:
    """The records of one gadget."""

    def __init__(self, gadget: Gadget, batch: Batch, redactor: Redactor) -> None:
        self._gadget = gadget
        self._all = batch
        self._redactor = redactor
        self._table = "_".join(gadget.command)
        self._fields = batch.gadget.record.fields
        names = [field.name for field in self._fields if field.type in STRING_TYPES]
        self._slots = [
            _Slot(field, place)
            for field in self._fields
            if field.type == _CALLS and not self._rule(field)
            for place in range(field.offset + _FIRST_OF_CALL, field.offset + field.size, 4)
        ]
        first = len(self._slots)
        for field in self._fields:
            if field.type in STRING_TYPES:
                base = f"{field.name}_base" if field.type == "gadget_path_at" else ""
                self._slots.append(_Slot(field, field.offset, first + names.index(base) if base in names else None))
        self._batch, self._of_row, self._times = self._different()

    def rewritten(self) -> tuple[list[bytes], list[bytes]]:
        """The bytes of all records: the part of a fixed size, with the ring buffer's header, and the rest."""
        size = self._all.gadget.record.size
        ends, tails = self._tails(fixed := self._fixed())
        whole = np.zeros((len(self._all), _HEADER + size), np.uint8)
        whole[:, :4] = ends[self._of_row].astype("<u4").view(np.uint8).reshape(-1, 4)
        whole[:, _HEADER:] = self._rows(self._all)
        whole[:, _HEADER:][:, ~self._in_fields()] = 0
        changed = np.flatnonzero(self._not_numbers())
        whole[:, _HEADER + changed] = fixed[:, changed][self._of_row]
        heads, width = whole.tobytes(), _HEADER + size
        of_row = self._of_row.tolist()
        return [heads[at : at + width] for at in range(0, len(heads), width)], list(map(tails.__getitem__, of_row))

    def _different(self) -> tuple[Batch, npt.NDArray[np.intp], list[int]]:
        """One record of those that differ only in numbers; which of them each record is like; how many are alike."""
        batch, size = self._all, self._all.gadget.record.size
        compared = np.flatnonzero(self._not_numbers())
        keys = np.ascontiguousarray(self._rows(batch)[:, compared]).tobytes()
        lengths = batch.buffer.integers(4, signed=False)[batch.starts // 4 - 2].astype(np.int64) & _RECORD_LENGTH
        width, data = len(compared), bytes(batch.buffer.bytes.data)
        places: dict[bytes, int] = {}
        of_row = [
            places.setdefault(keys[at : at + width] + data[start:end], len(places))
            for at, start, end in zip(
                range(0, width * len(batch), width) if width else repeat(0),
                (batch.starts + size).tolist(),
                (batch.starts + lengths).tolist(),
                strict=bool(width),
            )
        ]
        like = np.array(of_row, np.intp)
        _, first, times = np.unique(like, return_index=True, return_counts=True)
        return batch.select(first), like, times.tolist()

    def _rows(self, batch: Batch) -> npt.NDArray[np.uint8]:
        """The fixed parts of records, one in each row."""
        size, count = batch.gadget.record.size, len(batch)
        every = batch.buffer.windows(size)[batch.starts] if count else np.empty(0, f"S{size}")
        return every.view(np.uint8).reshape(count, size)

    def _in_fields(self) -> npt.NDArray[np.bool_]:
        """True for each byte of the fixed part that belongs to a field."""
        return self._bytes_of((field.offset, field.size) for field in self._fields)

    def _not_numbers(self) -> npt.NDArray[np.bool_]:
        """True for each byte of the fixed part that rules may change, or that says where texts are."""
        return self._bytes_of(
            chain(
                ((slot.place, 4) for slot in self._slots),
                ((field.offset, field.size) for field in self._fields if self._is_text(field)),
            )
        )

    def _bytes_of(self, places: Iterable[tuple[int, int]]) -> npt.NDArray[np.bool_]:
        found = np.zeros(self._all.gadget.record.size, np.bool_)
        for offset, size in places:
            found[offset : offset + size] = True
        return found

    def _is_text(self, field: Field) -> bool:
        """True if rules may change the field in the fixed part."""
        is_text = field.type == "gadget_ip" or field.type in _FIXED_TYPES or field.type.startswith("char[")
        return is_text or (field.type == _CALLS and self._rule(field) is not None)

    def _tails(self, fixed: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], list[bytes]]:
        """The length of each different record, and its texts with what is added up to a multiple of 8. Writes where
        the texts are into the fixed parts."""
        count, size = len(self._batch), self._batch.gadget.record.size
        texts = self._texts()
        ends, columns = np.full(count, size, np.int64), []
        for slot, new in zip(self._slots, texts, strict=True):
            full = (ends > _LAST_OFFSET).tolist()
            made = [None if is_full else text for text, is_full in zip(new, full, strict=True)]
            states = np.fromiter((0 if text is None else 1 + text[1] for text in made), np.int8, count)
            columns.append([b"" if text is None else text[0] for text in made])
            lengths = np.fromiter(map(len, columns[-1]), np.int64, count)
            place = np.empty(count, _TEXT)
            place["offset"] = np.where(states == _ABSENT, 0, ends)
            absent = 0 if slot.is_argument else 1
            place["length"] = np.where(states == _ABSENT, absent, lengths | np.where(states == _WAS_CUT, _CUT, 0))
            fixed[:, slot.place : slot.place + 4] = place.view(np.uint8).reshape(count, 4)
            ends += lengths
        padding = [bytes(number) for number in range(8)]
        last = [padding[number] for number in (-ends % 8).tolist()]
        return ends, list(map(b"".join, zip(*columns, last, strict=True)))

    # Fields of a fixed size

    def _fixed(self) -> npt.NDArray[np.uint8]:
        """The fixed parts of the different records."""
        found = self._rows(self._batch)
        for field in self._fields:
            if field.type == _CALLS and (rule := self._rule(field)):
                self._redactor.count(rule.name, self._where(field), sum(self._times))
                found[:, field.offset : field.offset + field.size] = 0
            elif self._is_text(field):
                self._replace(found, field, self._address if field.type == "gadget_ip" else self._fixed_text)
        return found

    def _counted(self, values: Iterable[_Value]) -> dict[_Value, int]:
        """Return the number of records with each value."""
        if max(self._times, default=1) == 1:
            return Counter(values)
        found: dict[_Value, int] = {}
        for value, times in zip(values, self._times, strict=True):
            found[value] = found.get(value, 0) + times
        return found

    def _replace(self, rows: npt.NDArray[np.uint8], field: Field, make: Callable[[bytes, Field, int], bytes]) -> None:
        place = slice(field.offset, field.offset + field.size)
        values = np.ascontiguousarray(rows[:, place]).view(f"S{field.size}").ravel().tolist()
        counted = self._counted(values)
        made = {value: make(value.ljust(field.size, b"\0"), field, number) for value, number in counted.items()}
        changed = np.array([made[value] for value in values], f"S{field.size}")
        rows[:, place] = changed.view(np.uint8).reshape(len(values), field.size)

    def _address(self, value: bytes, field: Field, times: int) -> bytes:
        return self._redactor.address(value, self._where(field), times)

    def _fixed_text(self, value: bytes, field: Field, times: int) -> bytes:
        text = value.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        changed = self._redactor.text(text, self._where(field), times).encode("utf-8", "surrogateescape")
        return changed[: field.size - 1]

    # Texts

    def _texts(self) -> list[list[Text | None]]:
        """The new texts of each slot, one per row."""
        read = [self._read(slot) for slot in self._slots]
        made, lacking = list[list[_Made]](), list[bool]()
        for slot, values in zip(self._slots, read, strict=True):
            bases: Iterable[Text | None] = repeat(None) if slot.base is None else read[slot.base]
            keys: list[Key] = list(zip(values, bases, strict=False)) if any(values) else [(None, None)] * len(values)
            different = {key: self._rewritten(slot, *key, number) for key, number in self._counted(keys).items()}
            made.append(list(map(different.__getitem__, keys)))
            lacking.append(any(each.gone for each in different.values()))
        found = [[each.text for each in column] for column in made]
        if any(lacking):
            rows = list(zip(*(column for column, lacks in zip(made, lacking, strict=True) if lacks), strict=True))
            self._take_parts(found, made, [tuple(each.gone for each in row if each.gone) for row in rows])
        return found

    def _take_parts(self, found: list[list[Text | None]], made: list[list[_Made]], gone: list[tuple[str, ...]]) -> None:
        """Take out each relative path that is the end of one that was taken out of the same record."""
        for number, slot in enumerate(self._slots):
            column = found[number]
            if slot.is_argument or slot.field.type in ("gadget_data", "gadget_strings") or not any(column):
                continue
            asked = [
                (each.text, paths) if paths and each.same and each.text is not None else None
                for each, paths in zip(made[number], gone, strict=True)
            ]
            new = {
                key: self._without_part(slot.field, *key, times) if key else None
                for key, times in self._counted(asked).items()
            }
            found[number] = [new[key] if key else text for key, text in zip(asked, column, strict=True)]

    def _without_part(self, field: Field, known: Text, gone: tuple[str, ...], times: int) -> Text:
        text = known[0].decode("utf-8", "surrogateescape")
        is_path = field.type == "gadget_path"
        plain = (join_path(text, True) or "").lstrip("/") if is_path else text.removeprefix("./")
        if not plain or text.startswith("/") or not any(whole.endswith(plain) for whole in gone):
            return known
        self._redactor.count("parts of these", self._where(field), times)
        return (self._redactor.word(plain) + ("\0" if is_path else "")).encode(), known[1]

    def _read(self, slot: _Slot) -> list[Text | None]:
        spans = self._batch.spans(Field(slot.field.name, slot.place, 4, "gadget_string"))
        if not spans.readable.any():
            return [None] * len(self._batch)
        data = self._batch.buffer.bytes.data
        ends = (spans.starts + spans.lengths).tolist()
        rows = zip(spans.starts.tolist(), ends, spans.readable.tolist(), spans.cut.tolist(), strict=True)
        return [(bytes(data[start:end]), is_cut) if is_there else None for start, end, is_there, is_cut in rows]

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

    def _rewritten(self, slot: _Slot, value: Text | None, base: Text | None, times: int) -> _Made:
        if value is None:
            return _Made(None)
        (data, cut), field, redactor = value, slot.field, self._redactor
        where = self._where(field)
        if slot.is_argument:
            return _changed(redactor.text(data.decode("utf-8", "surrogateescape"), where, times), cut)
        if rule := self._rule(field):
            redactor.count(rule.name, where, times)
            return _Made(None)
        if field.type == "gadget_data":
            return _Made(value)
        text = data.decode("utf-8", "surrogateescape")
        if field.name in _OF_POLICIES and text and (rule := redactor.takes("names")):
            redactor.count(rule.name, where, times)
            return _Made((redactor.word(text, rule.action).encode(), False), same=False)
        if field.type == "gadget_strings":
            changed = "\0".join(redactor.text(part, where, times) for part in text.split("\0"))
            return _changed(changed, cut) if changed != text else _Made(value)
        if field.type == "gadget_path":
            whole = join_path(text, cut) or ""
        elif base is not None and not text.startswith("/"):
            folder = join_path(base[0].decode("utf-8", "surrogateescape"), base[1]) or ""
            whole = f"{folder.rstrip('/')}/{text}" if text else folder
        else:
            whole = text
        changed = redactor.text(whole, where, times)
        if changed == whole and cut and field.type == "gadget_path":
            changed = redactor.cut_path(whole, where, times)
        if changed == whole:
            return _Made(value)
        if field.type == "gadget_path":
            changed = "\0".join(reversed(changed.split("/"))).removesuffix("\0") + "\0"
        return _changed(changed, cut, whole)


def _changed(text: str, cut: bool, gone: str = "") -> _Made:
    return _Made((text.encode("utf-8", "surrogateescape")[:_LENGTH], cut), gone, same=False)
