"""Suggests a correction for an expression that is not CEL, or whose names and types do not fit.

Filters are typed by people who know other languages: SQL, jq, tcpdump, Python, Go. A suggestion is the whole corrected
expression, quoted for a shell. The trap: it is offered only if it parses, so that it does not lead to the next error.
"""

import re
import shlex
from collections.abc import Callable, Collection, Sequence
from typing import Any

from kubectl_gadget.filters import cel_syntax
from kubectl_gadget.filters.cel_types import FUNCTIONS, MACROS, METHODS, Shape
from kubectl_gadget.similar_names import nearest, suggested

_TEXT = r"""(?:[rR]?"(?:\\.|[^"\\])*"|[rR]?'(?:\\.|[^'\\])*')"""
_WORD = r"[A-Za-z_][\w.]*"
_FEW = 24
"""More names than this do not fit into a message."""
_BARE = re.compile(r"[\w.*:/@+%-]+")
"""Text that needs no escaping inside quotes."""
_METHOD_NAMES = {
    "startswith": "startsWith", "starts_with": "startsWith", "hasprefix": "startsWith", "prefix": "startsWith",
    "endswith": "endsWith", "ends_with": "endsWith", "hassuffix": "endsWith", "suffix": "endsWith",
    "contains": "contains", "includes": "contains", "include": "contains", "has": "contains", "icontains": "contains",
    "match": "matches", "matches": "matches", "regex": "matches", "regexp": "matches", "like": "matches",
    "ilike": "matches", "glob": "matches", "test": "matches", "search": "matches", "len": "size",
    "length": "size", "count": "size",
    "any": "exists", "some": "exists", "every": "all", "str": "string", "tostring": "string", "float": "double",
}  # fmt: skip
"""Names that other languages have for CEL's functions, in lower case."""

_WILDCARDS = {"like": ("%", "_"), "ilike": ("%", "_"), "glob": ("*", "?")}
"""Of words with a pattern: what stands for any text, and for any character."""

Fix = tuple[re.Pattern[str], "str | Callable[[re.Match[str]], str]", str]


def _infix(match: re.Match[str]) -> str:
    column, word, literal = match["left"], match["word"].lower(), match["right"]
    return _wildcards(column, word, literal) or f"{column}.{_METHOD_NAMES[word]}({literal})"


def _wildcards(column: str, word: str, literal: str) -> str | None:
    """Return the condition for SQL's LIKE, or for a glob, which compare the whole text; None: `word` is neither."""
    if word not in _WILDCARDS:
        return None
    many, one = _WILDCARDS[word]
    raw = literal[:1] in "rR"
    text = literal[2:-1] if raw else literal[1:-1]
    if not raw and "\\" in text:
        return None
    inner = text.strip(many)
    if not any(mark in inner for mark in (many, one, '"')):
        begins, ends = not text.startswith(many), not text.endswith(many)
        if begins and ends:
            return f'{column} == "{inner}"'
        method = "startsWith" if begins else "endsWith" if ends else "contains"
        return f'{column}.{method}("{inner}")'
    pattern = "".join(".*" if mark == many else "." if mark == one else re.escape(mark) for mark in text)
    quote = "'" if '"' in pattern else '"'
    return f"{column}.matches(r{quote}^{pattern}${quote})" if quote not in pattern else None


def _fix(pattern: str, replacement: "str | Callable[[re.Match[str]], str]", why: str) -> Fix:
    return re.compile(pattern, re.IGNORECASE), replacement, why


def _nanoseconds(match: re.Match[str]) -> str:
    units = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
    return str(int(match[1]) * units[match[2].lower()])


def _bytes(match: re.Match[str]) -> str:
    return str(int(match[1]) << {"K": 10, "M": 20, "G": 30}[match[2][0].upper()])


