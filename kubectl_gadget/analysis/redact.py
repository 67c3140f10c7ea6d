"""Copies a recording without the data that rules remove: `recording redact`.

All parts of a segment are rewritten: events, names of containers and nodes, the cluster's objects, stacks, the command.
The trap: data of unknown form cannot be redacted, so records of unknown kinds and damaged segments are left out.
"""

import ipaddress
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

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
_FIXED = frozenset({"kind", "runtime", "apiVersion", "protocol", "phase", "type", "operator", "architecture", "agent"})
"""members that hold words of this program or of Kubernetes, which stay even if a pod has the same name"""
_OF_PROGRAM = frozenset(
    {"version", "began_ns", "command", "gadgets", "interval", "by_labels", "local", "objects", "run"}
)
"""members of META that say nothing about what was traced, or that have a rule of their own"""
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
        made, payloads, at = list[bytes](), list[bytes](), 0
        for record in layout.records(control):
            if record.kind == RecordKind.EVENTS:
                payload, at = events[at : at + record.length], at + record.length
                if self._is_of_policies(payload):
                    self._redactor.count("policies", "EVENTS")
                    continue
                try:
                    payload = self._events(payload)
                except (FrameError, ValueError):
                    self.left_out += 1
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

    def _is_of_policies(self, payload: bytes) -> bool:
        try:
            return split_events(payload)[0].gadget in self._of_policies
        except FrameError:
            return False

    def _events(self, payload: bytes) -> bytes:
        head, data = split_events(payload)
        if head.gadget >= len(self._gadgets):
            raise FrameError("events of an unknown gadget")
        return head.encode() + redacted(self._gadgets[head.gadget], data, self._redactor)

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


def _collect(value: Any, names: set[str], member: str = "") -> None:
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


# The records of EVENTS frames: each is built again from its fields, so bytes that belong to no field are gone. The
# trap: a text stands in several columns of a record (as written, resolved, relative), so a part of a path that was
# taken out of one goes from the others as well.

_HEADER, _TEXT = struct.Struct("<II"), struct.Struct("<HH")
_CUT, _LENGTH, _UNREAD = 0x8000, 0x7FFF, (0, 1)
_ARGUMENTS = ("args", "arguments", "parameters")
_CONTENTS = ("payload", "data", "packet", "text", "arguments")
_DATA_OF_CALLS = (("trace_mount", "options"),)
"""texts that are data of system calls, such as the password of a network file system"""
_OF_POLICIES = ("policy", "rule")
"""names of NetworkPolicies, which are in no object of the recording, and what these say"""
_CALLS = "gadget_syscall_arguments"
_FIXED_TYPES = ("gadget_comm", "gadget_device")


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
            elif field.type in _FIXED_TYPES or field.type.startswith("char["):
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
