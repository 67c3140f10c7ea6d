"""kubectl's JSONPath templates and custom-columns, applied to JSON rows.

A template is text with expressions in braces: `{.pod} {.path}{"\\n"}`, and `{range .args[*]}{@}{" "}{end}`.
python-jsonpath evaluates the expressions; kubectl omits their leading `$`. A newline is added if the text of a row does
not end with one, since rows come one by one. The trap: values are hostile text and are escaped; the template's own text
is not.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.views.row_texts import MemberRows
from kubectl_gadget.views.shown_columns import Heading, nearest

Find = Callable[[Any], list[Any]]
"""Finds all values of an expression in a value."""
Render = Callable[[Any], str]

_PLAIN = re.compile(r"[$@]?\.([A-Za-z_]\w*)")
_FIRST_NAME = re.compile(r"\$\.([A-Za-z_]\w*)")
_PIECE = re.compile(r"\{((?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[^{}\"'])*)\}|([^{}]+)")


class TemplateSink(Sink):
    """`-o jsonpath=…`: renders the template for each row."""

    def __init__(self, stream: TextIO, template: str, members: MemberRows, known: Iterable[str]) -> None:
        self._stream = stream
        self._members = members
        self._render = compile_template(template, frozenset(known))

    def write_chunk(self, rows: Rows) -> None:
        self._stream.write("".join(map(self._render, self._members.records(rows))))

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.flush()


def compile_template(template: str, known: frozenset[str]) -> Render:
    """Compiles a template to a function that renders one JSON row, with a final newline. `known` are the members of
    rows.

    Raises UsageError if it does not parse, or names a member that no row has.
    """
    pieces, position = list[tuple[str, str]](), 0
    while position < len(template):
        match = _PIECE.match(template, position)
        if match is None:
            raise _wrong(template, position, "unbalanced brace")
        text, expression = match[2], match[1]
        pieces.append(("text", text) if text is not None else ("expression", expression.strip()))
        position = match.end()
    renders, rest = _compile(template, pieces, known, inside=False)
    if rest:
        raise UsageError(f"jsonpath: {{end}} without {{range}} in {template!r}")
    render = _join(renders)

    def ended(row: Any) -> str:
        text = render(row)
        return text if text.endswith("\n") else f"{text}\n"

    return ended


def custom_columns(spec: str, known: frozenset[str]) -> tuple[list[Heading], list[Find]]:
    """`PID:.pid,FILE:.path`: headings, and a function per column that finds its values. Raises UsageError."""
    headings, finds = list[Heading](), list[Find]()
    for item in re.split(r",(?![^\[({]*[\])}])", spec):
        title, colon, path = item.partition(":")
        if not colon or not title or not path:
            raise UsageError(f"custom-columns: {item!r} is not HEADER:.column", "custom-columns=PID:.pid,FILE:.path")
        headings.append(Heading(title.lower(), title, len(title)))
        path = path.removeprefix("{").removesuffix("}")
        finds.append(_find(path if path[:1] in ".$@[" else f".{path}", known))
    return headings, finds


def custom_cells(records: Sequence[dict[str, Any]], finds: Sequence[Find]) -> list[Sequence[str]]:
    """The cells of custom-columns; `<none>` if a row has no value, as in kubectl."""
    return [[",".join(map(_spell, find(record))) or "<none>" for record in records] for find in finds]


def _compile(
    template: str, pieces: list[tuple[str, str]], known: frozenset[str], inside: bool
) -> tuple[list[Render], list[tuple[str, str]]]:
    """Compiles pieces up to the end, or to the `{end}` that closes this range. Returns renderers and remaining
    pieces."""
    renders = list[Render]()
    while pieces:
        (kind, text), pieces = pieces[0], pieces[1:]
        if kind == "text":
            renders.append(_constant(text))
        elif text == "end":
            return (renders, pieces) if inside else (renders, [("expression", "end")])
        elif text.startswith("range "):
            body, pieces = _compile(template, pieces, frozenset(known), inside=True)
            renders.append(_range(_find(text.removeprefix("range ").strip(), known), _join(body)))
        elif text[:1] in ('"', "'"):
            renders.append(_constant(_unquote(text)))
        else:
            renders.append(_values(_find(text, known)))
    if inside:
        raise UsageError(f"jsonpath: {{range}} without {{end}} in {template!r}")
    return renders, []


def _find(expression: str, known: frozenset[str]) -> Find:
    if expression in ("@", "$", "."):
        return lambda value: [value]
    plain = _PLAIN.fullmatch(expression)
    path = expression if expression[:1] == "$" else "$" + expression.removeprefix("@")
    name = _FIRST_NAME.match(path)
    if name is not None and name[1] not in known:
        raise UsageError(f"jsonpath: rows have no {name[1]!r}", nearest(name[1], known))
    if plain is not None:
        key = plain[1]
        return lambda value: [value[key]] if isinstance(value, dict) and key in value else []
    from jsonpath import JSONPathError
    from jsonpath import compile as compile_path

    try:
        compiled = compile_path(path)
    except JSONPathError as error:
        raise UsageError(f"jsonpath: {expression!r} is not a JSONPath expression: {error}") from None
    return lambda value: list(compiled.findall(value)) if isinstance(value, dict | list) else []


def _constant(text: str) -> Render:
    return lambda value: text


def _values(find: Find) -> Render:
    return lambda value: " ".join(map(_spell, find(value)))


def _range(find: Find, body: Render) -> Render:
    return lambda value: "".join(map(body, find(value)))


def _join(renders: list[Render]) -> Render:
    return lambda value: "".join([render(value) for render in renders])


def _spell(value: Any) -> str:
    if isinstance(value, str):
        return escape(value)
    return "" if value is None else json.dumps(value)


def _unquote(text: str) -> str:
    """Unquotes a text in a template, with Go's escapes."""
    if len(text) < 2 or text[-1] != text[0]:
        raise UsageError(f"jsonpath: the text {text} has no closing quote")
    try:
        inner = text[1:-1] if text[0] == '"' else text[1:-1].replace("\\'", "'").replace('"', '\\"')
        return str(json.loads(f'"{inner}"'))
    except ValueError:
        raise UsageError(f"jsonpath: {text} is not a quoted text") from None


def _wrong(template: str, position: int, why: str) -> UsageError:
    return UsageError(f"jsonpath: {why}\n  {template}\n  {' ' * position}^")
