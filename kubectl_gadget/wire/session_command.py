"""The command that starts a session: which gadgets it may run, whether it may enforce, and what it may see.

Its words are in the API server's audit log, and the admission policy of contained agents decides by them
(manifests/observer-policy.yaml). The trap: only one spelling is valid, in one order; a second spelling would bypass a
rule about the first.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kubectl_gadget.wire.client_messages import AnyGadget, GadgetSpec
from kubectl_gadget.wire.policy_messages import PolicyHookSpec, PolicySpec

if TYPE_CHECKING:
    from typing import Self

SESSION = "session"
_CONTAINED, _GADGETS, _ENFORCES, _NAMESPACE = "--contained", "--gadgets=", "--enforces", "--only-namespace="
MOST_GADGETS = 32
OWN = "own:"
"""Prefix of the name of a gadget that a user wrote."""
_NAME = r"(own:)?[A-Za-z0-9_.-]{1,63}"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""A namespace's name (RFC 1123). Both patterns are compiled at first use, since a local agent needs neither."""


class SessionCommand(NamedTuple):
    """The meaning of the words after `session`."""

    gadgets: tuple[str, ...] | None = None
    """names as in RUN, with the prefix OWN for users' gadgets; None: not declared"""
    enforces: bool = False
    """True if it may refuse calls, change them, or signal processes"""
    contained: bool = False
    """True if it may run only gadgets of the agent's own catalogue, with checked values. It declares at least one,
    since the user's right is checked by their names, and a session names containers"""
    namespace: str | None = None
    """the only namespace whose containers it may see"""

    def words(self) -> tuple[str, ...]:
        """Returns the words, including `session`."""
        found = [SESSION]
        found += [_CONTAINED] if self.contained else []
        found += [_GADGETS + ",".join(self.gadgets)] if self.gadgets is not None else []
        found += [_ENFORCES] if self.enforces else []
        found += [_NAMESPACE + self.namespace] if self.namespace is not None else []
        return tuple(found)

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Self | None":
        """Parses the words, including `session`. Returns None when they do not follow the grammar."""
        gadgets = next((word.removeprefix(_GADGETS) for word in words if word.startswith(_GADGETS)), None)
        namespace = next((word.removeprefix(_NAMESPACE) for word in words if word.startswith(_NAMESPACE)), None)
        names = None if gadgets is None else tuple(gadgets.split(",")) if gadgets else ()
        found = cls(names, _ENFORCES in words, _CONTAINED in words, namespace)
        if found.words() != tuple(words) or not found._is_valid():
            return None
        return found

    def _is_valid(self) -> bool:
        names = self.gadgets or ()
        return (
            len(names) <= MOST_GADGETS
            and all(re.fullmatch(_NAME, name) for name in names)
            and (self.namespace is None or re.fullmatch(_LABEL, self.namespace) is not None)
            and not (self.contained and (self.enforces or not names or any(name.startswith(OWN) for name in names)))
        )


DRY_RUN = "dry_run"
"""The variable that keeps gadgets that enforce from doing so."""
_ACTIONS = ("policy_signals", "policy_sets", "policy_overrides")
"""Variables that let the policies' programs do more than observe."""
UNDECLARED = SessionCommand()
NO_GADGETS = SessionCommand(())
"""For sessions that only read a node's HELLO and HOOKS."""
STATUS = SessionCommand(("status",))
"""For sessions that only read a contained agent's HELLO. No gadget is called so, so its RUN is always refused."""


def declared_name(spec: AnyGadget) -> str:
    """Returns the name by which a command declares an entry of RUN's `gadgets`."""
    return f"{OWN if isinstance(spec, GadgetSpec) and spec.own else ''}{spec.name}"


def enforces(spec: AnyGadget) -> bool:
    """True if an entry of RUN's `gadgets`, with a known object, can do more than observe. The values that the BPF
    programs use decide, not what the client calls them."""
    if isinstance(spec, PolicySpec):
        return bool(spec.kill) or any(map(_hook_enforces, spec.hooks))
    if not isinstance(spec, GadgetSpec) or DRY_RUN not in spec.globals:
        return False
    dry_run = spec.parameters.get(DRY_RUN)
    return not isinstance(dry_run, int) or not dry_run


def acts(spec: GadgetSpec, elf: bytes) -> bool:
    """True if a user's own gadget could do more than observe. Any program can be attached as a uprobe, and since Linux
    6.18 uprobes can set registers."""
    return bool(spec.libraries) or could_act(elf)


def _hook_enforces(hook: PolicyHookSpec) -> bool:
    """True if the variables of the hook, or of a way, let programs do more than observe."""
    variables = [hook.variables, *(way.variables for way in hook.ways)]
    return any(each.get(name) for each in variables for name in _ACTIONS)


