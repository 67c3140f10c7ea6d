"""`python -m tests.wire.protocol_tables`: writes the tables of docs/protocol.md from the classes of messages.

With --check nothing is written, and stale tables are an error; a test does that. Docstrings of members exist in the
source only, so it is read again, and an installed package has no docs/.
"""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from kubectl_gadget.wire import agent_messages, client_messages, policy_messages
from kubectl_gadget.wire.message import NONE, Message, _plan

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
BEGIN = "<!-- Written by python -m tests.wire.protocol_tables, which a test compares with this file. -->\n"
END = "<!-- The end of what it writes. -->\n"
_GROUPS: Sequence[tuple[str, ModuleType]] = (
    ("Messages of agents", agent_messages),
    ("Messages of clients", client_messages),
    ("Policies in messages of clients", policy_messages),
)


def declared(module: ModuleType) -> Iterator[type[Message]]:
    """The messages that a module declares, in its order."""
    found = (each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Message))
    yield from (each for each in found if each.__module__ == module.__name__ and each.__name__[:1] != "_")


def written(page: str) -> str:
    """The page with current tables. Raises ValueError when it lacks the comments between which they belong."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("docs/protocol.md has lost the two comments between which the tables of messages stand")
    return f"{before}{begin}{tables()}{end}{after}"


def tables() -> str:
    """All tables."""
    found = []
    for title, module in _GROUPS:
        meanings = _meanings(module)
        found.append(f"\n## {title}\n")
        found += [_table(cls, meanings) for cls in declared(module)]
    return "\n".join(found) + "\n"


def _table(cls: type[Message], meanings: Mapping[str, Mapping[str, str]]) -> str:
    rows = ["| member | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, member in _plan(cls, False).items():
        codec, default = member.codec, member.default
        shown = "required" if member.required else _default(codec.write(default) if default is not None else None)
        meaning = next(found for base in cls.__mro__ if (found := meanings.get(base.__name__, {}).get(name)))
        rows.append(f"| `{name}` | {codec.name} | {shown} | {meaning} |".replace("\n", " "))
    return f"### {cls.__name__}\n{inspect.getdoc(cls)}\n\n" + "\n".join(rows) + "\n"


def _default(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if not value or value == dict(NONE):
        return "empty"
    return ", ".join(f"`{each}`" for each in value) if isinstance(value, list) else f"`{value}`"


def _meanings(module: ModuleType) -> dict[str, dict[str, str]]:
    """By class and member, the line below the member."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            lines = found[node.name] = {}
            for member, line in zip(node.body, node.body[1:], strict=False):
                if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                    if member.target.id.isupper():  # of the class, not of its JSON
                        continue
                    assert isinstance(line, ast.Expr), f"{node.name}.{member.target.id} has no docstring"
                    assert isinstance(line.value, ast.Constant)
                    text = " ".join(str(line.value.value).split())
                    lines[member.target.id.removesuffix("_")] = text.replace("|", "\\|")
    return found


def main(arguments: Sequence[str]) -> int:
    """Writes or checks. The exit code."""
    page = PAGE.read_text()
    wanted = written(page)
    if page == wanted:
        return 0
    if "--check" in arguments:
        sys.stderr.write("docs/protocol.md is stale. try: python -m tests.wire.protocol_tables\n")
        return 1
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
