"""Patterns in policies: regular expressions of function names, and globs of paths.

The trap: the API's regular expressions are Go's, which differ from Python's; what both have in common is taken.
"""

import re
from functools import cache

from kubectl_gadget.policies.document import Scalar, WrongPolicy

_ONLY_PYTHON = re.compile(r"\(\?(?:[=!]|<[=!]|\()|\\[1-9]|\\Z")


def check_pattern(scalar: Scalar) -> None:
    """Raises WrongPolicy when it is no regular expression that both languages know."""
    try:
        re.compile(scalar.text)
    except (re.error, RecursionError, OverflowError) as error:
        raise WrongPolicy(scalar.place, f"{scalar.text!r} is no regular expression: {error}") from None
    if found := _ONLY_PYTHON.search(scalar.text):
        raise WrongPolicy(scalar.place, f"{found[0]!r} is not known in regular expressions of policies")


def glob_matches(pattern: str, text: str) -> bool:
    """Whether a glob covers the whole text: `*` and `?` within a component, `**` over components, [a-z], [!a-z]."""
    return _glob(pattern).fullmatch(text) is not None


@cache
def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.findall(r"\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)
    return re.compile("".join(map(_glob_part, parts)), re.DOTALL)


def _glob_part(part: str) -> str:
    if part == "**":
        return ".*"
    if part == "*":
        return "[^/]*"
    if part == "?":
        return "[^/]"
    if part.startswith("[") and len(part) > 2:
        negated = part[1] == "!"
        inner = re.sub(r"([\\\[\]^&~|])", r"\\\1", part[2 if negated else 1 : -1])
        return f"(?!/)[{'^' if negated else ''}{inner}]"
    return re.escape(part)
