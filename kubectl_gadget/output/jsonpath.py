"""kubectl's JSONPath templates and custom-columns, applied to JSON rows.

A template is text with expressions in braces: `{.pod} {.path}{"\\n"}`, and `{range .args[*]}{@}{" "}{end}`.
python-jsonpath evaluates the expressions; kubectl omits their leading `$`. A newline is added if the text of a row does
not end with one, since rows come one by one. Values are hostile text and are escaped; the template's own text
is not.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.columns import EVENT, Heading, JoinedColumns
from kubectl_gadget.output.escape import escape, escape_all
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.output.sink import StreamSink
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.texts import CodedTexts
from kubectl_gadget.rows.vectors import exact, pick
from kubectl_gadget.wording import suggested

Find = Callable[[object], list[object]]
"""Finds all values of an expression in a value."""
Render = Callable[[object], str]

_PLAIN = re.compile(r"[$@]?\.([A-Za-z_]\w*)")
_COLUMNS = re.compile(r",(?![^\[({]*[\])}])")
_FIRST_NAME = re.compile(r"\$\.([A-Za-z_]\w*)")
_PIECE = re.compile(r"\{((?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[^{}\"'])*)\}|([^{}]+)")


class TemplateSink(StreamSink):
    """`-o jsonpath=…`: renders the template for each row. If it only names members, it is rendered in columns."""

    def __init__(self, stream: TextIO, template: str, members: MemberRows, known: Iterable[str]) -> None:
        super().__init__(stream)
        self._members = members
        self._render = compile_template(template, frozenset(known))
        self._pieces = [(kind, _plain_name(text), text) for kind, text in _pieces(template)]
        self._is_plain = all(kind == "text" or name or text[:1] in ('"', "'") for kind, name, text in self._pieces)

    def write_chunk(self, rows: Rows) -> None:
        if not self._is_plain:
            self._stream.write("".join(map(self._render, self._members.records(rows))))
            return
        joined = JoinedColumns(len(rows))
        for kind, name, text in self._pieces:
            if name:
                joined.each("%s", [member_texts(self._members, rows, name)])
            else:
                joined.text(text if kind == "text" else _unquote(text))
        self._stream.write("".join([text if text.endswith("\n") else f"{text}\n" for text in joined.rows()]))


def compile_template(template: str, known: frozenset[str]) -> Render:
    """Compiles a template to a function that renders one JSON row, with a final newline. `known` are the members of
    rows.

    Raises UsageError if it does not parse, or names a member that no row has.
    """
    renders, rest = _compile(template, _pieces(template), known, inside=False)
    if rest:
        raise UsageError(f"jsonpath: {{end}} without {{range}} in {template!r}")
    render = _join(renders)

    def ended(row: object) -> str:
        text = render(row)
        return text if text.endswith("\n") else f"{text}\n"

    return ended


def _pieces(template: str) -> list[tuple[str, str]]:
    """Its texts and expressions. Raises UsageError."""
    pieces, position = list[tuple[str, str]](), 0
    while position < len(template):
        match = _PIECE.match(template, position)
        if match is None:
            raise _wrong(template, position, "unbalanced brace")
        text, expression = match[2], match[1]
        pieces.append(("text", text) if text is not None else ("expression", expression.strip()))
        position = match.end()
    return pieces


def member_texts(members: MemberRows, rows: Rows, name: str) -> Sequence[str]:
    """Return the texts that replace a template's `{.name}` in each row; empty where a row has no such value."""

    def read(batch: Batch) -> list[str]:
        if name == EVENT and members.event:
            return [batch.gadget.event] * len(batch)
        member = next((member for member in members.members(batch) if member.name == name), None)
        if member is None:
            return [""] * len(batch)
        vector = batch.vector(name, member.read)
        if isinstance(vector, CodedTexts):
            return pick([exact(word) for word in vector.words], vector.codes)
        values = vector.values()
        if member.optional:
            values = [None if value is False else value for value in values]
        return [value if isinstance(value, str) else "" if value is None else json.dumps(value) for value in values]

    return escape_all(rows.collect(read))


def custom_columns(spec: str, known: frozenset[str]) -> tuple[list[Heading], list[Find]]:
    """`PID:.pid,FILE:.path`: headings, and a function per column that finds its values. Raises UsageError."""
    headings, finds = list[Heading](), list[Find]()
    for item in re.split(_COLUMNS, spec):
        title, colon, path = item.partition(":")
        if not colon or not title or not path:
            raise UsageError(f"custom-columns: {item!r} is not HEADER:.column", "custom-columns=PID:.pid,FILE:.path")
        headings.append(Heading(title.lower(), title, len(title)))
        finds.append(_find(_path(path), known))
    return headings, finds


def _path(text: str) -> str:
    text = text.removeprefix("{").removesuffix("}")
    return text if text[:1] in ".$@[" else f".{text}"


def row_cells(members: MemberRows, spec: str, finds: Sequence[Find]) -> Callable[[Rows], list[Sequence[str]]]:
    """The cells of custom-columns, as `custom_cells` makes them, of rows; columns that only name a member are read as
    a whole."""
    names = [_plain_name(_path(item.partition(":")[2])) for item in re.split(_COLUMNS, spec)]

    def read(rows: Rows) -> list[Sequence[str]]:
        if not all(names):
            return custom_cells(members.records(rows), finds)
        return [[text or "<none>" for text in member_texts(members, rows, name)] for name in names]

    return read


def custom_cells(records: Sequence[dict[str, object]], finds: Sequence[Find]) -> list[Sequence[str]]:
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


def _plain_name(expression: str) -> str:
    """The member that an expression consists of; empty: it is another one."""
    plain = _PLAIN.fullmatch(expression)
    return plain[1] if plain else ""


def _find(expression: str, known: frozenset[str]) -> Find:
    if expression in ("@", "$", "."):
        return lambda value: [value]
    path = expression if expression[:1] == "$" else "$" + expression.removeprefix("@")
    name = _FIRST_NAME.match(path)
    if name is not None and name[1] not in known:
        raise UsageError(f"jsonpath: rows have no {name[1]!r}", suggested(name[1], known))
    if key := _plain_name(expression):
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


def _spell(value: object) -> str:
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