_FIXES: Sequence[Fix] = (
    _fix("[“”„‟]", '"', 'write text in plain quotes: "text"'),
    _fix("[‘’‚‛]", "'", "write text in plain quotes: 'text'"),
    _fix(rf"(?P<left>{_WORD})\s*!~\s*(?P<right>{_TEXT})", r"!\g<left>.matches(\g<right>)", "matches() takes a pattern"),
    _fix(rf"(?P<left>{_WORD})\s*=?~\s*(?P<right>{_TEXT})", r"\g<left>.matches(\g<right>)", "matches() takes a pattern"),
    _fix(
        rf"(?P<left>{_WORD})\s+(?P<word>{'|'.join(sorted(_METHOD_NAMES))})\s+(?P<right>{_TEXT})",
        _infix,
        "this is a method in CEL",
    ),
    _fix(r"\bis\s+not\s+null\b", "!= null", "CEL writes != null"),
    _fix(r"\bis\s+null\b", "== null", "CEL writes == null"),
    _fix(rf"({_WORD})\s+not\s+in\b", r"!(\1 in", "CEL writes ! before the condition"),
    _fix(r"\bin\s*\(([^()]*)\)", r"in [\1]", "write a list in square brackets"),
    _fix(r"<>", "!=", "CEL writes != for not equal"),
    _fix(r"!==", "!=", "CEL writes != for not equal"),
    _fix(r"===", "==", "CEL writes == for equal"),
    _fix(r"(?<![=!<>~])=(?![=~])", "==", "CEL writes == for equal"),
    _fix(r"\band\b", "&&", "CEL writes && for and"),
    _fix(r"\bor\b", "||", "CEL writes || for or"),
    _fix(rf"\bnot\s+((?:{_TEXT}|(?!&&|\|\|)[^)])*[^)\s&|])", r"!(\1)", "CEL writes ! for not"),
    _fix(rf"({_WORD})\s*==\s*([\w./-]+)\*", r'\1.startsWith("\2")', "startsWith() tests how a text begins"),
    _fix(r"^\s*(\w+)\s*:\s*([^\s\"'?:]+)\s*$", r'\1 == "\2"', "CEL writes == for equal"),
    _fix(r"[;,]\s*$", "", "nothing may follow the condition"),
    _fix(r"(?<!&)&(?!&)", "&&", "CEL writes && for and"),
    _fix(r"(?<!\|)\|(?!\|)", "||", "CEL writes || for or"),
    _fix(
        r"\b(\d+)\s*(ns|us|µs|ms|s|m|h)\b",
        _nanoseconds,
        "numbers have no unit; durations are in ns",
    ),
    _fix(r"\b(\d+)\s*([KMG]i?)B?\b", _bytes, "numbers have no unit"),
    _fix(r"(?<![\w.)\]])(\d+(?:\.\d+){3}(?:/\d+)?)\b", r'"\1"', "write text in quotes"),
    _fix(r"(?<![\w)\]])(/[\w./*-]*)", r'"\1"', "write text in quotes"),
)
"""Applied in this order, outside of quoted texts: the pattern, its replacement, and the reason."""


def unparsed(text: str, offset: int) -> tuple[str, str | None]:
    """The reason why an expression does not parse at this offset, and the suggested expression if there is one."""
    if quote := re.search("[\"']", re.sub(_TEXT, "", text)):
        closed = text + quote[0]
        return "this text has no closing quote", shlex.quote(closed) if cel_syntax.parses(closed) else None
    changed, found = text, list[tuple[int, str]]()
    for pattern, replacement, why in _FIXES:
        place = _first_outside_texts(pattern, text)
        changed_now = _replace_outside_texts(pattern, replacement, changed)
        if changed_now != changed:
            changed = changed_now
            found.append((offset if place is None else place, why))
    # For those that the fix for `not in` has opened.
    changed += ")" * (changed.count("(") - changed.count(")"))
    if not found or not cel_syntax.parses(changed):
        return "this is not expected here", None
    # The reason nearest to the offset where parsing stopped; of equally near ones, the first.
    found.sort(key=lambda item: (abs(item[0] - offset), item[0]))
    return found[0][1], shlex.quote(changed)