# BPF objects that could do more than observe: refuse calls or packets, change them, or signal processes.


_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_MAGIC = b"\x7fELF\x02\x01\x01"
"""64 bits, little-endian. Anything else counts as acting."""
_PROGBITS, _SYMTAB, _REL = 1, 2, 9
_EXECUTED, _COMPRESSED = 4, 1 << 11
_CALL, _INSTRUCTION, _SYMBOL = 0x85, 8, 24
_HELPER, _OWN_FUNCTION = 0, 1
"""The source register of a call instruction says what is called."""
_LAST_HELPER = 211
"""The kernel gets no new helpers; one with a higher number was not reviewed."""
_ACTING = frozenset(
    {
        36,  # bpf_probe_write_user
        49,  # bpf_setsockopt
        58,  # bpf_override_return
        109,  # bpf_send_signal
        117,  # bpf_send_signal_thread
        159,  # bpf_bprm_opts_set
        166,  # bpf_sys_bpf
        168,  # bpf_sys_close
        187,  # bpf_set_retval
    }
)
"""Helpers for tracing programs that change something. Those for packets are not listed, since all programs for packets
count as acting."""
_OBSERVING = frozenset(
    {
        *("tracepoint", "tp", "raw_tp", "raw_tracepoint", "tp_btf", "perf_event", "iter", "iter.s"),
        *("kprobe", "kretprobe", "ksyscall", "kretsyscall", "kprobe.multi", "kretprobe.multi", "kprobe.session"),
        *("fentry", "fentry.s", "fexit", "fexit.s"),
    }
)
"""Kinds of programs, as sections are named, whose result is ignored and whose context is read-only. Not uprobes, which
may set registers since Linux 6.18."""


class _Section(NamedTuple):
    name: str
    type: int
    flags: int
    content: bytes
    info: int


def could_act(elf: bytes) -> bool:
    """True if any program in the object could do more than observe. True if that is unknown."""
    try:
        sections = list(_sections(elf))
    except (struct.error, IndexError, ValueError):
        return True
    return any(_acts(section) for section in sections) or _calls_kernel(sections)


def _acts(section: _Section) -> bool:
    if section.type != _PROGBITS or not section.flags & _EXECUTED or not section.content:
        return False
    kind = section.name.removeprefix("?").partition("/")[0]
    if section.flags & _COMPRESSED or (section.name != ".text" and kind not in _OBSERVING):
        return True
    return any(map(_is_acting_call, _calls(section.content)))


def _calls(code: bytes) -> Iterator[bytes]:
    """Yields the call instructions."""
    place = -1
    opcodes = code[::_INSTRUCTION]
    while (place := opcodes.find(_CALL, place + 1)) >= 0:
        yield code[place * _INSTRUCTION : (place + 1) * _INSTRUCTION]


def _is_acting_call(instruction: bytes) -> bool:
    what = instruction[1] >> 4
    helper = int.from_bytes(instruction[4:8], "little")
    return helper in _ACTING or helper > _LAST_HELPER if what == _HELPER else what != _OWN_FUNCTION


def _calls_kernel(sections: list[_Section]) -> bool:
    """True if any call is to a symbol that the object does not define: a kernel function."""
    tables = [section.content for section in sections if section.type == _SYMTAB]
    symbols = tables[0] if len(tables) == 1 else b""
    for section in sections:
        if section.type != _REL or section.info >= len(sections) or not sections[section.info].flags & _EXECUTED:
            continue
        code = sections[section.info].content
        for place, info in struct.iter_unpack("<QQ", section.content[: len(section.content) // 16 * 16]):
            if code[place : place + 1] == bytes((_CALL,)):
                at = (info >> 32) * _SYMBOL
                if symbols[at + 6 : at + 8] in (b"", b"\0\0"):
                    return True
    return False


def _sections(elf: bytes) -> Iterator[_Section]:
    if not elf.startswith(_MAGIC):
        raise ValueError("not a 64-bit little-endian ELF file")
    _, _, _, _, _, start, _, _, _, _, size, count, names = _HEADER.unpack_from(elf)
    if size != _SECTION.size or not 0 < names < count:
        raise ValueError("its section headers cannot be read")
    headers = [_SECTION.unpack_from(elf, start + number * size) for number in range(count)]
    strings = elf[headers[names][4] : headers[names][4] + headers[names][5]]
    for name, type, flags, _, offset, length, _, info, _, _ in headers:
        text = strings[name : strings.index(b"\0", name)].decode()
        content = elf[offset : offset + length] if type in (_PROGBITS, _SYMTAB, _REL) else b""
        if len(content) < length and type in (_PROGBITS, _SYMTAB, _REL):
            raise ValueError("a section is beyond the file's end")
        yield _Section(text, type, flags, content, info)
