"""Patterns in policies: regular expressions for function names, and globs for paths.

The trap: the API uses Go's regular expressions, which differ from Python's; only the common subset is accepted.
"""

import re
from functools import cache

from kubectl_gadget.yaml_reader import Scalar, WrongYaml

_PARTS = r"\*\*|\*|\?|\[!?\]?[^\]]*\]|."
_ONLY_PYTHON = re.compile(r"\(\?(?:[=!]|<[=!]|\()|\\[1-9]|\\Z")


def check_pattern(scalar: Scalar) -> None:
    """Raises WrongYaml when it is not a regular expression that is valid in both languages."""
    try:
        re.compile(scalar.text)
    except (re.error, RecursionError, OverflowError) as error:
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not a valid regular expression: {error}") from None
    if found := _ONLY_PYTHON.search(scalar.text):
        raise WrongYaml(scalar.place, f"{found[0]!r} is not supported in regular expressions of policies")


def check_glob(scalar: Scalar) -> None:
    """Raises WrongYaml when it is not a valid glob."""
    for part in re.findall(_PARTS, scalar.text, re.DOTALL):
        if _is_class(part) and not part.isascii():
            raise WrongYaml(scalar.place, f"{part!r}: brackets match one byte, but these characters have several")
        try:
            re.compile(glob_part_pattern(part))
        except re.error as error:
            raise WrongYaml(scalar.place, f"{part!r} is not a valid set of characters: {error}") from None


def glob_parts(pattern: str) -> list[str]:
    """A glob's parts: `**`, `*`, and others, each of which matches one byte (glob_bytes)."""
    found: list[str] = []
    for part in re.findall(_PARTS, bytewise(pattern), re.DOTALL):
        found += [part] if part == "**" or _is_class(part) else part
    return found


@cache
def glob_bytes(part: str) -> frozenset[int]:
    matches = re.compile(glob_part_pattern(part), re.DOTALL).fullmatch
    return frozenset(byte for byte in range(256) if matches(chr(byte)))


def bytewise(text: str) -> str:
    """The text with one character for each byte of its encoding."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _is_class(part: str) -> bool:
    return part.startswith("[") and len(part) > 2


def glob_part_pattern(part: str) -> str:
    """The regular expression for a part."""
    if part == "**":
        return ".*"
    if part == "*":
        return "[^/]*"
    if part == "?":
        return "[^/]"
    if _is_class(part):
        negated = part[1] == "!"
        inner = re.sub(r"([\\\[\]^&~|])", r"\\\1", part[2 if negated else 1 : -1])
        return f"(?!/)[{'^' if negated else ''}{inner}]"
    return re.escape(part)