def _first_outside_texts(pattern: re.Pattern[str], text: str) -> int | None:
    inside = [match.span() for match in re.finditer(_TEXT, text)]
    for match in pattern.finditer(text):
        if not any(start < match.start() < end for start, end in inside):
            return match.start()
    return None


def _replace_outside_texts(
    pattern: re.Pattern[str], replacement: "str | Callable[[re.Match[str]], str]", text: str
) -> str:
    inside = [match.span() for match in re.finditer(_TEXT, text)]

    def replace(match: re.Match[str]) -> str:
        if any(start <= match.start() < end for start, end in inside):
            return match[0]
        return replacement(match) if callable(replacement) else match.expand(replacement)

    return pattern.sub(replace, text)


def never(text: str, side: cel_syntax.Tree, value: str, names: Collection[str]) -> tuple[str, str | None]:
    """Says that `side` never has this value, and which of its values may be meant."""
    meant = suggested(value, names, only_near=len(names) > _FEW)
    return f"{_written(text, side)} is never {value!r}", meant or None


def quoted(
    text: str, side: cel_syntax.Tree, other: cel_syntax.Tree, shape: Shape, columns: Sequence[str]
) -> str | None:
    """The expression with quotes around `side`, which is not a column; it is compared with `other`, of this shape."""
    start, end = _span(side)
    written = text[start:end].lstrip("-")
    if shape.name == "int" and (named := _names_of(other, columns)) is not None and _BARE.fullmatch(written):
        return _changed(text, [(start, end, f'"{written}"'), (*_span(other), named)])
    if shape.name not in ("text", "dyn") and not (shape.item and shape.item.name == "text"):
        return None
    tree = cel_syntax.unwrap(side)
    if tree.data == "list_lit":
        items = [(item, _written(text, item)) for item in cel_syntax.arguments(tree, 0)]
        return _changed(text, [(*_span(item), f'"{bare}"') for item, bare in items if _BARE.fullmatch(bare)])
    return _changed(text, [(start, end, f'"{written}"')]) if _BARE.fullmatch(written) else None


def other_type(
    text: str,
    tree: cel_syntax.Tree,
    left_tree: cel_syntax.Tree,
    right_tree: cel_syntax.Tree,
    left: Shape,
    right: Shape,
    columns: Sequence[str],
) -> str | None:
    """Corrects a comparison of two types: the literal with the column's type, or a column of the literal's type."""
    for side, other, shape, wanted in ((right_tree, left_tree, right, left), (left_tree, right_tree, left, right)):
        literal = cel_syntax.unwrap(side)
        if literal.data != "literal":
            continue
        written = _written(text, side)
        plain = written.strip("\"'")
        match shape.name, wanted.name:
            case "text", "int" if re.fullmatch(r"-?\d+", plain):
                return _changed(text, [(*_span(side), plain)])
            case "text", "int" if (named := _names_of(other, columns)) is not None:
                return _changed(text, [(*_span(other), named)])
            case "text", "bool" if plain.lower() in ("true", "false"):
                return _changed(text, [(*_span(side), plain.lower())])
            case "int", "bool" if plain in ("0", "1"):
                return _changed(text, [(*_span(side), "true" if plain == "1" else "false")])
            case "int", "text":
                return _changed(text, [(*_span(side), f'"{written}"')])
            case "text", "list":
                return _changed(text, [(*_span(tree), f"{written} in {_written(text, other)}")])
            case "double", "int":
                return _changed(text, [(*_span(other), f"double({_written(text, other)})")])
    return None


def contained(
    text: str, tree: cel_syntax.Tree, left_tree: cel_syntax.Tree, right_tree: cel_syntax.Tree, left: Shape, right: Shape
) -> str | None:
    """Corrects `in` without a list on its right."""
    first, second = _written(text, left_tree), _written(text, right_tree)
    if left.name == right.name == "text" and cel_syntax.unwrap(right_tree).data != "literal":
        return _changed(text, [(*_span(tree), f"{second}.contains({first})")])
    if left.name == right.name:
        return _changed(text, [(*_span(right_tree), f"[{second}]")])
    return None


