"""Text that came from the kernel, made safe for people's eyes and terminals.

A file may be named with terminal escapes, newlines or bidirectional overrides. What is not printable is shown as an
escape: `\\n`, `\\x1b`, `\\u202e`, and `\\xff` for a byte that is not UTF-8. The trap: a backslash that is really
there stays as it is, since systemd puts `\\x2d` into the names of real files; for exact text there is JSON.
"""

from collections.abc import Sequence

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    """One text, safe to print."""
    return text if text.isprintable() else "".join(map(_escape_character, text))


def escape_all(texts: Sequence[str]) -> Sequence[str]:
    """Many texts; all of them are looked at in one go, since most columns have nothing to escape."""
    return texts if "".join(texts).isprintable() else list(map(escape, texts))


def _escape_character(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
