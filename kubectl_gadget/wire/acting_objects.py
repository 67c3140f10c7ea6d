"""Whether a BPF object could do more than observe: refuse calls or packets, change them, or signal processes.

That depends only on what the kernel runs: the kinds of programs, and the helpers and kernel functions that they call.
The trap: names of variables and their initial values come from the object's author and prove nothing, so an object that
could act counts as acting, whatever it calls its switches; and so does everything that is unknown here.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

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
    """Whether any program in the object could do more than observe. True if that is unknown."""
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
    """Whether any call is to a symbol that the object does not define: a kernel function."""
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