def as_condition(text: str, tree: cel_syntax.Tree, shape: Shape) -> str | None:
    """Corrects a value in place of a condition."""
    if _BARE.fullmatch(text.strip()):
        return f"a whole condition, in single quotes: '{text.strip()} == …'"
    test = {"int": "{} != 0", "text": '{} != ""', "list": "size({}) > 0", "null": None}.get(shape.name)
    if test is None or cel_syntax.unwrap(tree).data == "literal":
        return None
    return _changed(text, [(*_span(tree), test.format(_written(text, tree)))])


def function(text: str, tree: cel_syntax.Tree, name: str, is_method: bool) -> str:
    """Suggests a replacement for a function that CEL does not have."""
    known = METHODS | set(MACROS) if is_method else (set(FUNCTIONS) | {"has"})
    token: cel_syntax.Tree = tree.children[1] if is_method else tree.children[0]
    if is_method and name.lower() in _WILDCARDS and (fixed := _wildcard_method(text, tree, name.lower())):
        return fixed
    found = _METHOD_NAMES.get(name.lower())
    if found is None or (found not in known and is_method):
        found = nearest(name, known, most=1)
    if found is None:
        words = [*sorted(METHODS), "exists", "all"] if is_method else sorted(known)
        return f"one of {', '.join(f'{word}()' for word in words)}"
    return _changed(text, [(token.start_pos, token.end_pos, found)]) or f"{found}()?"


def _wildcard_method(text: str, tree: cel_syntax.Tree, name: str) -> str | None:
    arguments = cel_syntax.arguments(tree, 2)
    literal = _written(text, arguments[0]) if len(arguments) == 1 else ""
    if not re.fullmatch(_TEXT, literal):
        return None
    condition = _wildcards(_written(text, tree.children[0]), name, literal)
    return _changed(text, [(*_span(tree), condition)]) if condition else None


def called(text: str, name: cel_syntax.Tree) -> str | None:
    """Corrects a method without parentheses."""
    return _changed(text, [(name.end_pos, name.end_pos, "()")])


def argument(
    text: str, tree: cel_syntax.Tree, name: str, item: cel_syntax.Tree, shape: Shape, place: int
) -> str | None:
    """Corrects an argument of the wrong type; place 0 is the receiver."""
    written = _written(text, item)
    if place == 1 and shape.name == "int":
        return _changed(text, [(*_span(item), f'"{written}"')])
    if place == 0 and shape.name == "int":
        return _changed(text, [(*_span(item), f"string({written})")])
    if place == 0 and shape.name == "list":
        rest = text[_span(item)[1] : _span(tree)[1]]
        arguments = cel_syntax.arguments(tree, 2)
        if name == "contains" and len(arguments) == 1:
            return _changed(text, [(*_span(tree), f"{_written(text, arguments[0])} in {written}")])
        return _changed(text, [(*_span(tree), f"{written}.exists(item, item{rest})")])
    return None


def _names_of(tree: cel_syntax.Tree, columns: Sequence[str]) -> str | None:
    """The column of names that belongs to a column of numbers."""
    tree = cel_syntax.unwrap(tree)
    if tree.data != "ident":
        return None
    name = tree.children[0].value
    beside = [*(["error"] if name == "errno" else []), f"{name}_name", name.removesuffix("_raw")]
    return next((found for found in beside if found in columns and found != name), None)


def _span(tree: cel_syntax.Tree) -> tuple[int, int]:
    place: Any = getattr(tree, "meta", tree)
    return place.start_pos, place.end_pos


def _written(text: str, tree: cel_syntax.Tree) -> str:
    """A part of the expression, as it was typed."""
    return text[slice(*_span(tree))]


def _changed(text: str, changes: Sequence[tuple[int, int, str]]) -> str | None:
    """The expression with parts replaced; None if it would not parse."""
    for start, end, part in sorted(changes, reverse=True):
        text = text[:start] + part + text[end:]
    return shlex.quote(text) if changes and cel_syntax.parses(text) else None
